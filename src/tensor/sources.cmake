target_sources(sgm PRIVATE tensor/math.cpp tensor/tensor.cpp)
