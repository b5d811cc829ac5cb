// Products of bf16 matrices by panels: every layout, both types of the result, any number of threads.

#include "backend/cpu/batched_product.h"

#include <gtest/gtest.h>

#include <limits>

#include "backend/cpu/tile_product.h"
#include "check.h"

namespace sgm {
namespace {

/// Rows lie `gap` numbers further apart than they are long.
struct ProductShape {
  std::int64_t batch, m, n, k, gap;
  bool trans_a, trans_b;
};

// More rows than are multiplied at a time, and a number of them that is no multiple of anything.
constexpr ProductShape kLayouts[] = {{3, 101, 64, 96, 0, false, false}, {2, 7, 32, 6, 4, false, false},
                                     {2, 53, 96, 32, 2, false, true},   {2, 96, 32, 14, 2, true, false},
                                     {3, 32, 64, 64, 0, true, true},    {1, 1, 32, 2, 0, false, false}};

class BatchedProduct : public testing::TestWithParam<ProductShape> {
 protected:
  BatchedProduct() : context(create_context("cpu", 2)), s(GetParam()) {}

  std::int64_t lda() const { return (s.trans_a ? s.m : s.k) + s.gap; }
  std::int64_t ldb() const { return (s.trans_b ? s.k : s.n) + s.gap; }
  std::int64_t ldc() const { return s.n + s.gap; }
  std::int64_t size_a() const { return (s.trans_a ? s.k : s.m) * lda(); }
  std::int64_t size_b() const { return (s.trans_b ? s.n : s.k) * ldb(); }

  std::vector<double> a() const { return rounded(random_values(s.batch * size_a(), 1), DType::bf16); }
  std::vector<double> b() const { return rounded(random_values(s.batch * size_b(), 2), DType::bf16); }

  /// The product, with NaN where nothing is to be written.
  std::vector<double> product(DType type, Context& on) const {
    const auto tensor = [&](const std::vector<double>& values, DType dtype) {
      return tensor_of(on, values, {static_cast<std::int64_t>(values.size())}, dtype);
    };
    const std::vector<double> before(static_cast<std::size_t>(s.batch * s.m * ldc()),
                                     std::numeric_limits<double>::quiet_NaN());
    const Tensor ta = tensor(a(), DType::bf16), tb = tensor(b(), DType::bf16);
    Tensor c = tensor(before, type);
    const Matmul op{ta.buffer(), tb.buffer(), {},    c.buffer(), s.batch,  s.m,         s.n,       s.k,
                    lda(),       ldb(),       ldc(), size_a(),   size_b(), s.m * ldc(), s.trans_a, s.trans_b};
    EXPECT_EQ(batched_product::suits(op), bfloats_are_fast());
    batched_product::multiply(op, on);
    return c.to_host_f64();
  }

  std::unique_ptr<Context> context;
  ProductShape s;
};

TEST_P(BatchedProduct, IsTheSumOfProductsAndLeavesGapsAlone) {
  const std::vector<double> x = a(), y = b();
  std::vector<double> expected(static_cast<std::size_t>(s.batch * s.m * ldc()));
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  for (std::int64_t i = 0; i < s.batch; ++i)
    for (std::int64_t row = 0; row < s.m; ++row)
      for (std::int64_t column = 0; column < s.n; ++column)
        for (std::int64_t l = 0; l < s.k; ++l)
          expected[at((i * s.m + row) * ldc() + column)] +=
              x[at(i * size_a() + (s.trans_a ? l * lda() + row : row * lda() + l))] *
              y[at(i * size_b() + (s.trans_b ? column * ldb() + l : l * ldb() + column))];
  for (const DType type : {DType::f32, DType::bf16}) {
    const std::vector<double> c = product(type, *context);
    const double tolerance = type == DType::f32 ? 1e-5 : 4e-3;
    for (std::size_t i = 0; i < c.size(); ++i)
      if (static_cast<std::int64_t>(i) % ldc() < s.n) {
        EXPECT_NEAR(c[i], expected[i], tolerance * (1.0 + std::abs(expected[i]))) << i;
      } else {
        EXPECT_TRUE(std::isnan(c[i])) << i;
      }
  }
}

TEST_P(BatchedProduct, GivesTheSameBitsOnAnyNumberOfThreads) {
  const auto on_threads = [this](int threads) {
    std::vector<double> c = product(DType::f32, *create_context("cpu", threads));
    std::erase_if(c, [](double value) { return std::isnan(value); });  // the gaps, which equal nothing
    return c;
  };
  const std::vector<double> one = on_threads(1);
  EXPECT_EQ(static_cast<std::int64_t>(one.size()), s.batch * s.m * s.n);
  for (const int threads : {2, 7}) EXPECT_EQ(one, on_threads(threads));
}

INSTANTIATE_TEST_SUITE_P(Layouts, BatchedProduct, testing::ValuesIn(kLayouts));

}  // namespace
}  // namespace sgm
