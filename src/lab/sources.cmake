target_sources(
  sgm
  PRIVATE lab/checkerboard.cpp
          lab/density.cpp
          lab/density_file.cpp
          lab/exact_score.cpp
          lab/fit.cpp
          lab/fokker_planck.cpp
          lab/symmetric.cpp
          lab/two_sample.cpp)
