target_sources(sgm PRIVATE score/directional_loss.cpp score/level_loss.cpp score/loss.cpp score/score_model.cpp)
