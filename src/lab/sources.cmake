target_sources(sgm PRIVATE lab/checkerboard.cpp lab/density.cpp lab/density_file.cpp lab/exact_score.cpp lab/symmetric.cpp)
