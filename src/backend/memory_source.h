#pragma once
// Where a caching allocator's memory comes from.

#include <cstddef>
#include <memory>

namespace sgm {

/// A range of memory, or of addresses.
struct Region {
  char* data = nullptr;
  std::size_t bytes = 0;

  char* end() const { return data + bytes; }
};

class MemorySource {
 public:
  virtual ~MemorySource() = default;
  /// `bytes` or more, aligned for every use; absent where there is no more.
  virtual Region acquire(std::size_t bytes) = 0;
  /// Takes back what acquire() returned. Sources with a page take any whole pages of it.
  virtual void dispose(const Region& region) = 0;
  /// Where the next region will begin, right behind the last one: the two are one then. Null where that is
  /// not known.
  virtual char* next() const { return nullptr; }
  /// What may be disposed of by itself; 0: a region as a whole.
  virtual std::size_t page() const { return 0; }
  /// Whether there is memory at the addresses.
  virtual bool is_real() const { return true; }
};

/// Addresses without memory, for dry runs: one region that grows by what is asked for.
std::unique_ptr<MemorySource> create_dry_memory();

/// GPUs give memory in regions that stay as they are: as large as this at the least, in multiples of 2 MiB.
constexpr std::size_t kUsualRegion = std::size_t{20} << 20;
std::size_t region_size(std::size_t bytes);
/// The same without memory. *given counts the bytes of all sources that share it: none gives another's
/// addresses.
std::unique_ptr<MemorySource> create_dry_regions(std::shared_ptr<std::size_t> given);

}  // namespace sgm
