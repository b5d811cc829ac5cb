// What ops must refuse, and the sizes that resampling promises.

#include <gtest/gtest.h>

#include "check.h"
#include "expect_error.h"
#include "kernels/upfirdn.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

class OpOperands : public testing::Test {
 protected:
  Var var(const Shape& shape, DType dtype = DType::f32) {
    return Var(Tensor::full(*context_, shape, 0.5, dtype));
  }

  std::unique_ptr<Context> context_ = create_context("cpu", 1);
};

TEST_F(OpOperands, ElementwiseOpsNameShapesThatDiffer) {
  expect_error({"add", "[2, 3]", "[3, 2]"}, [&] { add(var({2, 3}), var({3, 2})); });
  expect_error({"add", "f32", "f64"}, [&] { add(var({2}), var({2}, DType::f64)); });
  expect_error({"add_bias", "[4]", "3 channels"}, [&] { add_bias(var({2, 3}), var({4})); });
  expect_error({"add_bias", "f64"}, [&] { add_bias(var({2, 3}), var({3}, DType::f64)); });
  expect_error({"add_bias", "bf16"}, [&] { add_bias(var({2, 3}, DType::bf16), var({3}, DType::bf16)); });
  expect_error({"scale_images", "[2]"}, [&] {
    scale_images(var({2, 3}), Tensor::zeros(*context_, {3}, DType::f64));
  });
  expect_error({"scale_images", "f64"}, [&] { scale_images(var({2, 3}), Tensor::zeros(*context_, {2})); });
  expect_error({"concat_channels", "[1, 2, 2, 3]", "[1, 2, 3, 3]"}, [&] {
    concat_channels(var({1, 2, 2, 3}), var({1, 2, 3, 3}));
  });
  expect_error({"concat_channels"}, [&] {
    concat_channels(var({1, 2, 2, 3}), var({1, 2, 2, 3}, DType::f64));
  });
  expect_error({"reshape", "[2, 3]", "[7]"}, [&] { reshape(var({2, 3}), {7}); });
}

TEST_F(OpOperands, ProductsNameShapesAndTypesThatDoNotFit) {
  expect_error({"linear", "[2, 3]", "[5, 4]"}, [&] { linear(var({2, 3}), var({5, 4}), var({5})); });
  expect_error({"linear", "bias [4]"}, [&] { linear(var({2, 3}), var({5, 3}), var({4})); });
  expect_error({"linear", "f64", "f32"}, [&] { linear(var({2, 3}, DType::f64), var({5, 3}), var({5})); });
  expect_error({"linear"}, [&] { linear(var({2, 3}), var({5, 3}), var({5}, DType::f64)); });
  expect_error({"attention", "[1, 2, 2, 4]"}, [&] { attention(var({1, 2, 2, 4})); });
  expect_error({"attention", "[4, 6]"}, [&] { attention(var({4, 6})); });
}

TEST_F(OpOperands, ConvolutionsNameShapesAndTypesThatDoNotFit) {
  const Var x = var({1, 5, 5, 3}), w = var({4, 3, 3, 3});
  expect_error({"conv2d", "[1, 5, 5, 3]", "[4, 3, 3, 2]"}, [&] { conv2d(x, var({4, 3, 3, 2})); });
  expect_error({"conv2d", "bias [3]"}, [&] { conv2d(x, w, var({3})); });
  expect_error({"conv2d", "residual [1, 5, 5, 4]"}, [&] { conv2d(x, w, {}, {}, var({1, 5, 5, 4})); });
  expect_error({"conv2d", "smaller than the filter"}, [&] { conv2d(var({1, 2, 5, 3}), w); });
  // One pixel short, which stride 2 must not hide.
  expect_error({"conv2d", "smaller than the filter"}, [&] {
    conv2d(var({1, 2, 5, 3}), w, {}, {.stride = 2});
  });
  expect_error({"conv2d", "weight", "f64"}, [&] { conv2d(var({1, 5, 5, 3}, DType::f64), w); });
  expect_error({"conv2d", "bias", "f32"}, [&] { conv2d(x, w, var({4}, DType::f64)); });
  expect_error({"conv2d", "residual bf16"}, [&] {
    conv2d(var({1, 5, 5, 3}, DType::bf16), w, {}, {}, var({1, 3, 3, 4}));
  });
}

