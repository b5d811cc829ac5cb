// Backends keep prepared copies of weights that stand still. They must never be those of other weights.

#include <gtest/gtest.h>

#include "backend/cpu/cpu_context.h"
#include "backend/cpu/onednn.h"
#include "naive.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

struct WeightsCase {
  Shape x;
  std::int64_t k, filter;
};

class ConvWeights : public testing::TestWithParam<DType> {
 protected:
  static constexpr WeightsCase kSmall = {{1, 5, 5, 8}, 16, 3}, kPointwise = {{1, 5, 5, 8}, 8, 1},
                               kTiles = {{2, 12, 12, 32}, 32, 3}, kUnfolded = {{1, 5, 5, 32}, 32, 3};

  static Tensor weights(Context& context, const WeightsCase& c, std::uint32_t stream) {
    const Shape shape{c.k, c.filter, c.filter, c.x[3]};
    return tensor_of(context, rounded(random_values(shape.numel(), stream), GetParam()), shape, DType::f32);
  }
  /// conv2d of fixed images with no gradient wanted, and what it should be.
  static void expect_right(Context& context, const WeightsCase& c, const Tensor& w) {
    const Values x{c.x, rounded(random_values(c.x.numel(), 99), GetParam())};
    const int pad = static_cast<int>(c.filter / 2);
    const Conv2dParams params{1, pad, pad};
    const Var y = conv2d(Var(tensor_of(context, x.data, c.x, GetParam())), Var(w), {}, params);
    const Values expected = naive::conv2d(x, {w.shape(), w.to_host_f64()}, nullptr, nullptr, params, 1.0);
    const bool half = GetParam() == DType::bf16;
    expect_close(y.value().to_host_f64(), expected.data, {half ? 1e-2 : 3e-6});
  }
};

TEST_P(ConvWeights, AreReadAgainWhenTheyChange) {
  const auto context = create_context("cpu", 1);
  for (const WeightsCase& c : {kSmall, kPointwise, kTiles, kUnfolded}) {
    Tensor w = weights(*context, c, 1);
    expect_right(*context, c, w);
    expect_right(*context, c, w);
    w.copy_from(weights(*context, c, 2));
    expect_right(*context, c, w);
    w.fill(0.25);
    expect_right(*context, c, w);
    // In place, as an optimiser does it.
    const std::vector<double> third = weights(*context, c, 3).to_host_f64();
    for (std::size_t i = 0; i < third.size(); ++i) w.data<float>()[i] = static_cast<float>(third[i]);
    w.mark_modified();
    expect_right(*context, c, w);
  }
}

TEST_P(ConvWeights, AreNotThoseOfATensorThatLivedAtTheSameAddress) {
  const auto context = create_context("cpu", 1);
  for (const WeightsCase& c : {kSmall, kPointwise, kTiles, kUnfolded})
    for (std::uint32_t stream = 0; stream < 4; ++stream)
      expect_right(*context, c, weights(*context, c, stream));
}

TEST_P(ConvWeights, AreNotThoseOfAnotherShapeAtTheSameAddress) {
  const auto context = create_context("cpu", 1);
  expect_right(*context, {{1, 5, 5, 8}, 16, 1}, weights(*context, {{1, 5, 5, 8}, 16, 1}, 1));
  expect_right(*context, {{1, 5, 5, 16}, 8, 1}, weights(*context, {{1, 5, 5, 16}, 8, 1}, 2));
}

TEST_P(ConvWeights, ServeEveryImageSizeAndPrecision) {
  const auto context = create_context("cpu", 1);
  const Tensor w = weights(*context, kSmall, 1);
  for (const std::int64_t size : {3, 8, 16, 5})
    for (const std::int64_t n : {1, 3}) expect_right(*context, {{n, size, size, 8}, 16, 3}, w);
}

TEST_P(ConvWeights, OfMoreTensorsThanAreKeptAreRightAndTakeNoMoreMemory) {
  const auto context = create_context("cpu", 1);
  OneDnn& dnn = static_cast<CpuContext&>(*context).onednn();
  std::vector<Tensor> all;
  for (std::uint32_t stream = 0; stream < OneDnn::kMostPacked + 10; ++stream) {
    all.push_back(weights(*context, kPointwise, stream));
    expect_right(*context, kPointwise, all.back());
  }
  EXPECT_EQ(dnn.packed_count(), OneDnn::kMostPacked);
  expect_right(*context, kPointwise, all.front());  // made room long ago
  EXPECT_EQ(dnn.packed_count(), OneDnn::kMostPacked);
}

INSTANTIATE_TEST_SUITE_P(Types, ConvWeights, testing::Values(DType::f32, DType::bf16),
                         [](const auto& row) { return std::string(name_of(row.param)); });

}  // namespace
}  // namespace sgm
