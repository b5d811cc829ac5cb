target_sources(sgm PRIVATE score/loss.cpp score/score_model.cpp)
