#include "backend/caching_allocator.h"

#include <algorithm>
#include <utility>

#include "sgm/core/error.h"

// Of AddressSanitizer, where the program has it: maybe only for kernels that an emulator runs.
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* data, std::size_t bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* data, std::size_t bytes);
}

namespace sgm {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t rounded(std::size_t bytes) {
  return std::max<std::size_t>(1, (bytes + kAlignment - 1) / kAlignment) * kAlignment;
}

/// With AddressSanitizer no tensor's memory touches that of another: between them is what nobody may read.
std::size_t with_gap(std::size_t size) { return __asan_poison_memory_region ? size + kAlignment : size; }

}  // namespace

CachingAllocator::CachingAllocator(std::unique_ptr<MemorySource> source, std::string remedy)
    : source_(std::move(source)), remedy_(std::move(remedy)) {}

CachingAllocator::~CachingAllocator() {
  dispose_free();
  for (const Region& part_of_page : pool_.remove_free(1)) permit(part_of_page);
}

void* CachingAllocator::allocate(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  const std::scoped_lock lock(mutex_);
  char* data = take(with_gap(size));
  if (!data) {
    dispose_free();
    data = take(with_gap(size));
  }
  check(data != nullptr, "out of memory: ", size, " bytes wanted, ", stats_.in_use, " in use; ", remedy_);
  permit({data, bytes});
  stats_.in_use += size;
  stats_.peak = std::max(stats_.peak, stats_.in_use);
  return data;
}

char* CachingAllocator::take(std::size_t bytes) {
  char* data = pool_.take(bytes);
  while (!data && grow(bytes)) data = pool_.take(bytes);
  return data;
}

bool CachingAllocator::grow(std::size_t bytes) {
  const char* const next = source_->next();
  const Region region = source_->acquire(bytes - (next ? pool_.free_before(next) : 0));
  if (!region.data) return false;
  forbid(region);
  pool_.add(region, region.data == next);
  stats_.reserved += region.bytes;
  return true;
}

void CachingAllocator::release(void* data, std::size_t bytes) noexcept {
  const std::scoped_lock lock(mutex_);
  forbid({static_cast<char*>(data), bytes});
  stats_.in_use -= rounded(bytes);
  pool_.give(static_cast<char*>(data));
}

void CachingAllocator::forbid(const Region& region) const {
  if (__asan_poison_memory_region && source_->is_real())
    __asan_poison_memory_region(region.data, region.bytes);
}

void CachingAllocator::permit(const Region& region) const {
  if (__asan_unpoison_memory_region && source_->is_real())
    __asan_unpoison_memory_region(region.data, region.bytes);
}

void CachingAllocator::trim() {
  const std::scoped_lock lock(mutex_);
  dispose_free();
}

void CachingAllocator::dispose_free() {
  for (const Region& region : pool_.remove_free(source_->page())) {
    permit(region);
    source_->dispose(region);
    stats_.reserved -= region.bytes;
  }
}

MemoryStats CachingAllocator::stats() const {
  const std::scoped_lock lock(mutex_);
  return stats_;
}

void CachingAllocator::reset_peak() {
  const std::scoped_lock lock(mutex_);
  stats_.peak = stats_.in_use;
}

}  // namespace sgm
