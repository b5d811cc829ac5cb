// 3x3 convolutions by tiles: how the work is cut into threads and batches must not show in any bit.

#include "backend/cpu/winograd.h"

#include <gtest/gtest.h>

#include "naive.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

// More tiles than are transformed at a time, cut by the border; a panel of half the width.
constexpr ConvShape kShape = {16, 30, 29, 144, 176, 3, 3, 30, 29, 1, 1, 1};

class Winograd : public testing::TestWithParam<DType> {
 protected:
  struct Results {
    std::vector<float> y, dx, dweight;
  };

  static Results results(int threads, std::int64_t images) {
    const auto context = create_context("cpu", threads);
    ConvShape s = kShape;
    s.n = images;
    std::uint64_t seed = 0;
    const auto draw = [&](const Shape& shape, DType dtype) {
      return normal(*context, shape, NoiseKey{.seed = ++seed}).to(dtype);
    };
    const DType type = GetParam();
    const Tensor x = draw({s.n, s.h, s.w, s.c}, type), dy = draw({s.n, s.oh, s.ow, s.k}, type);
    const Tensor weight = draw({s.k, 3, 3, s.c}, DType::f32), bias = draw({s.k}, DType::f32);
    Tensor y = draw(dy.shape(), type), dx = draw(x.shape(), type), dweight = draw(weight.shape(), type);
    winograd::convolve({x.buffer(), {}, weight.buffer(), bias.buffer(), {}, y.buffer(), s, 1.0, 0}, *context);
    winograd::convolve_grad_input({dy.buffer(), weight.buffer(), dx.buffer(), {}, s, 0.7}, *context);
    winograd::convolve_grad_weight({x.buffer(), {}, dy.buffer(), dweight.buffer(), {}, s, 0.7}, *context);
    return {y.to_host(), dx.to_host(), dweight.to_host()};
  }
};

TEST_P(Winograd, GivesTheSameBitsOnAnyNumberOfThreads) {
  const Results one = results(1, kShape.n);
  for (const int threads : {2, 7}) {  // 7: more than there are panels of output channels
    const Results more = results(threads, kShape.n);
    EXPECT_EQ(one.y, more.y) << threads;
    EXPECT_EQ(one.dx, more.dx) << threads;
    EXPECT_EQ(one.dweight, more.dweight) << threads;
  }
}

TEST_P(Winograd, GivesAnImageTheSameBitsInAnyBatch) {
  const Results many = results(2, kShape.n), one = results(2, 1);
  EXPECT_TRUE(std::equal(one.y.begin(), one.y.end(), many.y.begin()));
  EXPECT_TRUE(std::equal(one.dx.begin(), one.dx.end(), many.dx.begin()));
}

/// Filters [32, 3, 3, 32] (-r, 1, 0) x (-r, 1, 0), times numbers of their own.
std::vector<double> filters_with_root(double r) {
  const double taps[] = {-r, 1.0, 0.0};
  std::vector<double> w;
  const std::vector<double> factors = random_values(32 * 32, 5);
  for (std::size_t k = 0; k < 32; ++k)
    for (const double row : taps)
      for (const double column : taps)
        for (std::size_t c = 0; c < 32; ++c) w.push_back(row * column * factors[k * 32 + c]);
  return w;
}

TEST_P(Winograd, TransformsFiltersThatVanishAtItsPoints) {
  const auto context = create_context("cpu", 1);
  const ConvShape s{1, 8, 8, 32, 32, 3, 3, 8, 8, 1, 1, 1};
  const Values x{{1, 8, 8, 32}, rounded(random_values(8 * 8 * 32, 1), GetParam())};
  const Tensor image = tensor_of(*context, x.data, x.shape, GetParam());
  for (const double root : {std::sqrt(0.5), -std::sqrt(0.5), std::sqrt(2.0), -std::sqrt(2.0), 0.0}) {
    SCOPED_TRACE(root);
    const Values w{{32, 3, 3, 32}, rounded(filters_with_root(root), DType::f32)};
    const Tensor weight = tensor_of(*context, w.data, w.shape, DType::f32);
    Tensor y = Tensor::empty(*context, x.shape, GetParam());
    winograd::convolve({image.buffer(), {}, weight.buffer(), {}, {}, y.buffer(), s, 1.0, 0}, *context);
    const Tolerance tolerance{GetParam() == DType::bf16 ? 4e-3 : 2e-6};
    expect_close(y.to_host_f64(), naive::conv2d(x, w, nullptr, nullptr, {1, 1, 1}, 1.0).data, tolerance);
  }
}

TEST_P(Winograd, PassesNaNOn) {
  const auto context = create_context("cpu", 1);
  const ConvShape s{1, 8, 8, 32, 32, 3, 3, 8, 8, 1, 1, 1};
  const Tensor image = normal(*context, {1, 8, 8, 32}, {.seed = 1}).to(GetParam());
  Tensor weight = normal(*context, {32, 3, 3, 32}, {.seed = 2});
  weight.data<float>()[5 * 9 * 32 + 7] = std::nanf("");
  Tensor y = Tensor::empty(*context, image.shape(), GetParam());
  winograd::convolve({image.buffer(), {}, weight.buffer(), {}, {}, y.buffer(), s, 1.0, 0}, *context);
  const std::vector<float> values = y.to_host();
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(std::isnan(values[i]), i % 32 == 5) << i;
}

INSTANTIATE_TEST_SUITE_P(Types, Winograd, testing::Values(DType::f32, DType::bf16),
                         [](const auto& row) { return std::string(name_of(row.param)); });

}  // namespace
}  // namespace sgm
