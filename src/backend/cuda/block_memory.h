#pragma once
// How much shared memory a block may have.

#include "backend/cuda/cuda_context.h"

namespace sgm {

/// Get it as device.part<BlockMemory>(). From compute capability 8.0 on it is at least 99 KB.
struct BlockMemory {
  std::size_t bytes = 227 * 1024;  // in a dry run

  explicit BlockMemory(CudaContext& device) {
    if (!device.stream()) return;
    cudaDeviceProp properties{};  // of the first device: a context's, or its like
    cuda_check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    bytes = properties.sharedMemPerBlockOptin;
  }
};

}  // namespace sgm
