// Products in bf16 by way of f32, which processors with AVX-512 do not need: what comes out is the f32 op of
// the same numbers, rounded, and nothing beside the operands is touched.

#include "backend/cpu/widened.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "sgm/tensor/math.h"

namespace sgm {
namespace {

class Widened : public testing::Test {
 protected:
  Tensor draw(const Shape& shape, DType dtype = DType::bf16) {
    return normal(*context_, shape, NoiseKey{.seed = ++seed_}).to(dtype);
  }
  /// Whole numbers from -5 to 5: their products have exact sums, in any order.
  Tensor whole_numbers(const Shape& shape) {
    std::vector<double> values(static_cast<std::size_t>(shape.numel()));
    for (double& value : values) value = static_cast<double>(++seed_ * 7 % 11) - 5.0;
    return Tensor::from_host(*context_, values, shape, DType::bf16);
  }
  static Tensor wide(const Tensor& x) { return x.to(DType::f32); }

  /// Both are f32, or one is what the other is rounded to.
  static void expect_rounded(const Tensor& actual, const Tensor& expected, const char* what) {
    EXPECT_EQ(actual.to_host(), expected.to(actual.dtype()).to_host()) << what;
  }

  std::unique_ptr<Context> context_ = create_context("cpu", 2);
  std::uint64_t seed_ = 0;
};

TEST_F(Widened, ConvolutionsAreThoseOfF32Rounded) {
  constexpr ConvShape kOddShapes[] = {{3, 5, 7, 6, 10, 3, 3, 5, 7, 1, 1, 1},
                                      {2, 9, 8, 11, 4, 1, 1, 9, 8, 1, 0, 0, 5}};
  for (const ConvShape& s : kOddShapes) {
    SCOPED_TRACE(s.r);
    const Tensor x = draw({s.n, s.h, s.w, s.c - s.c2}),
                 x2 = draw({s.n, s.h, s.w, std::max<std::int64_t>(s.c2, 1)}),
                 dy = draw({s.n, s.oh, s.ow, s.k}), residual = draw(dy.shape());
    const Tensor weight = draw({s.k, s.r, s.s, s.c}, DType::f32), bias = draw({s.k}, DType::f32);
    const auto second = [&]<class B>(B buffer) { return s.c2 ? buffer : B{}; };
    // Results in this type, from operands in it.
    const auto results = [&](const auto& as, auto&& convolve, auto&& grad_input, auto&& grad_weight) {
      const Tensor a = as(x), a2 = as(x2), b = as(dy), r = as(residual);
      std::vector<Tensor> out = {as(dy).clone(), as(x).clone(), as(x2).clone(),
                                 as(weight.to(DType::bf16)).clone(), bias.clone()};
      convolve(Conv2d{a.buffer(), second(a2.buffer()), weight.buffer(), bias.buffer(), r.buffer(),
                      out[0].buffer(), s, 0.5, 0});
      grad_input(
          Conv2dGradInput{b.buffer(), weight.buffer(), out[1].buffer(), second(out[2].buffer()), s, 0.7});
      grad_weight(Conv2dGradWeight{a.buffer(), second(a2.buffer()), b.buffer(), out[3].buffer(),
                                   out[4].buffer(), s, 0.7});
      return out;
    };
    const auto here = [&](const auto& op) { op.cpu(*context_); };
    const std::vector<Tensor> expected = results(wide, here, here, here);
    const std::vector<Tensor> actual = results(
        [](const Tensor& t) { return t; }, [&](const Conv2d& op) { widened::convolve(op, *context_); },
        [&](const Conv2dGradInput& op) { widened::convolve_grad_input(op, *context_); },
        [&](const Conv2dGradWeight& op) { widened::convolve_grad_weight(op, *context_); });
    const char* const names[] = {"y", "dx", "dx2", "dweight", "dbias"};
    for (std::size_t i = 0; i < actual.size(); ++i) expect_rounded(actual[i], expected[i], names[i]);
  }
}

TEST_F(Widened, MatricesMayLieInsideOthers) {
  constexpr std::int64_t kBatch = 3, kM = 5, kN = 4, kK = 6, kLd = 9, kRows = 7;  // of the matrices around
  const Tensor a = whole_numbers({kBatch, kRows, kLd}), b = whole_numbers({kRows, kLd}),
               c = whole_numbers(a.shape());
  for (const bool trans_a : {false, true})
    for (const bool trans_b : {false, true})
      for (const bool accumulate : {false, true}) {
        const auto product = [&](const Tensor& a_in, const Tensor& b_in, Tensor& c_out) {
          return Matmul{
              a_in.buffer(), b_in.buffer(), {}, c_out.buffer(), kBatch,  kM,      kN,         kK, kLd, kLd,
              kLd,           kRows * kLd,   0,  kRows * kLd,    trans_a, trans_b, accumulate, 0.5};
        };
        const Tensor wide_a = wide(a), wide_b = wide(b);
        Tensor expected = wide(c), actual = c.clone();
        product(wide_a, wide_b, expected).cpu(*context_);
        widened::multiply(product(a, b, actual), *context_);
        expect_rounded(actual, expected, trans_a ? "a transposed" : "a");
        EXPECT_NE(actual.to_host(), c.to_host());
      }
}

}  // namespace
}  // namespace sgm
