#include "backend/caching_allocator.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "sgm/core/error.h"

namespace sgm {
namespace {

// Small requests round up to a power of two, large ones to an eighth of their leading power of two: at most
// 12.5 % is wasted and nearly equal sizes share a list.
std::size_t rounded(std::size_t bytes) {
  bytes = std::max<std::size_t>(bytes, 64);
  const std::size_t power = std::bit_ceil(bytes);
  if (power <= 4096) return power;
  const std::size_t grain = power / 16;
  return (bytes + grain - 1) / grain * grain;
}

}  // namespace

CachingAllocator::CachingAllocator(std::function<void*(std::size_t)> acquire,
                                   std::function<void(void*, std::size_t)> dispose, std::string remedy)
    : acquire_(std::move(acquire)), dispose_(std::move(dispose)), remedy_(std::move(remedy)) {}

CachingAllocator::~CachingAllocator() { dispose_free(); }

void* CachingAllocator::allocate(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  const std::scoped_lock lock(mutex_);
  void* data = nullptr;
  if (const auto found = free_.find(size); found != free_.end() && !found->second.empty()) {
    data = found->second.back();
    found->second.pop_back();
  } else {
    data = acquire_(size);
    if (!data) {
      dispose_free();
      data = acquire_(size);
    }
    check(data != nullptr, "out of memory: ", size, " bytes wanted, ", stats_.in_use, " in use; ", remedy_);
    stats_.reserved += size;
  }
  stats_.in_use += size;
  stats_.peak = std::max(stats_.peak, stats_.in_use);
  return data;
}

void CachingAllocator::release(void* data, std::size_t bytes) noexcept {
  const std::size_t size = rounded(bytes);
  const std::scoped_lock lock(mutex_);
  stats_.in_use -= size;
  free_[size].push_back(data);
}

void CachingAllocator::trim() {
  const std::scoped_lock lock(mutex_);
  dispose_free();
}

void CachingAllocator::dispose_free() {
  for (auto& [size, blocks] : free_) {
    for (void* block : blocks) dispose_(block, size);
    stats_.reserved -= size * blocks.size();
  }
  free_.clear();
}

MemoryStats CachingAllocator::stats() const {
  const std::scoped_lock lock(mutex_);
  return stats_;
}

void CachingAllocator::reset_peak() {
  const std::scoped_lock lock(mutex_);
  stats_.peak = stats_.in_use;
}

std::unique_ptr<CachingAllocator> create_dry_allocator() {
  auto next = std::make_shared<std::uintptr_t>(std::uintptr_t{1} << 40);
  return std::make_unique<CachingAllocator>(
      [next](std::size_t bytes) {
        const std::uintptr_t address = *next;
        *next += (bytes + 255) / 256 * 256;
        return reinterpret_cast<void*>(address);
      },
      [](void*, std::size_t) {});
}

}  // namespace sgm
