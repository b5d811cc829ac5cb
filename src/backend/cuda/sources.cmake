include(${PROJECT_SOURCE_DIR}/kernels/sources.cmake)
target_sources(
  sgm
  PRIVATE backend/cuda/conv_graph.cpp
          backend/cuda/conv_plans.cpp
          backend/cuda/convolution.cpp
          backend/cuda/cuda_context.cpp
          backend/cuda/cudnn_graph.cpp
          backend/cuda/library_versions.cpp
          backend/cuda/plan_cache.cpp
          backend/cuda/product.cpp
          backend/cuda/staging.cpp
          ${SGM_CUDA_KERNELS})
target_compile_definitions(sgm PUBLIC SGM_WITH_CUDA)
target_link_libraries(sgm PRIVATE CUDA::cudart CUDA::cublasLt ${SGM_CUDNN_LIBRARY})
sgm_cuda_options(sgm)
