target_sources(
  sgm
  PRIVATE sde/noise_scales.cpp
          sde/sde.cpp
          sde/sub_vp_sde.cpp
          sde/ve_sde.cpp
          sde/vp_sde.cpp)
