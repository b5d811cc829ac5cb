#include "backend/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "backend/cuda/cuda_context.h"

namespace sgm {

StagingRing::StagingRing() {
  for (Slot& slot : slots_) {
    cuda_check(cudaMallocHost(&slot.pinned, kSlotBytes), "cudaMallocHost", "upload buffer");
    cuda_check(cudaEventCreateWithFlags(&slot.read, cudaEventDisableTiming), "cudaEventCreate");
  }
}

StagingRing::~StagingRing() {
  for (Slot& slot : slots_) {
    if (slot.read) cudaEventDestroy(slot.read);
    if (slot.pinned) cudaFreeHost(slot.pinned);
  }
}

void StagingRing::upload(void* device, const void* host, std::size_t bytes, cudaStream_t stream) {
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t part = std::min(kSlotBytes, bytes - done);
    Slot& slot = slots_[next_++ % slots_.size()];
    cuda_check(cudaEventSynchronize(slot.read), "cudaEventSynchronize", "upload buffer");
    std::memcpy(slot.pinned, static_cast<const char*>(host) + done, part);
    cuda_check(
        cudaMemcpyAsync(static_cast<char*>(device) + done, slot.pinned, part, cudaMemcpyHostToDevice, stream),
        "cudaMemcpyAsync", "upload");
    cuda_check(cudaEventRecord(slot.read, stream), "cudaEventRecord", "upload buffer");
    done += part;
  }
}

}  // namespace sgm
