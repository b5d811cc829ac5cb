target_sources(
  sgm
  PRIVATE sde/sde.cpp
          sde/sub_vp_sde.cpp
          sde/ve_sde.cpp
          sde/vp_sde.cpp)
