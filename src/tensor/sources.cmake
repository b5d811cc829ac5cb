target_sources(sgm PRIVATE tensor/tensor.cpp)
