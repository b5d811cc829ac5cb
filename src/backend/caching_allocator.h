#pragma once
// The caching allocator of a device: freed blocks are kept by size and handed out again, so that a training
// step allocates nothing from the system after the first one.

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "sgm/core/context.h"

namespace sgm {

class CachingAllocator {
 public:
  /// `acquire` returns null when the device is out of memory; the error then ends with `remedy`.
  CachingAllocator(std::function<void*(std::size_t)> acquire, std::function<void(void*, std::size_t)> dispose,
                   std::string remedy = "use a smaller batch or model");
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  /// Throws Error when neither the cache nor the device has the memory.
  void* allocate(std::size_t bytes);
  void release(void* data, std::size_t bytes) noexcept;
  MemoryStats stats() const;
  void reset_peak();
  /// Gives back to the system what no tensor holds.
  void trim();

 private:
  void dispose_free();

  std::function<void*(std::size_t)> acquire_;
  std::function<void(void*, std::size_t)> dispose_;
  std::string remedy_;
  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

/// Addresses without memory, for dry runs.
std::unique_ptr<CachingAllocator> create_dry_allocator();

}  // namespace sgm
