target_sources(sgm PRIVATE)
