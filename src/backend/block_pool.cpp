#include "backend/block_pool.h"

#include <iterator>
#include <tuple>

namespace sgm {

bool BlockPool::Before::operator()(const Place& a, const Place& b) const {
  return std::tie(a->range.bytes, a->region, a->range.data) <
         std::tie(b->range.bytes, b->region, b->range.data);
}

char* BlockPool::take(std::size_t bytes) {
  auto found = free_.lower_bound(bytes);
  if (found == free_.end()) return nullptr;
  if (std::next(*found) == blocks_.end() && std::next(found) != free_.end()) ++found;
  const Place block = *found;
  free_.erase(found);
  if (block->range.bytes > bytes) {
    const Region rest{block->range.data + bytes, block->range.bytes - bytes};
    free_.insert(blocks_.insert(std::next(block), {rest, block->region, true}));
    block->range.bytes = bytes;
  }
  block->is_free = false;
  used_.emplace(block->range.data, block);
  return block->range.data;
}

void BlockPool::give(char* data) {
  const auto found = used_.find(data);
  const Place block = found->second;
  used_.erase(found);
  set_free(block);
}

void BlockPool::set_free(Place block) {
  const auto touch = [](const Block& a, const Block& b) {
    return a.region == b.region && a.range.end() == b.range.data;
  };
  if (const Place next = std::next(block); next != blocks_.end() && next->is_free && touch(*block, *next)) {
    free_.erase(next);
    block->range.bytes += next->range.bytes;
    blocks_.erase(next);
  }
  if (block != blocks_.begin()) {
    if (const Place before = std::prev(block); before->is_free && touch(*before, *block)) {
      free_.erase(before);
      before->range.bytes += block->range.bytes;
      blocks_.erase(block);
      block = before;
    }
  }
  block->is_free = true;
  free_.insert(block);
}

void BlockPool::add(const Region& region, bool continues) {
  if (!continues) ++regions_;
  set_free(blocks_.insert(blocks_.end(), {region, regions_, false}));
}

std::size_t BlockPool::free_before(const char* end) const {
  if (blocks_.empty() || !blocks_.back().is_free || blocks_.back().range.end() != end) return 0;
  return blocks_.back().range.bytes;
}

Region BlockPool::droppable(Place block, std::size_t page) {
  if (!block->is_free) return {};
  if (page == 0) {
    const Place next = std::next(block);
    const bool is_first = block == blocks_.begin() || std::prev(block)->region != block->region,
               is_last = next == blocks_.end() || next->region != block->region;
    return is_first && is_last ? block->range : Region{};
  }
  const std::size_t begin = reinterpret_cast<std::uintptr_t>(block->range.data),
                    first = (begin + page - 1) / page * page,
                    last = (begin + block->range.bytes) / page * page;
  return last > first ? Region{block->range.data + (first - begin), last - first} : Region{};
}

std::vector<Region> BlockPool::remove_free(std::size_t page) {
  std::vector<Region> removed;
  for (Place block = blocks_.begin(); block != blocks_.end();) {
    const Place next = std::next(block);
    if (const Region middle = droppable(block, page); middle.bytes > 0) {
      const Region all = block->range;
      free_.erase(block);
      for (const Region& rest : {Region{all.data, static_cast<std::size_t>(middle.data - all.data)},
                                 Region{middle.end(), static_cast<std::size_t>(all.end() - middle.end())}})
        if (rest.bytes > 0) free_.insert(blocks_.insert(block, {rest, block->region, true}));
      blocks_.erase(block);
      removed.push_back(middle);
    }
    block = next;
  }
  return removed;
}

}  // namespace sgm
