#pragma once
// Counters by which the blocks of a launch learn which of them is the last.

#include "backend/cuda/cuda_context.h"

namespace sgm {

/// Integers in device memory that are zero between kernels: a kernel that counts in them leaves zeros behind.
/// So no launch has to clear them, and all ops of a context share them. Get it as device.part<Arrivals>().
class Arrivals {
 public:
  static constexpr int kCount = 4096;

  /// Memory and a stream of its own: the first use may be inside a graph that is thrown away.
  explicit Arrivals(CudaContext& device) {
    if (!device.stream()) return;  // a dry run
    const std::size_t bytes = kCount * sizeof(unsigned);
    void* memory = nullptr;
    cuda_check(cudaMalloc(&memory, bytes), "cudaMalloc", "arrival counters");
    counters_ = static_cast<unsigned*>(memory);
    cudaStream_t stream = nullptr;
    cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    const cudaError_t cleared = cudaMemsetAsync(memory, 0, bytes, stream);
    const cudaError_t finished = cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    cuda_check(cleared, "cudaMemsetAsync", "arrival counters");
    cuda_check(finished, "cudaStreamSynchronize", "arrival counters");
  }
  ~Arrivals() {
    if (counters_) cudaFree(counters_);
  }
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;

  unsigned* counters() const { return counters_; }

 private:
  unsigned* counters_ = nullptr;
};

}  // namespace sgm
