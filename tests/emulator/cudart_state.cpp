#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "emulator/cudart.h"
#include "emulator/stream.h"

namespace sgm::emulator {

Runtime& Runtime::instance() {
  static Runtime runtime;
  return runtime;
}

Runtime::Runtime() : default_stream_(std::make_unique<CUstream_st>()) {
  const char* mode = std::getenv("SGM_EMULATOR_DEFERRED");
  deferred = mode && std::strcmp(mode, "1") == 0;
  streams.push_back(default_stream_.get());
}

Runtime::~Runtime() = default;

void Runtime::enqueue(cudaStream_t handle, Work work) {
  const cudaStream_t stream = resolve(handle);
  if (stream->capture) return stream->capture->nodes.push_back(std::move(work));
  if (deferred || !stream->queue.empty()) return stream->queue.push_back(std::move(work));
  if (!has_failed_) work();
}

void Runtime::drain(cudaStream_t handle, const Marker* until) {
  const cudaStream_t stream = resolve(handle);
  while (!stream->queue.empty() && !(until && until->reached)) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (has_failed_) continue;
    try {
      work();
    } catch (const std::exception& error) {
      has_failed_ = true;
      reasons[cudaErrorLaunchFailure] = error.what();
    }
  }
}

void Runtime::drain_all() {
  for (const cudaStream_t stream : std::vector<cudaStream_t>(streams)) drain(stream);
}

bool Runtime::is_capturing() const {
  return std::any_of(streams.begin(), streams.end(), [](cudaStream_t s) { return s->capture != nullptr; });
}

cudaError_t Runtime::may_wait(cudaStream_t handle) {
  const cudaStream_t stream = resolve(handle);
  if (!stream->capture) return cudaSuccess;
  stream->capture_lost = true;
  return refuse(cudaErrorStreamCaptureUnsupported, "a call waits for a stream that is being captured");
}

void* Runtime::allocate(std::size_t bytes, MemoryKind kind) {
  const bool device = kind == MemoryKind::device;
  void* data = nullptr;
  if ((device && in_use_ + bytes > kDeviceMemory) || posix_memalign(&data, 256, bytes) != 0) return nullptr;
  std::memset(data, 0xff, bytes);  // NaN
  blocks_[reinterpret_cast<std::uintptr_t>(data)] = {bytes, kind};
  if (device) in_use_ += bytes;
  return data;
}

bool Runtime::release(void* data, MemoryKind kind) {
  const auto found = blocks_.find(reinterpret_cast<std::uintptr_t>(data));
  if (found == blocks_.end() || found->second.kind != kind) return false;
  if (kind == MemoryKind::device) in_use_ -= found->second.bytes;
  blocks_.erase(found);
  std::free(data);
  return true;
}

Runtime::Place Runtime::place_of(const void* data, std::size_t bytes, MemoryKind kind) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(data), end = begin + bytes;
  // The last block that starts before the range ends.
  for (auto block = blocks_.lower_bound(std::max(end, begin + 1)); block != blocks_.begin();) {
    --block;
    const std::uintptr_t block_end = block->first + block->second.bytes;
    if (block_end <= begin) break;
    if (block->second.kind != kind) continue;
    return block->first <= begin && end <= block_end ? Place::inside : Place::across;
  }
  return Place::outside;
}

cudaError_t Runtime::refuse(cudaError_t error, std::string why) {
  reasons[error] = std::move(why);
  return last_error = error;
}

cudaError_t Runtime::status() {
  if (has_failed_) last_error = cudaErrorLaunchFailure;
  return has_failed_ ? cudaErrorLaunchFailure : cudaSuccess;
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
  Runtime& runtime = Runtime::instance();
  const std::scoped_lock lock(runtime.mutex);
  runtime.enqueue(stream, std::move(work));
}

bool is_device_pointer(const void* p) {
  Runtime& runtime = Runtime::instance();
  const std::scoped_lock lock(runtime.mutex);
  return !p || runtime.place_of(p, 1, MemoryKind::device) == Runtime::Place::inside;
}

}  // namespace sgm::emulator
