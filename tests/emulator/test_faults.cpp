// Every kind of fault that the emulator is there for, planted: each must be found, in every order unless said
// otherwise, and the next kernel must run as if nothing had been.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <numeric>
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

constexpr const char* kOrders[] = {"forward", "reverse", "random:1", "random:20"};

#ifdef __SANITIZE_ADDRESS__
constexpr bool kSeesBounds = true;
#else
constexpr bool kSeesBounds = false;
#endif

std::vector<float> ramp(std::size_t n) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

/// What a kernel writes to n floats in each order.
std::vector<std::vector<float>> results(std::size_t n, const std::function<void(float*)>& kernel) {
  std::vector<std::vector<float>> all;
  for (const char* order : kOrders) {
    emulator::set_order(parse_order(order));
    DeviceArray<float> y(n);
    kernel(y.get());
    all.push_back(y.values());
  }
  emulator::set_order({});
  return all;
}

bool has_nan(const std::vector<float>& values) {
  return std::any_of(values.begin(), values.end(), [](float value) { return std::isnan(value); });
}

/// Line `number` of the file.
std::string line_of(const std::string& file, int number) {
  std::ifstream in(file);
  std::string line;
  for (int i = 0; i < number; ++i) std::getline(in, line);
  return line;
}

/// Expects an error in every order that contains `part` and the block and thread of the planted kernel, and
/// whose places are the lines that the source marks "fault: <tag>"; a right kernel must still run after.
void expect_fault(const std::string& tag, const std::string& part, const std::function<void()>& kernel) {
  for (const char* order : kOrders) {
    SCOPED_TRACE(order);
    emulator::set_order(parse_order(order));
    std::string text;
    expect_error({part, "kernel " + tag + "_kernel (launch \"planted\"), block (0, 0, 0)"}, [&] {
      try {
        kernel();
      } catch (const Error& error) {
        text = error.what();
        throw;
      }
    });
    const std::string source = "planted.cu:";
    int places = 0;
    for (std::size_t at = 0; (at = text.find(source, at)) != std::string::npos; ++places) {
      const std::size_t start = text.rfind(' ', at) + 1, end = at + source.size() - 1;
      const int number = std::atoi(text.c_str() + end + 1);
      EXPECT_NE(line_of(text.substr(start, end - start), number).find("// fault: " + tag), std::string::npos)
          << text;
      at = end;
    }
    EXPECT_GT(places, 0) << text;

    DeviceArray<float> in(ramp(70)), out(70);
    planted::rotate(70, in.get(), out.get());
    for (std::size_t i = 0; i < 70; ++i) ASSERT_EQ(out[i], static_cast<float>((i + 1) % 70 + 1));
  }
  emulator::set_order({});
}

// ---- races ------------------------------------------------------------------------------------------------

TEST(EmulatorRaces, AReadWithoutABarrierSeesPoison) {
  DeviceArray<float> x(ramp(256));
  for (const auto& y : results(256, [&](float* out) { planted::no_barrier_before_read(256, x.get(), out); }))
    EXPECT_TRUE(has_nan(y));
}

TEST(EmulatorRaces, MemoryReusedWithoutABarrierGivesAnotherResult) {
  DeviceArray<float> x(ramp(256));
  std::vector<float> right(256);
  for (std::size_t i = 0; i < 256; ++i) right[i] = 2 * static_cast<float>((i + 1) % 256 + 1) + 1;
  for (const auto& y : results(256, [&](float* out) { planted::no_barrier_before_reuse(256, x.get(), out); }))
    EXPECT_NE(y, right);
}

TEST(EmulatorRaces, TwoWritersOfOneElementDependOnTheOrder) {
  const auto y = results(32, [](float* out) { planted::two_writers(64, out); });
  EXPECT_NE(y[0], y[1]);
}

TEST(EmulatorRaces, BlocksThatWriteOneElementDependOnTheOrder) {
  const auto y = results(1, [](float* out) { planted::blocks_race(9, out); });
  EXPECT_EQ(y[0][0], 8.0f);
  EXPECT_EQ(y[1][0], 0.0f);
}

TEST(EmulatorRaces, LanesDoNotRunInStep) {
  DeviceArray<float> x(ramp(32));
  for (const auto& y : results(32, [&](float* out) { planted::no_warp_barrier(x.get(), out); }))
    EXPECT_TRUE(has_nan(y));
}

