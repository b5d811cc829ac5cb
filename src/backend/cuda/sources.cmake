target_sources(
  sgm
  PRIVATE backend/cuda/cuda_context.cpp
          backend/cuda/staging.cpp
          ${PROJECT_SOURCE_DIR}/kernels/fill.cu)
target_compile_definitions(sgm PUBLIC SGM_WITH_CUDA)
target_link_libraries(sgm PRIVATE CUDA::cudart CUDA::cublasLt ${SGM_CUDNN_LIBRARY})
sgm_cuda_options(sgm)
