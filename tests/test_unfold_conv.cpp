// Convolutions in bf16 as one product: how the work is cut into threads and pieces must not show.

#include "backend/cpu/unfold_conv.h"

#include <gtest/gtest.h>

#include "naive.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

// Two inputs and more pixels, an odd number of them, than are multiplied at a time for a gradient of weights.
constexpr ConvShape kTwoInputs = {3, 41, 37, 96, 160, 1, 1, 41, 37, 1, 0, 0, 32};
constexpr ConvShape kSmallImages = {5, 4, 5, 64, 96, 3, 3, 4, 5, 1, 1, 1};

struct Results {
  std::vector<float> y, dx, dx2, dweight, dbias;
};

Results results(const ConvShape& s, int threads) {
  const auto context = create_context("cpu", threads);
  std::uint64_t seed = 0;
  const auto draw = [&](const Shape& shape, DType dtype) {
    return normal(*context, shape, NoiseKey{.seed = ++seed}).to(dtype);
  };
  const auto input = [&](std::int64_t channels) { return draw({s.n, s.h, s.w, channels}, DType::bf16); };
  const Tensor x = input(s.c - s.c2), x2 = input(s.c2), dy = draw({s.n, s.oh, s.ow, s.k}, DType::bf16);
  const Tensor weight = draw({s.k, s.r, s.s, s.c}, DType::f32), bias = draw({s.k}, DType::f32);
  Tensor y = dy.clone(), dx = x.clone(), dx2 = x2.clone(), dweight = draw(weight.shape(), DType::bf16),
         dbias = bias.clone();
  const auto second = [&]<class B>(B buffer) { return s.c2 ? buffer : B{}; };
  unfolded::convolve(
      {x.buffer(), second(x2.buffer()), weight.buffer(), bias.buffer(), {}, y.buffer(), s, 1.0, 0}, *context);
  unfolded::convolve_grad_input({dy.buffer(), weight.buffer(), dx.buffer(), second(dx2.buffer()), s, 0.7},
                                *context);
  unfolded::convolve_grad_weight(
      {x.buffer(), second(x2.buffer()), dy.buffer(), dweight.buffer(), dbias.buffer(), s, 0.7}, *context);
  return {y.to_host(), dx.to_host(), dx2.to_host(), dweight.to_host(), dbias.to_host()};
}

TEST(UnfoldedConv, GivesTheSameBitsOnAnyNumberOfThreads) {
  for (const ConvShape& shape : {kTwoInputs, kSmallImages}) {
    const Results one = results(shape, 1);
    for (const int threads : {2, 7}) {  // 7: more than there are panels of columns
      SCOPED_TRACE(threads);
      const Results more = results(shape, threads);
      EXPECT_EQ(one.y, more.y);
      EXPECT_EQ(one.dx, more.dx);
      EXPECT_EQ(one.dx2, more.dx2);
      EXPECT_EQ(one.dweight, more.dweight);
      EXPECT_EQ(one.dbias, more.dbias);
    }
  }
}

// The sums of a gradient over many pixels, which are formed in pieces.
TEST(UnfoldedConv, AddsUpAllPixels) {
  const auto context = create_context("cpu", 2);
  const ConvShape s{1, 67, 65, 32, 32, 1, 1, 67, 65, 1, 0, 0};
  const std::int64_t pixels = s.h * s.w;
  const std::vector<double> x = rounded(random_values(pixels * s.c, 1), DType::bf16),
                            dy = rounded(random_values(pixels * s.k, 2), DType::bf16);
  std::vector<double> expected(static_cast<std::size_t>(s.k * s.c));
  for (std::int64_t p = 0; p < pixels; ++p)
    for (std::int64_t k = 0; k < s.k; ++k)
      for (std::int64_t c = 0; c < s.c; ++c)
        expected[static_cast<std::size_t>(k * s.c + c)] +=
            0.5 * dy[static_cast<std::size_t>(p * s.k + k)] * x[static_cast<std::size_t>(p * s.c + c)];
  const Tensor in = tensor_of(*context, x, {1, s.h, s.w, s.c}, DType::bf16),
               out = tensor_of(*context, dy, {1, s.h, s.w, s.k}, DType::bf16);
  Tensor dweight = Tensor::zeros(*context, {s.k, 1, 1, s.c}, DType::bf16);
  unfolded::convolve_grad_weight({in.buffer(), {}, out.buffer(), dweight.buffer(), {}, s, 0.5}, *context);
  expect_close(dweight.to_host_f64(), expected, {3e-3, 6e-3});
}

TEST(UnfoldedConv, LeavesAloneWhatIsNotWanted) {
  const auto context = create_context("cpu", 2);
  const ConvShape s{1, 3, 3, 96, 32, 1, 1, 3, 3, 1, 0, 0, 32};
  const Tensor dy = normal(*context, {1, 3, 3, s.k}, {.seed = 1}).to(DType::bf16);
  const Tensor weight = normal(*context, {s.k, 1, 1, s.c}, {.seed = 2});
  const auto gradients = [&](bool first, bool second) {
    Tensor dx = Tensor::zeros(*context, {1, 3, 3, 64}, DType::bf16),
           dx2 = Tensor::zeros(*context, {1, 3, 3, 32}, DType::bf16);
    unfolded::convolve_grad_input({dy.buffer(), weight.buffer(), first ? dx.buffer() : Buffer{},
                                   second ? dx2.buffer() : Buffer{}, s, 1.0},
                                  *context);
    return std::pair{dx.to_host(), dx2.to_host()};
  };
  const auto [dx, dx2] = gradients(true, true);
  EXPECT_EQ(gradients(true, false), (std::pair{dx, std::vector<float>(dx2.size())}));
  EXPECT_EQ(gradients(false, true), (std::pair{std::vector<float>(dx.size()), dx2}));
}

}  // namespace
}  // namespace sgm
