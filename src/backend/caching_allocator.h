#pragma once
// The caching allocator of a device: it takes memory from the system as it first needs it, cuts what tensors
// ask for from that, and keeps what they give back, so that a training step takes nothing from the system
// after the first ones.

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "backend/block_pool.h"
#include "backend/memory_source.h"
#include "sgm/core/context.h"

namespace sgm {

class CachingAllocator {
 public:
  /// The error of a request that the source refuses ends with `remedy`.
  explicit CachingAllocator(std::unique_ptr<MemorySource> source,
                            std::string remedy = "use a smaller batch or model");
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  /// Multiples of 256 bytes apart. Throws Error when neither the cache nor the source has the memory.
  void* allocate(std::size_t bytes);
  void release(void* data, std::size_t bytes) noexcept;
  MemoryStats stats() const;
  void reset_peak();
  /// Gives back to the system what no tensor holds.
  void trim();

 private:
  /// A block from the pool, which grows where it must; null where the source refuses.
  char* take(std::size_t bytes);
  bool grow(std::size_t bytes);
  void dispose_free();
  /// Tells AddressSanitizer, where it watches, that nobody may touch the memory, and that it may be used.
  void forbid(const Region& region) const;
  void permit(const Region& region) const;

  std::unique_ptr<MemorySource> source_;
  std::string remedy_;
  mutable std::mutex mutex_;
  BlockPool pool_;
  MemoryStats stats_;
};

}  // namespace sgm
