#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/create.h"
#include "backend/cuda/cuda_context.h"
#include "backend/cuda/cudnn_graph.h"

namespace sgm {

std::string cuda_library_versions() {
  const std::size_t cublas = cublasLtGetVersion();  // major 10^4, minor 10^2, patch 1
  int runtime = 0;
  cuda_check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  return "cuDNN " + cudnn::version() + ", cuBLASLt " + std::to_string(cublas / 10000) + '.' +
         std::to_string(cublas % 10000 / 100) + '.' + std::to_string(cublas % 100) + ", CUDA runtime " +
         std::to_string(runtime / 1000) + '.' + std::to_string(runtime % 1000 / 10);
}

}  // namespace sgm
