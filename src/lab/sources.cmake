target_sources(
  sgm
  PRIVATE lab/checkerboard.cpp
          lab/density.cpp
          lab/density_file.cpp
          lab/exact_score.cpp
          lab/figures/clouds.cpp
          lab/figures/fields.cpp
          lab/figures/figures.cpp
          lab/figures/films.cpp
          lab/figures/panels.cpp
          lab/figures/processes.cpp
          lab/figures/sampling.cpp
          lab/fit.cpp
          lab/fokker_planck.cpp
          lab/symmetric.cpp
          lab/two_sample.cpp)
