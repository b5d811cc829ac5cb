// Tensor cores and copies beside the threads, emulated: what the hardware promises, and faults.

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "emulator/cuda_emulator.h"
#include "emulator/tensor_core_kernels.h"
#include "emulator/test_device.h"
#include "expect_error.h"
#include "sgm/core/types.h"

namespace sgm {
namespace {

using emulator::DeviceArray;
using emulator::parse_order;

constexpr const char* kOrders[] = {"forward", "reverse", "random:1"};
constexpr std::uint16_t kPoison = 0xffff;

class TensorCore : public testing::TestWithParam<const char*> {
 protected:
  TensorCore() { emulator::set_order(parse_order(GetParam())); }
  ~TensorCore() override { emulator::set_order({}); }
};
INSTANTIATE_TEST_SUITE_P(Orders, TensorCore, testing::ValuesIn(kOrders), [](const auto& order) {
  std::string name = order.param;
  std::replace(name.begin(), name.end(), ':', '_');
  return name;
});

/// Small whole numbers, all entries of a matrix different from their mirror images.
std::vector<std::uint16_t> numbers(int step) {
  std::vector<std::uint16_t> bits;
  for (int i = 0; i < 256; ++i) bits.push_back(bfloat16(static_cast<float>(i * step % 37 - 18)).bits);
  return bits;
}

float value(std::uint16_t bits) {
  bfloat16 number;
  number.bits = bits;
  return number;
}

TEST_P(TensorCore, MultipliesWhatTheLanesLoad) {
  const std::vector<std::uint16_t> a = numbers(5), b = numbers(7);
  for (const bool transposed : {false, true}) {
    const DeviceArray<std::uint16_t> da(a), db(b);
    const DeviceArray<float> y(256);
    planted::product(da.get(), db.get(), transposed, y.get());
    for (std::size_t row = 0; row < 16; ++row)
      for (std::size_t col = 0; col < 16; ++col) {
        float sum = 1.0f;  // exact: whole numbers
        for (std::size_t k = 0; k < 16; ++k)
          sum += value(a[row * 16 + k]) * value(transposed ? b[col * 16 + k] : b[k * 16 + col]);
        ASSERT_EQ(y[row * 16 + col], sum) << row << ", " << col << (transposed ? ", transposed" : "");
      }
  }
}

TEST_P(TensorCore, CopiesArriveWhenTheThreadWaitsAndNotBefore) {
  std::vector<std::uint16_t> x(512);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::uint16_t>(i);
  const DeviceArray<std::uint16_t> dx(x);
  for (const int groups_left : {0, 1, 2})
    for (const bool zeros : {false, true}) {
      const DeviceArray<std::uint16_t> y(512);
      planted::copy_beside_threads(dx.get(), y.get(), groups_left, zeros, true);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t group = i / 256, from = group * 256 + (i % 256 + 8) % 256;
        const bool arrived = static_cast<int>(group) < 2 - groups_left;
        ASSERT_EQ(y[i], arrived ? (zeros ? 0 : x[from]) : kPoison) << i << ", " << groups_left << " left";
      }
    }
}

TEST_P(TensorCore, AThreadThatReturnsBeforeItsCopiesArriveIsAtFault) {
  const DeviceArray<std::uint16_t> x(512), y(512);
  expect_error({"copy", "returned before its copies"},
               [&] { planted::copy_beside_threads(x.get(), y.get(), 1, false, false); });
}

TEST_P(TensorCore, EveryLaneTakesPart) {
  expect_error({"lane_missing", "tensor_core.h", "lane"}, [] { planted::lane_missing(); });
}

TEST_P(TensorCore, RowsOfMatricesAreAligned) {
  expect_error({"16 bytes", "not a multiple"}, [] { planted::misaligned_rows(); });
}

}  // namespace
}  // namespace sgm
