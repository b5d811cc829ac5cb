include(${PROJECT_SOURCE_DIR}/kernels/sources.cmake)
if(SGM_CUPTI_INCLUDE_DIR)
  set(SGM_ACTIVITY_LOG backend/cuda/activity_log_cupti.cpp)
  set_source_files_properties(
    ${SGM_ACTIVITY_LOG} PROPERTIES COMPILE_DEFINITIONS "SGM_CUPTI_LIBRARY=\"${SGM_CUPTI_LIBRARY}\"")
  target_include_directories(sgm SYSTEM PRIVATE ${SGM_CUPTI_INCLUDE_DIR})
else()
  set(SGM_ACTIVITY_LOG backend/cuda/activity_log_absent.cpp)
endif()
set(
  SGM_CUDA_SOURCES
  backend/cuda/conv_graph.cpp
  backend/cuda/conv_plans.cpp
  backend/cuda/convolution.cpp
  backend/cuda/cublaslt_at_first_use.cpp
  backend/cuda/cuda_context.cpp
  backend/cuda/cudnn_graph.cpp
  backend/cuda/device_memory.cpp
  backend/cuda/library_versions.cpp
  backend/cuda/plan_cache.cpp
  backend/cuda/product.cpp
  backend/cuda/staging.cpp
  backend/cuda/timeline.cpp
  ${SGM_ACTIVITY_LOG})
# Each an object of its own: the emulator of the tests takes the place of some.
set_source_files_properties(${SGM_CUDA_SOURCES} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
set_source_files_properties(${SGM_CUDA_KERNELS} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
target_sources(sgm PRIVATE ${SGM_CUDA_SOURCES} ${SGM_CUDA_KERNELS})
target_compile_definitions(sgm PUBLIC SGM_WITH_CUDA)
target_link_libraries(sgm PRIVATE CUDA::cudart ${SGM_CUDNN_LIBRARY} ${CMAKE_DL_LIBS})
# Programs find it beside the CUDA runtime, or where it was when they were built.
set_source_files_properties(
  backend/cuda/cublaslt_at_first_use.cpp
  PROPERTIES
    COMPILE_DEFINITIONS
    "SGM_CUBLASLT_NAME=\"libcublasLt.so.${CUDAToolkit_VERSION_MAJOR}\";SGM_CUBLASLT_PATH=\"${CUDA_cublasLt_LIBRARY}\"")
sgm_cuda_options(sgm)
