target_sources(
  sgm
  PRIVATE train/metrics.cpp
          train/progress.cpp
          train/verify.cpp)