TEST(EmulatorRaces, UninitialisedSharedMemoryIsNan) {
  for (const auto& y : results(32, [](float* out) { planted::reads_uninitialised_shared(out); }))
    for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(std::isnan(y[i]), i % 2 == 1) << i;
}

// ---- barriers and warp functions --------------------------------------------------------------------------

TEST(EmulatorFaults, BarriersOnTwoLines) {
  expect_fault("divergent_barrier", "threads of the block wait at", [] { planted::divergent_barrier(32); });
}

TEST(EmulatorFaults, ABarrierThatAThreadReturnedBefore) {
  expect_fault("early_return", "was reached by 63 of 64 threads, 1 have returned; not by thread (5, 0, 0)",
               [] { planted::early_return(64); });
}

TEST(EmulatorFaults, ABarrierInABranchOfHalfTheBlock) {
  expect_fault("barrier_in_half", "was reached by 32 of 64 threads", [] { planted::barrier_in_half(64); });
}

TEST(EmulatorFaults, ABarrierThatWaitsForAShuffle) {
  expect_fault("barrier_against_shuffle", "lanes 0xffff0000 of warp 0 wait",
               [] { planted::barrier_against_shuffle(); });
}

TEST(EmulatorFaults, AMaskWithoutTheCaller) {
  expect_fault("mask_without_caller", "leaves the lane itself out", [] { planted::mask_without_caller(); });
}

TEST(EmulatorFaults, AMaskThatNamesLanesThatReturned) {
  // Whoever comes first notices.
  for (const char* order : {"forward", "reverse"}) {
    emulator::set_order(parse_order(order));
    expect_error({"__syncwarp", order[0] == 'f' ? "0xf that have returned" : "returned, while lane"},
                 [] { planted::mask_names_returned(); });
  }
  emulator::set_order({});
  expect_fault("mask_names_returned", "returned", [] { planted::mask_names_returned(); });
}

TEST(EmulatorFaults, AMaskThatNamesLanesThatDoNotExist) {
  expect_fault("mask_names_absent", "0xff000000 that the block does not have",
               [] { planted::mask_names_absent(); });
}

TEST(EmulatorFaults, MasksThatDiffer) {
  expect_fault("masks_differ", "__all_sync", [] { planted::masks_differ(); });
}

TEST(EmulatorFaults, LanesOfOneMaskInTwoFunctions) {
  DeviceArray<int> y(32);
  expect_fault("functions_differ", "waits for it in", [&] { planted::functions_differ(y.get()); });
}

TEST(EmulatorFaults, AShuffleFromALaneThatTakesNoPart) {
  expect_fault("reads_inactive_lane", "reads lane 20, which the mask does not name",
               [] { planted::reads_inactive_lane(); });
}

TEST(EmulatorFaults, ALaneThatReturnsWhileOthersWaitForIt) {
  expect_fault("partner_returns", "returned", [] { planted::partner_returns(); });
}

TEST(EmulatorFaults, AWidthThatIsNoPowerOfTwo) {
  expect_fault("odd_width", "width 12", [] { planted::odd_width(); });
}

// ---- memory -----------------------------------------------------------------------------------------------

TEST(EmulatorFaults, MisalignedAccessOf16Bytes) {
  DeviceArray<float> x(ramp(16)), y(16);
  planted::copy16(x.get(), y.get(), 4);
  EXPECT_EQ(y.values(), x.values());
  for (const auto& [from, to] : {std::pair{1, 0}, std::pair{0, 2}})
    expect_error({"kernel copy16_kernel", "thread (0, 0, 0)", "not a multiple of 16"},
                 [&] { planted::copy16(x.get() + from, y.get() + to, 3); });
}

TEST(EmulatorFaults, HostPointers) {
  DeviceArray<float> device(ramp(4));
  std::vector<float> host(4);
  planted::use_pointer(device.get() + 3, device.get());
  EXPECT_EQ(device[0], 4.0f);
  planted::use_pointer(nullptr, nullptr);
  expect_error({"pointers_kernel", "argument 1", "not a pointer to device memory"},
               [&] { planted::use_pointer(host.data(), device.get()); });
  expect_error({"pointers_kernel", "argument 2"},
               [&] { planted::use_pointer(device.get(), device.get() + 4); });
}

