#pragma once
// One launch that sums over all of its blocks: the last one to finish adds what the others left behind. For
// kernel sources only.

#include "kernels/device.h"

namespace sgm {

/// Whether this block is the last of `blocks` to get here; what all of them wrote before is then visible to
/// it. All threads of the block must call. `counter` (backend/cuda/arrivals.h) is zero before and after.
__device__ inline bool is_last_block(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(counter, 1u) == blocks - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

}  // namespace sgm
