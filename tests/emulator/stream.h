#pragma once
// What the kernel emulator needs of the emulated CUDA runtime.

#include <cuda_runtime_api.h>

#include <functional>

namespace sgm::emulator {

/// Puts work at the end of the stream. A null stream is the default stream. Work throws Error when a kernel
/// is at fault: a stream that runs it later keeps the text and reports it at the next call that waits.
void enqueue(cudaStream_t stream, std::function<void()> work);

/// Whether p points into live device memory; true for null.
bool is_device_pointer(const void* p);

}  // namespace sgm::emulator
