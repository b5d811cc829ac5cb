target_sources(
  sgm
  PRIVATE train/checkpoint.cpp
          train/metrics.cpp
          train/progress.cpp
          train/trainer.cpp
          train/run.cpp
          train/trainee.cpp
          train/verify.cpp)
