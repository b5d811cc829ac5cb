target_sources(
  sgm
  PRIVATE autograd/var.cpp
          autograd/ops_attention.cpp
          autograd/ops_classifier.cpp
          autograd/ops_elementwise.cpp
          autograd/ops_matmul.cpp
          autograd/ops_conv.cpp
          autograd/ops_image.cpp
          autograd/ops_refine.cpp
          autograd/ops_tangent.cpp)