TEST_F(OpOperands, ConvolutionsThatRoundDoSoAfterwards) {
  const Shape sx = {2, 5, 4, 3}, sw = {8, 3, 3, 3}, sy = {2, 5, 4, 8};
  const Tensor values = tensor_of(*context_, random_values(sx.numel(), 1), sx, DType::f32),
               filter = tensor_of(*context_, random_values(sw.numel(), 2), sw, DType::f32),
               dy = tensor_of(*context_, random_values(sy.numel(), 3), sy, DType::bf16);
  const auto gradients = [&](bool round) {
    const Var x(values, true), w(filter, true);
    const Conv2dParams params{.pad_begin = 1, .pad_end = 1, .round = round};
    const Var y = cast(conv2d(x, w, {}, params), DType::bf16);
    y.backward(dy);
    return std::vector<Tensor>{y.value(), x.grad(), w.grad()};
  };
  const auto rounded = gradients(true), cast_later = gradients(false);
  for (int exact : {0, 1}) EXPECT_EQ(rounded[exact].to_host(), cast_later[exact].to_host());
  // Of the weight: with the input rounded.
  const auto number = [&](const Tensor& t) { return t.to_host_f64(); };
  expect_close(number(rounded[2]), number(cast_later[2]), {unit_roundoff(DType::bf16)});
  EXPECT_NE(number(rounded[2]), number(cast_later[2]));
}

TEST_F(OpOperands, NormsNameGroupsShapesAndRatesThatDoNotFit) {
  const Var x = var({1, 2, 2, 6}), c = var({6});
  const auto norm = [&](const Var& gamma, int groups, double dropout = 0.0, const Var& shift = {}) {
    group_norm(x, gamma, c, {groups, 1e-6, Activation::none, dropout, {}}, {shift});
  };
  expect_error({"group_norm", "4 groups"}, [&] { norm(c, 4); });
  expect_error({"group_norm", "0 groups"}, [&] { norm(c, 0); });
  expect_error({"group_norm", "gamma [5]"}, [&] { norm(var({5}), 3); });
  expect_error({"group_norm", "shift [6]"}, [&] { norm(c, 3, 0.0, c); });
  expect_error({"group_norm", "f32"}, [&] { norm(var({6}, DType::f64), 3); });
  for (const double rate : {1.0, -0.1, 1.5, std::nan("")})
    expect_error({"group_norm", "dropout"}, [&] { norm(c, 3, rate); });
}

TEST_F(OpOperands, ResamplingNamesSizesThatDoNotFit) {
  expect_error({"resample", "[2, 3]"}, [&] { resample(var({2, 3}), upsample_params({1, 1})); });
  expect_error({"resample", "16 taps, got 17"}, [&] {
    resample(var({1, 32, 32, 1}), {.taps = std::vector<double>(17, 1.0)});
  });
  expect_error({"resample", "got 0"}, [&] { resample(var({1, 2, 2, 1}), {.taps = {}}); });
  expect_error({"resample", "smaller than the filter"}, [&] {
    resample(var({1, 2, 2, 1}), {.taps = {1.0, 1.0, 1.0}});
  });
  expect_error({"resample", "smaller than the filter"}, [&] {
    resample(var({1, 2, 2, 1}), {.down = 2, .taps = {1.0, 1.0, 1.0}});
  });
}

TEST_F(OpOperands, ResamplingHalvesAndDoublesForEveryKernel) {
  for (int length = 1; length <= UpFirDn::kMaxTaps; ++length) {
    SCOPED_TRACE(length);
    const std::vector<int> kernel(static_cast<std::size_t>(length), 1);
    for (const std::int64_t size : {2, 6, 16}) {
      const Var x = var({1, size, size, 2});
      const auto height = [](const Var& v) { return v.shape()[1]; };
      EXPECT_EQ(height(resample(x, upsample_params(kernel))), 2 * size);
      EXPECT_EQ(height(resample(x, downsample_params(kernel))), size / 2);
      // FIR, then an unpadded 3x3 convolution of stride 2.
      EXPECT_EQ((height(resample(x, conv_downsample_params(kernel))) - 3) / 2 + 1, size / 2);
      // Zero insertion to 2 H - 1, full correlation with 3x3 to 2 H + 1, FIR.
      const Var spread = var({1, 2 * size + 1, 2 * size + 1, 2});
      EXPECT_EQ(height(resample(spread, upsample_conv_params(kernel))), 2 * size);
    }
  }
}

TEST_F(OpOperands, ResamplingKeepsConstantsAwayFromTheBorder) {
  for (const std::vector<int>& kernel :
       std::vector<std::vector<int>>{{1, 1}, {1, 2, 1}, {1, 3, 3, 1}, {1, 4, 6, 4, 1}, {1, 2, 4, 5, 3, 1}}) {
    const Var x = Var(Tensor::full(*context_, {1, 16, 16, 1}, 3.0));
    const auto middle = [](const Var& v) {
      const std::int64_t size = v.shape()[1];
      return v.value().to_host()[static_cast<std::size_t>(size / 2 * size + size / 2)];
    };
    EXPECT_NEAR(middle(resample(x, downsample_params(kernel))), 3.0f, 1e-6);
    EXPECT_NEAR(middle(resample(x, conv_downsample_params(kernel))), 3.0f, 1e-6);
    EXPECT_NEAR(middle(resample(x, upsample_params(kernel))), 3.0f, 1e-6);
  }
}

}  // namespace
}  // namespace sgm
