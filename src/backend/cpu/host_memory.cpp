#include "backend/cpu/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sgm {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t whole_pages(std::size_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

class HostMemory final : public MemorySource {
 public:
  explicit HostMemory(std::size_t limit) : limit_(limit) {}
  ~HostMemory() override {
    for (const Region& mapping : mappings_) munmap(mapping.data, mapping.bytes);
  }

  Region acquire(std::size_t bytes) override {
    if (limit_ != 0 && held_ + bytes > limit_) return {};
    if (bytes > static_cast<std::size_t>(last_ - next_) && !reserve(bytes)) return {};
    if (!commit(next_ + bytes)) return {};
    const Region region{next_, bytes};
    next_ += bytes;
    held_ += bytes;
    return region;
  }

  /// The addresses stay taken: memory comes to new ones.
  void dispose(const Region& region) override {
    madvise(region.data, region.bytes, MADV_DONTNEED);
    mprotect(region.data, region.bytes, PROT_NONE);
    held_ -= region.bytes;
  }

  char* next() const override { return next_; }
  std::size_t page() const override { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

 private:
  /// Addresses for `bytes` at the least, where memory comes to from now on.
  bool reserve(std::size_t bytes) {
    constexpr std::size_t kTimesMemory = 4;
    const std::size_t memory = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * page();
    // Addresses may be limited, too.
    for (std::size_t size = whole_pages(std::max(kTimesMemory * memory, bytes)); size >= bytes; size /= 2) {
      void* const data = mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (data == MAP_FAILED) continue;
      mappings_.push_back({static_cast<char*>(data), size + kHugePage});
      next_ = committed_ = reinterpret_cast<char*>(whole_pages(reinterpret_cast<std::uintptr_t>(data)));
      last_ = next_ + size;
      madvise(next_, size, MADV_HUGEPAGE);  // a hint: its failure costs only speed
      return true;
    }
    return false;
  }

  /// Memory up to `end`.
  bool commit(const char* end) {
    if (end <= committed_) return true;
    const std::size_t bytes = std::min(whole_pages(static_cast<std::size_t>(end - committed_)),
                                       static_cast<std::size_t>(last_ - committed_));
    if (mprotect(committed_, bytes, PROT_READ | PROT_WRITE) != 0) return false;
    committed_ += bytes;
    return true;
  }

  std::size_t limit_, held_ = 0;
  std::vector<Region> mappings_;
  char *next_ = nullptr, *committed_ = nullptr, *last_ = nullptr;
};

}  // namespace

std::unique_ptr<MemorySource> create_host_memory(std::size_t limit) {
  return std::make_unique<HostMemory>(limit);
}

}  // namespace sgm
