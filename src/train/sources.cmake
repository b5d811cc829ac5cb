target_sources(
  sgm
  PRIVATE train/checkpoint.cpp
          train/classifier_trainer.cpp
          train/memory_plan.cpp
          train/metrics.cpp
          train/progress.cpp
          train/run.cpp
          train/trainee.cpp
          train/trainer.cpp
          train/verify.cpp)
