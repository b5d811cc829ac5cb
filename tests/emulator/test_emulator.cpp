// The emulator itself: what CUDA promises holds in every order of threads, and what it forbids is found.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "emulator/cuda_emulator.h"
#include "emulator/planted.h"
#include "emulator/test_device.h"
#include "expect_error.h"

namespace sgm {
namespace {

using emulator::DeviceArray;
using emulator::parse_order;

/// Runs every test in every order.
class Emulator : public testing::TestWithParam<const char*> {
 protected:
  Emulator() { emulator::set_order(parse_order(GetParam())); }
  ~Emulator() override { emulator::set_order({}); }
  bool is(const char* order) const { return std::string(GetParam()) == order; }
};
INSTANTIATE_TEST_SUITE_P(Orders, Emulator, testing::Values("forward", "reverse", "random:1", "random:20"),
                         [](const auto& order) {
                           std::string name = order.param;
                           std::replace(name.begin(), name.end(), ':', '_');
                           return name;
                         });

std::vector<float> ramp(std::size_t n, float first = 1.0f) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST_P(Emulator, EveryThreadOfTheGridRunsOnceWithItsIndices) {
  const planted::Size size{{3, 2, 2}, {5, 3, 2}};
  DeviceArray<std::uint64_t> y(3 * 2 * 2 * 5 * 3 * 2);
  planted::write_indices(size, y.get());
  std::size_t i = 0;
  for (unsigned bz = 0; bz < 2; ++bz)
    for (unsigned by = 0; by < 2; ++by)
      for (unsigned bx = 0; bx < 3; ++bx)
        for (unsigned z = 0; z < 2; ++z)
          for (unsigned ty = 0; ty < 3; ++ty)
            for (unsigned x = 0; x < 5; ++x, ++i) {
              const unsigned block[] = {bx, by, bz}, thread[] = {x, ty, z};
              ASSERT_EQ(y[i], planted::pack_indices(block, thread)) << i;
            }
}

TEST_P(Emulator, ThreadsAndBlocksGetTheirTurnsInTheOrder) {
  for (const int threads : {1, 31, 64, 65, 1000, 1024}) {
    constexpr int kBlocks = 5;
    const auto n = static_cast<std::size_t>(kBlocks * threads);
    DeviceArray<int> counters(std::vector<int>(1 + kBlocks)), turn(n), after(n);
    planted::record_turns(kBlocks, static_cast<unsigned>(threads), counters.get(), turn.get(), after.get());
    std::set<int> turns;
    for (int i = 0; i < kBlocks * threads; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const int in_block = i % threads, block = i / threads;
      turns.insert(turn[at]);
      // A block has the same order before and after the barrier, and ends before the next begins.
      ASSERT_EQ(after[at], turn[at] % threads);
      if (is("forward")) {
        ASSERT_EQ(turn[at], i);
      }
      if (is("reverse")) {
        ASSERT_EQ(turn[at], (kBlocks - 1 - block) * threads + threads - 1 - in_block);
      }
    }
    ASSERT_EQ(turns.size(), n);
    ASSERT_EQ(*turns.rbegin(), kBlocks * threads - 1);
  }
}

std::vector<int> turns_of(const char* order) {
  emulator::set_order(parse_order(order));
  DeviceArray<int> counters(std::vector<int>(8)), turn(7 * 64), after(7 * 64);
  planted::record_turns(7, 64, counters.get(), turn.get(), after.get());
  emulator::set_order({});
  return turn.values();
}

TEST(EmulatorOrder, RandomOrdersAreFunctionsOfTheirSeed) {
  const std::vector<int> first = turns_of("random:1");
  EXPECT_EQ(turns_of("random:1"), first);
  EXPECT_NE(turns_of("random:2"), first);
  EXPECT_NE(turns_of("forward"), first);
  EXPECT_NE(turns_of("reverse"), first);
  // Not one permutation for all blocks.
  std::set<std::vector<int>> shapes;
  for (int block = 0; block < 7; ++block) {
    std::vector<int> shape(first.begin() + 64 * block, first.begin() + 64 * (block + 1));
    for (int& turn : shape) turn %= 64;
    shapes.insert(shape);
  }
  EXPECT_EQ(shapes.size(), 7u);
}

TEST(EmulatorOrder, IsReadFromText) {
  for (const char* text : {"forward", "reverse", "random:0", "random:18446744073709551615"})
    EXPECT_EQ(to_string(parse_order(text)), text);
  for (const char* text : {"", "backward", "random", "random:", "random:x", "random:-1"})
    expect_error({"forward, reverse or random:SEED"}, [&] { parse_order(text); });
}

/// The lane that shfl.sync reads, word for word from the PTX manual.
int ptx_source(planted::Shuffle kind, int lane, int operand, int width) {
  const int segment = (32 - width) & 0x1f, clamp = kind == planted::Shuffle::up ? 0 : 0x1f,
            b = operand & 0x1f;
  const int last = (lane & segment) | (clamp & ~segment), first = lane & segment;
  int j = 0;
  bool inside = false;
  switch (kind) {
    case planted::Shuffle::up:
      j = lane - b;
      inside = j >= last;
      break;
    case planted::Shuffle::down:
      j = lane + b;
      inside = j <= last;
      break;
    case planted::Shuffle::exclusive_or:
      j = lane ^ b;
      inside = j <= last;
      break;
    case planted::Shuffle::from:
      j = first | (b & ~segment);
      inside = j <= last;
      break;
  }
  return inside ? j : lane;
}

template <class T>
void check_shuffles(const std::vector<T>& x) {
  using planted::Shuffle;
  DeviceArray<T> in(x), out(32);
  for (const Shuffle kind : {Shuffle::from, Shuffle::up, Shuffle::down, Shuffle::exclusive_or})
    for (const int width : {1, 2, 4, 8, 16, 32})
      for (const int operand : {0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, -1}) {
        planted::shuffle(kind, operand, width, in.get(), out.get());
        for (int lane = 0; lane < 32; ++lane)
          ASSERT_EQ(out[static_cast<std::size_t>(lane)],
                    x[static_cast<std::size_t>(ptx_source(kind, lane, operand, width))])
              << "kind " << static_cast<int>(kind) << " lane " << lane << " operand " << operand << " width "
              << width;
      }
}

TEST_P(Emulator, ShufflesReadTheLanesThatPtxNames) {
  check_shuffles(ramp(32));
  const std::vector<float> values = ramp(32, 0.1f);
  check_shuffles(std::vector<double>(values.begin(), values.end()));
  std::vector<std::uint64_t> wide(32);
  for (std::size_t i = 0; i < 32; ++i) wide[i] = (i + 1) * 0x0123456789abcdefu;
  check_shuffles(wide);
}

TEST_P(Emulator, EveryLaneMayReadAnother) {
  std::vector<int> source(32), x(32);
  for (int i = 0; i < 32; ++i) {
    source[static_cast<std::size_t>(i)] = (7 * i + 3) % 32 - (i % 2 ? 32 : 0);  // lanes count modulo 32
    x[static_cast<std::size_t>(i)] = -i * i;
  }
  DeviceArray<int> from(source), in(x), out(32);
  planted::gather(from.get(), in.get(), out.get());
  for (int i = 0; i < 32; ++i) {
    const int expected = (7 * i + 3) % 32;
    ASSERT_EQ(out[static_cast<std::size_t>(i)], -expected * expected);
  }
}

TEST_P(Emulator, VotesAndReductionsCountTheLanesOfTheMask) {
  for (const unsigned mask : {0xffffffffu, 0x0000ff00u, 0x80000001u, 0x00000010u, 0xfffffffeu})
    for (const int kind : {0, 1, 2, 3}) {
      std::vector<int> predicate(32), value(32);
      for (int i = 0; i < 32; ++i) {
        const auto at = static_cast<std::size_t>(i);
        predicate[at] = kind == 0 ? 0 : kind == 1 ? -7 : i % 3 == kind % 3;
        value[at] = kind < 2 ? -4 : i % 5 - 2;
      }
      DeviceArray<int> p(predicate), v(value);
      DeviceArray<std::int64_t> y(8 * 32);
      planted::votes(mask, p.get(), v.get(), y.get());
      unsigned ballot = 0, greatest = 0;
      int sum = 0, least = std::numeric_limits<int>::max();
      std::set<int> distinct;
      for (unsigned i = 0; i < 32; ++i) {
        if (!(mask >> i & 1u)) continue;
        ballot |= static_cast<unsigned>(predicate[i] != 0) << i;
        sum += value[i];
        least = std::min(least, value[i]);
        greatest = std::max(greatest, static_cast<unsigned>(value[i]));
        distinct.insert(value[i]);
      }
      for (unsigned i = 0; i < 32; ++i) {
        if (!(mask >> i & 1u)) continue;
        unsigned alike = 0;
        for (unsigned j = 0; j < 32; ++j)
          if ((mask >> j & 1u) && value[j] == value[i]) alike |= 1u << j;
        const std::array<std::int64_t, 8> expected = {
            ballot, ballot != 0, ballot == mask, sum,
            least,  greatest,    alike,          distinct.size() == 1 ? mask : 0};
        for (std::size_t k = 0; k < 8; ++k) ASSERT_EQ(y[8 * i + k], expected[k]) << k << " of lane " << i;
      }
    }
}

TEST_P(Emulator, HalfWarpsWithDisjointMasksAdvanceOnTheirOwn) {
  std::vector<int> x(32);
  std::iota(x.begin(), x.end(), 0);
  DeviceArray<int> in(x), out(32);
  planted::half_warps(in.get(), out.get());
  for (std::size_t i = 0; i < 32; ++i) ASSERT_EQ(out[i], i < 16 ? 120 * 16 * 16 : 376) << i;
}

TEST_P(Emulator, ALaneMayServeOneMaskAfterAnother) {
  DeviceArray<int> in(std::vector<int>{1, 10, 100, 1000}), out(4);
  planted::overlapping_masks(in.get(), out.get());
  EXPECT_EQ(out.values(), (std::vector<int>{1011, 1011, 1011, 100}));
}

TEST_P(Emulator, BarriersOrderSharedMemory) {
  for (const std::size_t threads : {1u, 33u, 1024u}) {
    const std::vector<float> x = ramp(threads);
    DeviceArray<float> in(x), out(threads);
    planted::rotate(static_cast<unsigned>(threads), in.get(), out.get());
    for (std::size_t i = 0; i < threads; ++i) ASSERT_EQ(out[i], x[(i + 1) % threads]);
  }
}

TEST_P(Emulator, BarriersCountPredicates) {
  for (const int set : {0, 1, 37, 70}) {
    std::vector<int> x(70);
    for (int i = 0; i < set; ++i) x[static_cast<std::size_t>(69 - i)] = i + 2;
    DeviceArray<int> in(x), out(3 * 70);
    planted::count_at_barrier(70, in.get(), out.get());
    for (std::size_t i = 0; i < 70; ++i) {
      ASSERT_EQ(out[3 * i], set);
      ASSERT_EQ(out[3 * i + 1], set > 0);
      ASSERT_EQ(out[3 * i + 2], set == 70);
    }
  }
}

TEST_P(Emulator, SharedMemoryIsPoisonedForEveryBlock) {
  DeviceArray<float> seen(std::vector<float>(2 * 3));
  for (int launch = 0; launch < 2; ++launch) {
    planted::look_at_fresh_shared(3, seen.get());
    for (std::size_t i = 0; i < 6; ++i) ASSERT_TRUE(std::isnan(seen[i])) << i << ": " << seen[i];
  }
}

TEST_P(Emulator, DynamicSharedMemoryMayBeAsLargeAsTheHardwareHas) {
  DeviceArray<unsigned> sum(1);
  for (const unsigned bytes : {1u, 4099u, 227u * 1024u}) {
    planted::fill_dynamic(bytes, sum.get());
    EXPECT_EQ(sum[0], bytes);
  }
}

TEST_P(Emulator, TheLastBlockSeesWhatTheOthersWrote) {
  for (const unsigned threads : {32u, 96u, 1024u})
    for (const unsigned blocks : {1u, 2u, 50u}) {
      const std::vector<float> x = ramp(std::size_t{threads} * blocks);
      DeviceArray<float> in(x), sums(blocks), total(1);
      DeviceArray<unsigned> finished(std::vector<unsigned>{0});
      for (int repeat = 0; repeat < 2; ++repeat) {
        planted::grid_sum(blocks, threads, in.get(), sums.get(), finished.get(), total.get());
        const double n = static_cast<double>(x.size());
        ASSERT_NEAR(total[0], n * (n + 1) / 2, 1e-6 * n * n) << threads << " x " << blocks;
        ASSERT_EQ(finished[0], 0u);
      }
    }
}

TEST_P(Emulator, AtomicsLoseNothing) {
  DeviceArray<unsigned> results(std::vector<unsigned>{0, 0, 0, 0, ~0u, 0, 5, 0});
  DeviceArray<float> float_sum(std::vector<float>{1.0f});
  DeviceArray<double> double_sum(std::vector<double>{1.0});
  planted::atomics(100, results.get(), float_sum.get(), double_sum.get());
  unsigned exclusive = 0;
  for (unsigned i = 0; i < 100; ++i) exclusive ^= i;
  EXPECT_EQ(results.values(),
            (std::vector<unsigned>{4950, 99, static_cast<unsigned>(-99), ~0u, 0, 0, 205, exclusive}));
  EXPECT_EQ(float_sum[0], 51.0f);
  EXPECT_EQ(double_sum[0], 26.0);
}

TEST(EmulatorFunctions, ConvertAsCudaDoes) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(__float2int_rn(2.5f), 2);
  EXPECT_EQ(__float2int_rn(-3.5f), -4);
  EXPECT_EQ(__float2int_rz(-3.9f), -3);
  EXPECT_EQ(__float2int_rd(-3.1f), -4);
  EXPECT_EQ(__float2int_ru(3.1f), 4);
  EXPECT_EQ(__float2int_rn(3e9f), std::numeric_limits<int>::max());
  EXPECT_EQ(__float2int_rn(-3e9f), std::numeric_limits<int>::min());
  EXPECT_EQ(__float2int_rn(nan), 0);
  EXPECT_EQ(__float2uint_rn(-1.0f), 0u);
  EXPECT_EQ(__float2uint_rn(5e9f), ~0u);
  EXPECT_EQ(__double2ll_rn(1e19), std::numeric_limits<long long>::max());
  EXPECT_EQ(__float_as_uint(1.0f), 0x3f800000u);
  EXPECT_EQ(__uint_as_float(0x40490fdbu), 3.14159274f);
}

TEST(EmulatorFunctions, CountBits) {
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(8), 4);
  EXPECT_EQ(__popc(0xf0f0u), 8);
  EXPECT_EQ(__popcll(~0ull), 64);
  EXPECT_EQ(__brev(1u), 0x80000000u);
  EXPECT_EQ(__brev(0x00000035u), 0xac000000u);
  EXPECT_EQ(__umulhi(0xffffffffu, 0xffffffffu), 0xfffffffeu);
  EXPECT_EQ(__mulhi(-1, 1), -1);
  EXPECT_EQ(__umul64hi(~0ull, 2), 1u);
  EXPECT_EQ(__funnelshift_l(0x80000000u, 1u, 1), 3u);
  EXPECT_EQ(__funnelshift_r(0u, 1u, 4), 0x10000000u);
}

