target_sources(
  sgm
  PRIVATE sampling/correctors.cpp
          sampling/ode_sampler.cpp
          sampling/ode_solver.cpp
          sampling/pc_sampler.cpp
          sampling/predictors.cpp
          sampling/sampler_parts.cpp
          sampling/samplers.cpp
          sampling/score_fn.cpp)
