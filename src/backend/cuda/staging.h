#pragma once
// Uploads that do not wait: host memory is copied into pinned slots, and from there by the device in stream
// order.

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>

namespace sgm {

/// A ring of pinned slots; a slot is used again once the device has read it.
class StagingRing {
 public:
  StagingRing();
  ~StagingRing();
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  /// `host` may be freed or changed at return.
  void upload(void* device, const void* host, std::size_t bytes, cudaStream_t stream);

 private:
  static constexpr std::size_t kSlotBytes = std::size_t{4} << 20;
  struct Slot {
    void* pinned = nullptr;
    cudaEvent_t read = nullptr;
  };
  std::array<Slot, 4> slots_;
  std::size_t next_ = 0;
};

}  // namespace sgm
