#pragma once
// Blocks cut from regions of memory. A request gets the smallest free block that holds it and leaves the
// rest; freed neighbours become one. The end of the newest region serves only where nothing else does: how
// much is free there then never matters for where blocks lie, and a step that begins like the one before
// needs no more than that one.

#include <cstddef>
#include <cstdint>
#include <list>
#include <set>
#include <unordered_map>
#include <vector>

#include "backend/memory_source.h"

namespace sgm {

class BlockPool {
 public:
  BlockPool() = default;
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  /// A block of so many bytes, more than 0; null where no free one is large enough.
  char* take(std::size_t bytes);
  /// Gives back what take() returned.
  void give(char* data);

  /// More room. `continues`: it lies behind the newest region and belongs to it.
  void add(const Region& region, bool continues);
  /// What is free at the end of the newest region, if that lies at `end`.
  std::size_t free_before(const char* end) const;
  /// Drops what is free: whole regions, or whole pages where `page` is not 0.
  std::vector<Region> remove_free(std::size_t page);

 private:
  struct Block {
    Region range;
    std::uint64_t region;  // its number: addresses differ from run to run
    bool is_free;
  };
  using Blocks = std::list<Block>;
  using Place = Blocks::iterator;
  /// Smaller ones first, then older regions, then lower addresses.
  struct Before {
    using is_transparent = void;
    bool operator()(const Place& a, const Place& b) const;
    bool operator()(const Place& a, std::size_t bytes) const { return a->range.bytes < bytes; }
  };

  /// Makes a block free and joins it with its free neighbours.
  void set_free(Place block);
  /// What remove_free() takes of a free block.
  Region droppable(Place block, std::size_t page);

  Blocks blocks_;  // in the order of regions, then of addresses
  std::set<Place, Before> free_;
  std::unordered_map<char*, Place> used_;
  std::uint64_t regions_ = 0;
};

}  // namespace sgm