TEST(EmulatorFunctions, MinAndMaxTakeMixedTypesAndPassOverNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(min(nan, 1.0f), 1.0f);
  EXPECT_EQ(max(2.0f, nan), 2.0f);
  EXPECT_EQ(min(3, 2.5), 2.5);
  EXPECT_EQ(max(-1, 1u), 0xffffffffu);
  EXPECT_EQ(min(std::int64_t{5}, 7), 5);
}

TEST(EmulatorFunctions, FastApproximationsErrLikeTheHardware) {
  EXPECT_EQ(__fdividef(1.0f, 0x1p127f), 0.0f);
  EXPECT_EQ(__fdividef(1.0f, 0x1p126f), 0x1p-126f);
  EXPECT_EQ(__fdividef(6.0f, 3.0f), 2.0f);
  EXPECT_EQ(__saturatef(std::numeric_limits<float>::quiet_NaN()), 0.0f);
  EXPECT_EQ(__saturatef(1.5f), 1.0f);
  double worst_sine = 0, worst_log = 0, worst_exp = 0;
  for (float x = 0.01f; x < 3.1f; x += 0.001f) {
    worst_sine = std::max(worst_sine, std::abs(double{__sinf(x)} - std::sin(double{x})));
    if (x >= 0.5f && x <= 2.0f)
      worst_log = std::max(worst_log, std::abs(double{__logf(x)} - std::log(double{x})));
    worst_exp = std::max(worst_exp, std::abs(double{__expf(20 * x)} / std::exp(20.0 * double{x}) - 1));
  }
  for (const double worst : {worst_sine, worst_log}) {
    EXPECT_LT(worst, 4.2e-7);  // 2^-21.2
    EXPECT_GT(worst, 2.5e-7);
  }
  EXPECT_GT(worst_exp, 1e-6);
  EXPECT_LT(worst_exp, 1e-5);
}

TEST(EmulatorFunctions, NamedRoundingIsNotFused) {
  // The square is 1 + 2^-11 + 2^-24, of which rounding takes the last part.
  const float a = 1.0f + 0x1p-12f, rounded = 1.0f + 0x1p-11f;
  EXPECT_EQ(__fadd_rn(__fmul_rn(a, a), -rounded), 0.0f);
  EXPECT_EQ(__fmaf_rn(a, a, -rounded), 0x1p-24f);
}

TEST_P(Emulator, RecordsTheNamesOfKernels) {
  DeviceArray<float> x(ramp(32)), y(32);
  planted::shuffle(planted::Shuffle::up, 1, 32, x.get(), y.get());
  const std::vector<std::string> names = emulator::kernels_run();
  EXPECT_EQ(std::count(names.begin(), names.end(), "shuffle_kernel"), 1);
  EXPECT_EQ(std::count(names.begin(), names.end(), "kernel_that_never_ran"), 0);
}

}  // namespace
}  // namespace sgm
