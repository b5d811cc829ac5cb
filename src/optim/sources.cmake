target_sources(sgm PRIVATE optim/optimizer.cpp)
