target_sources(sgm PRIVATE core/config.cpp)
