#pragma once
// Points in a stream whose times the device keeps.

#include "backend/cuda/cuda_context.h"

namespace sgm {

class Event {
 public:
  Event() { cuda_check(cudaEventCreate(&event_), "cudaEventCreate", "timing"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) {
    cuda_check(cudaEventRecord(event_, stream), "cudaEventRecord", "timing");
  }
  /// Milliseconds from `start` to here; waits for both.
  float since(const Event& start) const {
    float milliseconds = 0;
    cuda_check(cudaEventSynchronize(event_), "cudaEventSynchronize", "timing");
    cuda_check(cudaEventElapsedTime(&milliseconds, start.event_, event_), "cudaEventElapsedTime");
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace sgm
