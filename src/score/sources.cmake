target_sources(sgm PRIVATE score/guidance.cpp score/level_loss.cpp score/directional_loss.cpp score/loss.cpp score/score_model.cpp)
