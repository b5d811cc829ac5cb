#include "backend/memory_source.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace sgm {
namespace {

class DryMemory final : public MemorySource {
 public:
  DryMemory(bool grows, std::shared_ptr<std::size_t> given) : grows_(grows), given_(std::move(given)) {}

  Region acquire(std::size_t bytes) override {
    const Region region{end(), grows_ ? bytes : region_size(bytes)};
    *given_ += region.bytes;
    return region;
  }
  void dispose(const Region&) override {}
  char* next() const override { return grows_ ? end() : nullptr; }
  std::size_t page() const override { return grows_ ? 1 : 0; }
  bool is_real() const override { return false; }

 private:
  /// From an address on that no program has.
  char* end() const { return reinterpret_cast<char*>((std::uintptr_t{1} << 40) + *given_); }

  bool grows_;
  std::shared_ptr<std::size_t> given_;
};

}  // namespace

std::unique_ptr<MemorySource> create_dry_memory() {
  return std::make_unique<DryMemory>(true, std::make_shared<std::size_t>(0));
}

std::unique_ptr<MemorySource> create_dry_regions(std::shared_ptr<std::size_t> given) {
  return std::make_unique<DryMemory>(false, std::move(given));
}

std::size_t region_size(std::size_t bytes) {
  constexpr std::size_t kGrain = std::size_t{2} << 20;
  return (std::max(bytes, kUsualRegion) + kGrain - 1) / kGrain * kGrain;
}

}  // namespace sgm
