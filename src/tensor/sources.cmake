target_sources(sgm PRIVATE tensor/math.cpp tensor/replace.cpp tensor/tensor.cpp)
