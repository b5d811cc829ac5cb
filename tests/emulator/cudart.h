#pragma once
// The state behind the emulated CUDA runtime: memory, streams, failures. Tests link it instead of libcudart.
//
// A stream is a queue of closures. Eager: each runs as soon as it is queued. Deferred: nothing runs before
// something must wait, the latest moment that CUDA allows; host code that forgets to wait, or changes pinned
// memory too early, then computes nonsense. The environment variable SGM_EMULATOR_DEFERRED=1 chooses
// deferred.

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace sgm::emulator {

using Work = std::function<void()>;

/// A point of a stream.
struct Marker {
  cudaStream_t stream = nullptr;
  bool reached = false;
  std::chrono::steady_clock::time_point when;
};

enum class MemoryKind { device, pinned };

/// One emulated device. Every entry point holds its lock.
class Runtime {
 public:
  static Runtime& instance();

  /// Queues work, or records it where the stream is being captured. Throws what eager work throws.
  void enqueue(cudaStream_t stream, Work work);
  /// Runs what the stream holds, as far as `until` where one is given.
  void drain(cudaStream_t stream, const Marker* until = nullptr);
  void drain_all();
  bool is_capturing() const;
  /// Whether a call that waits for `stream` is legal now; if not, the capture is lost as well.
  cudaError_t may_wait(cudaStream_t stream);

  void* allocate(std::size_t bytes, MemoryKind kind);
  bool release(void* data, MemoryKind kind);
  /// Where [data, data + bytes) lies: `inside` one live block of the kind, `outside` all of them, or across.
  enum class Place { inside, outside, across };
  Place place_of(const void* data, std::size_t bytes, MemoryKind kind) const;

  std::size_t in_use() const { return in_use_; }

  /// Keeps the error for cudaGetLastError, and `why` for cudaGetErrorString.
  cudaError_t refuse(cudaError_t error, std::string why);
  /// What a call returns that has nothing to complain of: the failure of earlier work, if there was one.
  cudaError_t status();

  std::recursive_mutex mutex;
  bool deferred;
  cudaError_t last_error = cudaSuccess;
  std::map<cudaError_t, std::string> reasons;
  std::vector<cudaStream_t> streams;

 private:
  Runtime();
  ~Runtime();
  struct Block {
    std::size_t bytes;
    MemoryKind kind;
  };

  cudaStream_t resolve(cudaStream_t stream) { return stream ? stream : default_stream_.get(); }

  std::unique_ptr<CUstream_st> default_stream_;
  std::map<std::uintptr_t, Block> blocks_;
  std::size_t in_use_ = 0;   // of the device
  bool has_failed_ = false;  // as on a GPU, for good
};

/// Bytes of the emulated device.
inline constexpr std::size_t kDeviceMemory = std::size_t{4} << 30;

}  // namespace sgm::emulator

struct CUstream_st {
  std::deque<sgm::emulator::Work> queue;
  std::unique_ptr<CUgraph_st> capture;
  bool capture_lost = false;
};

struct CUgraph_st {
  std::vector<sgm::emulator::Work> nodes;
};

struct CUevent_st {
  std::shared_ptr<sgm::emulator::Marker> marker;  // of its last record; null: never recorded
  bool captured = false;
  bool timed = true;
};

struct CUgraphExec_st {
  std::shared_ptr<const std::vector<sgm::emulator::Work>> nodes;
};
