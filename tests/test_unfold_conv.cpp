// Convolutions in bf16 as one product: how the work is cut into threads and pieces must not show.

#include "backend/cpu/unfold_conv.h"

#include <gtest/gtest.h>

#include <limits>

#include "check.h"
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
    for (const int threads : {2, 7}) {  // 7: more than there are panels of output channels
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

/// Filters of 1x1 and 3x3 pixels, with all paddings of a few; two inputs; oblong images; odd pixels.
constexpr ConvShape kShapes[] = {
    {2, 5, 7, 96, 64, 1, 1, 5, 7, 1, 0, 0, 32}, {1, 7, 7, 32, 64, 1, 1, 7, 7, 1, 0, 0},
    {3, 4, 5, 64, 32, 3, 3, 4, 5, 1, 1, 1},     {1, 5, 6, 32, 32, 3, 3, 3, 4, 1, 0, 0},
    {2, 3, 4, 32, 64, 3, 3, 5, 6, 1, 2, 2},     {1, 4, 3, 64, 32, 3, 3, 4, 3, 1, 2, 0},
    {1, 4, 3, 32, 32, 3, 3, 3, 2, 1, 0, 1}};

/// Calls body(index of y, of x, of w, all of one channel pair k, c = 0) wherever the filter lies on the
/// image.
template <class Body>
void for_each_product(const ConvShape& s, Body&& body) {
  for (std::int64_t n = 0; n < s.n; ++n)
    for (std::int64_t oy = 0; oy < s.oh; ++oy)
      for (std::int64_t ox = 0; ox < s.ow; ++ox)
        for (std::int64_t i = 0; i < s.r; ++i)
          for (std::int64_t j = 0; j < s.s; ++j) {
            const std::int64_t y = oy + i - s.pad_begin, x = ox + j - s.pad_begin;
            if (y < 0 || y >= s.h || x < 0 || x >= s.w) continue;
            for (std::int64_t k = 0; k < s.k; ++k)
              for (std::int64_t c = 0; c < s.c; ++c)
                body(((n * s.oh + oy) * s.ow + ox) * s.k + k, ((n * s.h + y) * s.w + x) * s.c + c,
                     ((k * s.r + i) * s.s + j) * s.c + c);
          }
}

/// Channels [from, from + count) of rows of c.
std::vector<double> channels(const std::vector<double>& rows, std::int64_t c, std::int64_t from,
                             std::int64_t count) {
  std::vector<double> part;
  for (auto row = rows.begin(); row != rows.end(); row += c)
    part.insert(part.end(), row + from, row + from + count);
  return part;
}

class UnfoldedConvOf : public testing::TestWithParam<ConvShape> {
 protected:
  UnfoldedConvOf()
      : context(create_context("cpu", 2)),
        s(GetParam()),
        x(values(s.n * s.h * s.w * s.c, 1)),
        w(values(s.weights(), 2)),
        dy(values(s.outputs(), 3)) {}

  static std::vector<double> values(std::int64_t count, std::uint32_t stream) {
    return rounded(random_values(count, stream), DType::bf16);
  }
  Tensor tensor(const std::vector<double>& numbers, DType dtype = DType::bf16) const {
    return tensor_of(*context, numbers, {static_cast<std::int64_t>(numbers.size())}, dtype);
  }
  /// To be written.
  Tensor unwritten(std::size_t count, DType dtype = DType::bf16) const {
    return tensor(std::vector<double>(count, std::numeric_limits<double>::quiet_NaN()), dtype);
  }
  std::vector<double> first(const std::vector<double>& all) const {
    return channels(all, s.c, 0, s.c - s.c2);
  }
  std::vector<double> second(const std::vector<double>& all) const {
    return channels(all, s.c, s.c - s.c2, s.c2);
  }
  template <class B>
  B if_second(B buffer) const {
    return s.c2 ? buffer : B{};
  }

  static constexpr Tolerance kTolerance{4e-3, 8e-3};  // of one rounding to bf16
  std::unique_ptr<Context> context;
  ConvShape s;
  std::vector<double> x, w, dy;
};

TEST_P(UnfoldedConvOf, IsTheSumOfProducts) {
  const std::vector<double> bias = values(s.k, 4);
  std::vector<double> expected(dy.size());
  for_each_product(s, [&](auto iy, auto ix, auto iw) {
    expected[static_cast<std::size_t>(iy)] +=
        x[static_cast<std::size_t>(ix)] * w[static_cast<std::size_t>(iw)];
  });
  for (std::size_t i = 0; i < expected.size(); ++i)
    expected[i] = 0.6 * (expected[i] + bias[i % bias.size()] + dy[i]);
  const Tensor x1 = tensor(first(x)), x2 = tensor(second(x)), weight = tensor(w, DType::f32),
               b = tensor(bias, DType::f32);
  for (const DType type : {DType::bf16, DType::f32}) {
    const Tensor residual = tensor(dy, type);
    Tensor y = unwritten(dy.size(), type);
    unfolded::convolve({x1.buffer(), if_second(x2.buffer()), weight.buffer(), b.buffer(), residual.buffer(),
                        y.buffer(), s, 0.6, 0},
                       *context);
    expect_close(y.to_host_f64(), expected, type == DType::f32 ? Tolerance{4e-6, 8e-6} : kTolerance);
  }
}

TEST_P(UnfoldedConvOf, HasThatSumsGradients) {
  std::vector<double> dx(x.size()), dw(w.size()), db(static_cast<std::size_t>(s.k));
  for_each_product(s, [&](auto iy, auto ix, auto iw) {
    const double slope = 0.7 * dy[static_cast<std::size_t>(iy)];
    dx[static_cast<std::size_t>(ix)] += slope * w[static_cast<std::size_t>(iw)];
    dw[static_cast<std::size_t>(iw)] += slope * x[static_cast<std::size_t>(ix)];
  });
  for (std::size_t i = 0; i < dy.size(); ++i) db[i % db.size()] += 0.7 * dy[i];
  const Tensor x1 = tensor(first(x)), x2 = tensor(second(x)), weight = tensor(w, DType::f32),
               out = tensor(dy);
  Tensor dx1 = unwritten(first(x).size()), dx2 = unwritten(second(x).size()), dweight = unwritten(w.size()),
         dbias = unwritten(db.size(), DType::f32);
  unfolded::convolve_grad_input(
      {out.buffer(), weight.buffer(), dx1.buffer(), if_second(dx2.buffer()), s, 0.7}, *context);
  expect_close(dx1.to_host_f64(), first(dx), kTolerance, "dx");
  expect_close(dx2.to_host_f64(), second(dx), kTolerance, "dx2");
  unfolded::convolve_grad_weight(
      {x1.buffer(), if_second(x2.buffer()), out.buffer(), dweight.buffer(), dbias.buffer(), s, 0.7},
      *context);
  expect_close(dweight.to_host_f64(), dw, kTolerance, "dweight");
  expect_close(dbias.to_host_f64(), db, {1e-6, 2e-6}, "dbias");
}

INSTANTIATE_TEST_SUITE_P(Shapes, UnfoldedConvOf, testing::ValuesIn(kShapes), [](const auto& row) {
  const ConvShape& s = row.param;
  return std::to_string(s.r) + "x" + std::to_string(s.s) + "_pad" + std::to_string(s.pad_begin) +
         std::to_string(s.pad_end) + "_" + std::to_string(s.h) + "x" + std::to_string(s.w);
});

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