void expect_sanitizer_stops(const std::string& what, const std::function<void()>& kernel) {
  if (!kSeesBounds) GTEST_SKIP() << "bounds are checked in builds with AddressSanitizer only (SGM_SANITIZE)";
  EXPECT_DEATH(kernel(), what);
}

TEST(EmulatorBoundsDeathTest, GlobalMemory) {
  DeviceArray<float> x(7);
  planted::beyond_global(x.get(), 6);
  EXPECT_EQ(x[6], 1.0f);
  expect_sanitizer_stops("heap-buffer-overflow", [&] { planted::beyond_global(x.get(), 7); });
}

TEST(EmulatorBoundsDeathTest, DynamicSharedMemory) {
  planted::beyond_dynamic(13, 12);
  expect_sanitizer_stops("heap-buffer-overflow", [] { planted::beyond_dynamic(13, 13); });
}

TEST(EmulatorBoundsDeathTest, StaticSharedMemory) {
  planted::beyond_static(7);
  expect_sanitizer_stops("global-buffer-overflow|insufficient space", [] { planted::beyond_static(8); });
}

TEST(EmulatorCrashDeathTest, NamesTheKernelWhoseStackOverflows) {
  if (kSeesBounds) GTEST_SKIP() << "AddressSanitizer reports crashes itself";
  DeviceArray<float> y(1);
  EXPECT_DEATH(planted::overflow_stack(y.get()),
               "overflow_stack_kernel.*thread \\(0, 0, 0\\): stack overflow");
}

TEST(EmulatorCrashDeathTest, NamesTheKernelThatDividesByZero) {
  if (kSeesBounds) GTEST_SKIP() << "AddressSanitizer reports crashes itself";
  DeviceArray<int> y(1);
  planted::divide(2, y.get());
  EXPECT_EQ(y[0], 3);
  EXPECT_DEATH(planted::divide(0, y.get()), "divide_kernel.*thread \\(0, 0, 0\\): integer division by zero");
}

TEST(EmulatorFaults, ExceptionsNameTheThread) {
  expect_error({"throwing_kernel", "thread (3, 0, 0)", "from inside"}, [] { planted::throw_exception(); });
}

// ---- limits -----------------------------------------------------------------------------------------------

TEST(EmulatorFaults, LaunchesBeyondTheLimits) {
  const auto refused = [](const planted::Size& size, std::size_t shared, const std::string& part) {
    expect_error({"kernel empty_kernel (launch \"planted\")", part},
                 [&] { planted::launch_size(size, shared); });
  };
  planted::launch_size({{65535, 1, 1}, {1, 1, 1}}, 0);
  planted::launch_size({{1, 2, 3}, {16, 1, 64}}, 227 * 1024);
  refused({{1, 1, 1}, {1025, 1, 1}}, 0, "1 to 1024 threads");
  refused({{1, 1, 1}, {32, 33, 1}}, 0, "1 to 1024 threads");
  refused({{1, 1, 1}, {1, 1, 65}}, 0, "at most 64 along z");
  refused({{1, 1, 1}, {0, 1, 1}}, 0, "1 to 1024 threads");
  refused({{1, 1, 1}, {65536, 65536, 1}}, 0, "1 to 1024 threads");
  refused({{1, 65536, 1}, {1, 1, 1}}, 0, "got 1 x 65536 x 1");
  refused({{1, 1, 65536}, {1, 1, 1}}, 0, "got 1 x 1 x 65536");
  refused({{0x80000000u, 1, 1}, {1, 1, 1}}, 0, "2147483647 blocks");
  refused({{1, 0, 1}, {1, 1, 1}}, 0, "got 1 x 0 x 1");
  refused({{1, 1, 1}, {1, 1, 1}}, 227 * 1024 + 1, "232448 bytes of shared memory, got 232449");
}

TEST(EmulatorFaults, StaticAndDynamicSharedMemoryShareTheLimit) {
  DeviceArray<float> y(1);
  planted::static_and_dynamic(16 * 1024, y.get());
  // Beyond 48 KB of dynamic memory the launch opts in to more; below, it does not.
  planted::static_and_dynamic(49 * 1024, y.get());
  expect_error({"static_and_dynamic_kernel", "more than the 49152"},
               [&] { planted::static_and_dynamic(33 * 1024, y.get()); });
  expect_error({"static_and_dynamic_kernel", "more than the 232448"},
               [&] { planted::static_and_dynamic(212 * 1024, y.get()); });
}

}  // namespace
}  // namespace sgm
