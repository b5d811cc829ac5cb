target_sources(
  sgm
  PRIVATE sampling/annealed_langevin.cpp
          sampling/chain_run.cpp
          sampling/constraints.cpp
          sampling/correctors.cpp
          sampling/inner_products.cpp
          sampling/latent.cpp
          sampling/likelihood.cpp
          sampling/ode_sampler.cpp
          sampling/ode_solver.cpp
          sampling/pc_sampler.cpp
          sampling/predictors.cpp
          sampling/sampler_parts.cpp
          sampling/samplers.cpp
          sampling/score_fn.cpp)
