// The allocator: blocks cut from regions, and where the regions come from.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "backend/block_pool.h"
#include "backend/caching_allocator.h"
#include "backend/cpu/host_memory.h"
#include "expect_error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace sgm {
namespace {

// ---- blocks -----------------------------------------------------------------------------------------------

/// Addresses that nobody touches.
char* at(std::size_t address) { return reinterpret_cast<char*>((std::size_t{1} << 40) + address); }

TEST(BlockPool, TakesTheSmallestBlockThatFitsAndLeavesTheRest) {
  BlockPool pool;
  EXPECT_EQ(pool.take(1), nullptr);
  pool.add({at(0), 1000}, false);
  for (const std::size_t bytes : {300, 10, 100, 10, 200, 10}) ASSERT_NE(pool.take(bytes), nullptr);
  pool.give(at(0)), pool.give(at(310)), pool.give(at(420));  // free: 300, 100, 200 and 370 at the end
  EXPECT_EQ(pool.take(90), at(310));
  EXPECT_EQ(pool.take(10), at(400)) << "the rest of it";
  EXPECT_EQ(pool.take(150), at(420));
  EXPECT_EQ(pool.take(200), at(0));
  EXPECT_EQ(pool.take(371), nullptr);
  EXPECT_EQ(pool.take(370), at(630));
}

TEST(BlockPool, JoinsFreedNeighboursInWhateverOrderTheyCome) {
  std::vector<std::size_t> order = {0, 100, 200};
  do {
    BlockPool pool;
    pool.add({at(0), 300}, false);
    for (int i = 0; i < 3; ++i) pool.take(100);
    for (const std::size_t block : order) pool.give(at(block));
    EXPECT_EQ(pool.take(300), at(0));
  } while (std::ranges::next_permutation(order).found);
}

TEST(BlockPool, UsesTheEndOnlyWhereNothingElseFits) {
  BlockPool pool;
  pool.add({at(0), 500}, false);
  pool.take(300), pool.take(100);
  pool.give(at(0));
  EXPECT_EQ(pool.take(90), at(0)) << "though 100 free bytes at the end fit better";
  EXPECT_EQ(pool.take(90), at(90));
  EXPECT_EQ(pool.free_before(at(500)), 100u);
  EXPECT_EQ(pool.free_before(at(400)), 0u);
  EXPECT_EQ(pool.take(121), nullptr);
  pool.add({at(500), 21}, true);
  EXPECT_EQ(pool.take(121), at(400)) << "a region grew";
}

TEST(BlockPool, KeepsRegionsApart) {
  BlockPool pool;
  pool.add({at(0), 100}, false);
  pool.add({at(100), 100}, false);
  EXPECT_EQ(pool.take(101), nullptr);
  EXPECT_EQ(pool.take(100), at(0));
  EXPECT_EQ(pool.take(60), at(100));
  const std::vector<Region> none = pool.remove_free(0);
  EXPECT_TRUE(none.empty()) << "both are in use";
  pool.give(at(100));
  const std::vector<Region> second = pool.remove_free(0);
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].data, at(100));
  EXPECT_EQ(second[0].bytes, 100u);
  EXPECT_EQ(pool.take(1), nullptr);
}

