target_sources(
  sgm
  PRIVATE sampling/correctors.cpp
          sampling/ode_solver.cpp
          sampling/predictors.cpp
          sampling/samplers.cpp
          sampling/score_fn.cpp)
