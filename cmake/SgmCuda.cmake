# Finds what the CUDA backend needs: nvcc, cudart, cuBLASLt, cuDNN 9.8. Leaves SGM_CUDA_MISSING empty where all of it is
# there, else saying what is not.

# cuDNN comes from apt (/usr), an archive unpacked over or beside the toolkit, or pip's nvidia-cudnn wheel.
function(sgm_find_cudnn)
  file(GLOB wheels "$ENV{VIRTUAL_ENV}/lib/python3*/site-packages/nvidia/cudnn"
       "$ENV{HOME}/.local/lib/python3*/site-packages/nvidia/cudnn"
       "/usr/local/lib/python3*/dist-packages/nvidia/cudnn" "/usr/local/lib/python3*/site-packages/nvidia/cudnn")
  set(hints ${CUDNN_ROOT} $ENV{CUDNN_ROOT} $ENV{CUDNN_PATH} ${wheels} ${CUDAToolkit_LIBRARY_ROOT})
  find_path(SGM_CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${hints} ${CUDAToolkit_INCLUDE_DIRS}
            PATH_SUFFIXES include include/x86_64-linux-gnu)
  find_library(SGM_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${hints} ${CUDAToolkit_LIBRARY_DIR}
               PATH_SUFFIXES lib lib64 lib/x64 lib/x86_64-linux-gnu)
endfunction()

# CUPTI, which records launches for sgm profile, is opened at run time: its header is all that a build needs.
function(sgm_find_cupti)
  find_path(SGM_CUPTI_INCLUDE_DIR cupti.h HINTS ${CUDAToolkit_INCLUDE_DIRS}
            ${CUDAToolkit_LIBRARY_ROOT}/extras/CUPTI/include)
  find_library(SGM_CUPTI_LIBRARY cupti HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/extras/CUPTI/lib64)
endfunction()

set(SGM_CUDA_MISSING "")
if(NOT SGM_CUDA)
  set(SGM_CUDA_MISSING "SGM_CUDA is OFF")
else()
  find_package(CUDAToolkit 12.4 QUIET)
  if(NOT CUDAToolkit_FOUND OR NOT CUDAToolkit_NVCC_EXECUTABLE)
    set(SGM_CUDA_MISSING "no CUDA toolkit 12.4 or newer with nvcc (set CUDAToolkit_ROOT)")
  elseif(NOT TARGET CUDA::cudart OR NOT TARGET CUDA::cublasLt)
    set(SGM_CUDA_MISSING "the CUDA toolkit in ${CUDAToolkit_LIBRARY_ROOT} lacks cudart or cublasLt")
  else()
    sgm_find_cudnn()
    if(NOT SGM_CUDNN_INCLUDE_DIR OR NOT SGM_CUDNN_LIBRARY)
      set(SGM_CUDA_MISSING "no cuDNN 9 (set CUDNN_ROOT to the folder that holds its include and lib)")
    else()
      file(STRINGS ${SGM_CUDNN_INCLUDE_DIR}/cudnn_version.h version REGEX "#define CUDNN_(MAJOR|MINOR)")
      string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" version "${version}")
      if(version VERSION_LESS 9.8 OR version VERSION_GREATER_EQUAL 10)
        set(SGM_CUDA_MISSING "cuDNN in ${SGM_CUDNN_INCLUDE_DIR} is ${version}, not 9.8 or a later 9")
      endif()
    endif()
  endif()
endif()

if(NOT SGM_CUDA_MISSING)
  if(NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
  endif()
  # No kernel uses what only newer GPUs have, so one PTX serves all: it is compiled once, not once for each.
  set(SGM_CUDA_CODE "")
  if(CMAKE_CUDA_ARCHITECTURES)
    set(SGM_CUDA_ARCHITECTURES ${CMAKE_CUDA_ARCHITECTURES})
  else()
    set(CMAKE_CUDA_ARCHITECTURES OFF)
    set(SGM_CUDA_ARCHITECTURES 80 90-real)  # code for 8.0 runs on 8.6 and 8.9, too
    if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8)
      list(APPEND SGM_CUDA_ARCHITECTURES 100-real 120-real)
    endif()
    list(TRANSFORM SGM_CUDA_ARCHITECTURES REPLACE "-real" "" OUTPUT_VARIABLE numbers)
    list(TRANSFORM numbers PREPEND sm_)
    list(JOIN numbers "," numbers)
    set(SGM_CUDA_CODE "-gencode=arch=compute_80,code=[compute_80,${numbers}]")
  endif()
  if(NOT CMAKE_CUDA_RUNTIME_LIBRARY)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  endif()
  enable_language(CUDA)
  sgm_find_cupti()
endif()

# Options of targets that hold .cu files. (CMake 3.25 knows no CUDA_STANDARD 20 for nvcc.)
function(sgm_cuda_options target)
  target_compile_options(
    ${target}
    PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${SGM_CUDA_CODE} -std=c++20 -lineinfo --expt-relaxed-constexpr -Werror=all-warnings
            -Xcompiler=-Wall,-Wextra,-Werror,-Wno-restrict>)
  target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS} ${SGM_CUDNN_INCLUDE_DIR})
endfunction()