TEST(BlockPool, DropsWholePagesOfWhatIsFree) {
  BlockPool pool;
  pool.add({at(0), 10'000}, false);
  pool.take(1000), pool.take(5000), pool.take(4000);
  pool.give(at(1000));  // up to 6000
  const std::vector<Region> pages = pool.remove_free(1024);
  ASSERT_EQ(pages.size(), 1u);
  EXPECT_EQ(pages[0].data, at(1024));
  EXPECT_EQ(pages[0].bytes, 4 * 1024u);
  EXPECT_EQ(pool.take(25), at(5 * 1024));
  EXPECT_EQ(pool.take(24), at(1000)) << "what is left of a page is still there";
  EXPECT_EQ(pool.take(6000 - 5 * 1024 - 25), at(5 * 1024 + 25));
  EXPECT_EQ(pool.take(1), nullptr);
}

/// Requests and returns like those of a program: request i, or return of the block of request i.
struct Call {
  bool is_request;
  std::size_t i, bytes;
};

std::vector<Call> random_calls(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Call> calls;
  std::vector<Call> held;
  for (int i = 0; i < count; ++i) {
    if (held.empty() || random() % 5 < 3) {
      const std::size_t bytes = 1 + random() % (random() % 4 ? 3000 : 100'000);
      held.push_back({true, static_cast<std::size_t>(i), bytes});
      calls.push_back(held.back());
    } else {
      std::swap(held[random() % held.size()], held.back());
      calls.push_back({false, held.back().i, held.back().bytes});
      held.pop_back();
    }
  }
  for (const Call& left : held) calls.push_back({false, left.i, left.bytes});
  return calls;
}

// ---- the allocator ----------------------------------------------------------------------------------------

/// A pretended device with room for so many bytes.
struct Device {
  explicit Device(std::size_t bytes) : room(bytes) {}

  struct Source final : MemorySource {
    explicit Source(Device& d) : device(d) {}
    Region acquire(std::size_t bytes) override {
      ++device.calls;
      if (device.taken + bytes > device.room) return {};
      device.taken += bytes;
      auto block = std::make_unique<char[]>(bytes);
      const Region region{block.get(), bytes};
      device.blocks[region.data] = std::move(block);
      return region;
    }
    void dispose(const Region& region) override {
      device.taken -= region.bytes;
      EXPECT_EQ(device.blocks.erase(region.data), 1u) << "a block was given back that was never taken";
    }
    Device& device;
  };

  CachingAllocator allocator() { return CachingAllocator(std::make_unique<Source>(*this)); }

  std::size_t room, taken = 0, calls = 0;
  std::map<void*, std::unique_ptr<char[]>> blocks;
};

/// Room beside what is asked for: AddressSanitizer wants gaps.
constexpr std::size_t kSpare = 1024;

TEST(CachingAllocator, HandsFreedBlocksOutAgain) {
  Device device(1 << 20);
  CachingAllocator allocator = device.allocator();
  void* const first = allocator.allocate(1000);
  allocator.release(first, 1000);
  EXPECT_EQ(allocator.allocate(1000), first);
  EXPECT_EQ(device.calls, 1u);
  void* const second = allocator.allocate(1000);
  EXPECT_NE(second, first) << "a block in use was handed out";
  allocator.release(first, 1000);
  allocator.release(second, 1000);
}

TEST(CachingAllocator, CountsWhatIsInUseAndTheMost) {
  Device device(1 << 20);
  CachingAllocator allocator = device.allocator();
  void* const a = allocator.allocate(1000);
  void* const b = allocator.allocate(2048);
  allocator.release(a, 1000);
  EXPECT_EQ(allocator.stats().in_use, 2048u);
  EXPECT_EQ(allocator.stats().peak, 3072u);
  allocator.reset_peak();
  EXPECT_EQ(allocator.stats().peak, 2048u);
  EXPECT_EQ(allocator.stats().reserved, device.taken);
  EXPECT_LE(device.taken, 3072u + kSpare);
  allocator.release(b, 2048);
  EXPECT_EQ(allocator.stats().in_use, 0u);
}

TEST(CachingAllocator, GivesTheCacheBackBeforeItGivesUp) {
  constexpr std::size_t kLarge = 1 << 16;
  Device device(kLarge + kSpare);
  CachingAllocator allocator = device.allocator();
  allocator.release(allocator.allocate(kLarge / 2), kLarge / 2);
  void* const large = allocator.allocate(kLarge);  // fits only without what the cache keeps
  EXPECT_EQ(device.blocks.size(), 1u);
  expect_error({"out of memory", "batch"}, [&] { allocator.allocate(kSpare + 1); });
  EXPECT_EQ(allocator.stats().in_use, kLarge);
  allocator.release(large, kLarge);
  EXPECT_EQ(allocator.allocate(kLarge), large) << "usable after a refusal";
  allocator.release(large, kLarge);
}

TEST(CachingAllocator, ReturnsEverythingInTheEnd) {
  Device device(1 << 20);
  {
    CachingAllocator allocator = device.allocator();
    for (const std::size_t bytes : {100, 1000, 10'000}) allocator.release(allocator.allocate(bytes), bytes);
    EXPECT_GT(device.taken, 0u);
  }
  EXPECT_EQ(device.taken, 0u);
  EXPECT_TRUE(device.blocks.empty());
}

/// Makes the calls; every block is filled with a number of its own, which must still be there when it is
/// returned.
void make(const std::vector<Call>& calls, CachingAllocator& allocator, bool touch) {
  std::map<std::size_t, char*> blocks;
  for (const auto& [is_request, i, bytes] : calls) {
    if (is_request) {
      blocks[i] = static_cast<char*>(allocator.allocate(bytes));
      ASSERT_EQ(reinterpret_cast<std::size_t>(blocks[i]) % 256, 0u);
      if (touch) std::memset(blocks[i], static_cast<int>(i % 251), bytes);
      continue;
    }
    const auto number = static_cast<char>(i % 251);
    if (touch) {
      ASSERT_EQ(std::count(blocks[i], blocks[i] + bytes, number), static_cast<std::ptrdiff_t>(bytes))
          << "blocks overlap";
    }
    allocator.release(blocks[i], bytes);
  }
}

TEST(CachingAllocator, TakesNothingMoreForTheSameAgain) {
  for (unsigned seed = 0; seed < 5; ++seed) {
    CachingAllocator allocator(create_host_memory(0));
    const std::vector<Call> calls = random_calls(3000, seed);
    make(calls, allocator, true);
    const MemoryStats first = allocator.stats();
    EXPECT_EQ(first.in_use, 0u);
    EXPECT_LE(static_cast<double>(first.reserved), 1.3 * static_cast<double>(first.peak))
        << "of random sizes, too, most is in use at the peak";
    for (int i = 0; i < 3; ++i) make(calls, allocator, true);
    EXPECT_EQ(allocator.stats().reserved, first.reserved);
  }
}

TEST(CachingAllocator, CountsTheSameOnADryDevice) {
  CachingAllocator dry(create_dry_memory()), real(create_host_memory(0));
  for (unsigned seed = 0; seed < 5; ++seed) {
    const std::vector<Call> calls = random_calls(2000, seed);
    make(calls, dry, false), make(calls, real, true);
    EXPECT_EQ(dry.stats().reserved, real.stats().reserved);
    EXPECT_EQ(dry.stats().peak, real.stats().peak);
  }
}

TEST(CachingAllocator, ServesThreadsAtOnce) {
  CachingAllocator allocator(create_host_memory(0));
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed)
    threads.emplace_back([&, seed] { make(random_calls(2000, seed), allocator, true); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(allocator.stats().in_use, 0u);
}

TEST(CachingAllocator, KeepsToTheLimitOfTheCpuAndUsesItAgain) {
  constexpr std::size_t kMebibyte = 1 << 20;
  CachingAllocator allocator(create_host_memory(8 * kMebibyte), "raise --max-memory");
  const std::size_t third = 2 * kMebibyte;
  std::vector<void*> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(allocator.allocate(third));
  expect_error({"out of memory", "--max-memory"}, [&] { allocator.allocate(3 * kMebibyte); });
  allocator.release(blocks[0], third);
  // Neither the hole nor the end is large enough: the hole's pages are given back.
  void* const larger = allocator.allocate(3 * kMebibyte);
  std::memset(larger, 1, 3 * kMebibyte);
  EXPECT_LE(allocator.stats().reserved, 8 * kMebibyte);
  EXPECT_GE(allocator.stats().reserved, 7 * kMebibyte);
  for (void* block : {blocks[1], blocks[2]}) allocator.release(block, third);
  allocator.release(larger, 3 * kMebibyte);
  allocator.trim();
  EXPECT_LE(allocator.stats().reserved, 2 * std::size_t{4096}) << "parts of pages";
  void* const all = allocator.allocate(7 * kMebibyte);
  std::memset(all, 1, 7 * kMebibyte);
  allocator.release(all, 7 * kMebibyte);
}

TEST(CachingAllocator, RefusesMoreThanThereCanBe) {
  CachingAllocator allocator(create_host_memory(0));
  expect_error({"out of memory", "batch"}, [&] { allocator.allocate(std::size_t{1} << 50); });
  void* const data = allocator.allocate(10);
  std::memset(data, 1, 10);
  allocator.release(data, 10);
}

#if defined(__SANITIZE_ADDRESS__)
TEST(CachingAllocator, ShowsTheSanitizerTheEndsOfBlocks) {
  CachingAllocator allocator(create_host_memory(0));
  for (const std::size_t bytes : {1, 255, 256, 1000, 1 << 20}) {
    auto* const data = static_cast<char*>(allocator.allocate(bytes));
    auto* const other = static_cast<char*>(allocator.allocate(bytes));
    EXPECT_EQ(__asan_region_is_poisoned(data, bytes), nullptr);
    EXPECT_TRUE(__asan_address_is_poisoned(data + bytes)) << bytes;
    EXPECT_TRUE(__asan_address_is_poisoned(std::max(data, other) - 1)) << bytes;
    allocator.release(data, bytes);
    EXPECT_TRUE(__asan_address_is_poisoned(data)) << "given back";
    allocator.release(other, bytes);
  }
}
#endif

}  // namespace
}  // namespace sgm
