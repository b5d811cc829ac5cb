target_sources(sgm PRIVATE lab/density.cpp lab/exact_score.cpp lab/symmetric.cpp)
