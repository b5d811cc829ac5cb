#pragma once
// Context: one per device. It owns the device's memory and its library handles, is made once in main, and
// travels inside every tensor's storage, so that an op finds it on its operands and nothing is global.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace sgm {

/// Bytes held by tensors now, their maximum since reset_peak(), and bytes obtained from the system.
struct MemoryStats {
  std::size_t in_use = 0;
  std::size_t peak = 0;
  std::size_t reserved = 0;
};

class Context {
 public:
  virtual ~Context() = default;

  virtual bool is_cpu() const = 0;
  /// One line for people: device, threads or memory, instruction set, library versions.
  virtual std::string describe() const = 0;

  /// Uninitialised memory, 64-byte aligned. Throws Error when the device has no more.
  virtual void* allocate(std::size_t bytes) = 0;
  /// Gives back what allocate(bytes) returned; the memory is kept for the next request of that size.
  virtual void release(void* data, std::size_t bytes) noexcept = 0;
  virtual MemoryStats memory() const = 0;
  virtual void reset_peak() = 0;

  virtual void copy_from_host(void* device, const void* host, std::size_t bytes) = 0;
  /// Waits for the device.
  virtual void copy_to_host(void* host, const void* device, std::size_t bytes) = 0;

  /// A number that this context has not returned before, never 0.
  std::uint64_t next_stamp() { return ++stamp_; }

 private:
  std::atomic<std::uint64_t> stamp_ = 0;
};

/// "cpu" with `threads` OpenMP threads (0: all cores the process may use). Throws Error for a device that
/// this build lacks.
std::unique_ptr<Context> create_context(const std::string& device = "cpu", int threads = 0);

}  // namespace sgm
