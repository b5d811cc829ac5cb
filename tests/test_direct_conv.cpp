// The kernels around the vendor libraries' convolutions.

#include "kernels/direct_conv.h"

#include "backend/cuda/cuda_context.h"
#include "devices.h"
#include "naive.h"

namespace sgm {
namespace {

class DirectConv : public CudaTest {
 protected:
  CudaContext& device() { return cuda(context()); }
};

struct Case {
  std::int64_t n, h, w, c, k, filter;
  int stride, pad_begin, pad_end;
  bool bias, residual;
  double scale;

  ConvShape shape() const {
    const auto out = [&](std::int64_t size) { return (size + pad_begin + pad_end - filter) / stride + 1; };
    return {n, h, w, c, k, filter, filter, out(h), out(w), stride, pad_begin, pad_end, 0};
  }
};

TEST_F(DirectConv, IsTheConvolutionInF32) {
  const Case cases[] = {
      {2, 8, 8, 128, 3, 3, 1, 1, 1, true, false, 1.0},   // the last convolution
      {1, 6, 5, 256, 3, 3, 1, 1, 1, true, true, 0.7},    // more channels than one pass of the threads
      {3, 7, 5, 20, 3, 3, 1, 1, 1, false, false, -2.0},  // no whole packs
      {1, 9, 6, 8, 5, 3, 2, 0, 1, true, true, 1.0},      // more outputs than one group of threads takes
      {2, 5, 7, 3, 1, 5, 1, 2, 2, false, true, 0.5},     // filter larger than a corner
      {1, 3, 3, 136, 4, 3, 1, 0, 0, true, false, 1.0},   // one pixel; a pass that few threads take part in
      {1, 1, 1, 1, 9, 1, 1, 0, 0, true, false, 3.0},
  };
  std::uint32_t stream = 0;
  for (const Case& test : cases) {
    const ConvShape s = test.shape();
    SCOPED_TRACE(std::to_string(stream));
    const auto values = [&](const Shape& shape, DType dtype) {
      return Values{shape, rounded(random_values(shape.numel(), ++stream), dtype)};
    };
    const Values x = values({s.n, s.h, s.w, s.c}, DType::bf16), w = values({s.k, s.r, s.s, s.c}, DType::bf16),
                 b = values({s.k}, DType::f32), r = values({s.n, s.oh, s.ow, s.k}, DType::f32);
    const Guarded px(device(), x.data, DType::bf16), pw(device(), w.data, DType::bf16),
        pb(device(), b.data, DType::f32), pr(device(), r.data, DType::f32),
        py(device(), r.shape.numel(), DType::f32);
    Conv2d op{};
    op.x = px.buffer(), op.weight = pw.buffer(), op.y = py.buffer(), op.shape = s, op.scale = test.scale;
    if (test.bias) op.bias = pb.buffer();
    if (test.residual) op.residual = pr.buffer();
    convolve_directly(op, device());
    const Values expected = naive::conv2d(x, w, test.bias ? &b : nullptr, test.residual ? &r : nullptr,
                                          {s.stride, s.pad_begin, s.pad_end}, test.scale);
    // Products of bf16 are exact in f32; what is left are the roundings of up to 2304 additions.
    expect_close(py.values(), expected.data, {1e-6, 1e-5});
  }
}

TEST_F(DirectConv, LaunchesNothingForAnEmptyBatch) {
  device().take_launch_counts();
  Conv2d op{};
  op.x.dtype = op.weight.dtype = DType::bf16;
  op.shape = {0, 8, 8, 16, 3, 3, 3, 8, 8, 1, 1, 1, 0};
  convolve_directly(op, device());
  EXPECT_TRUE(device().take_launch_counts().empty());
}

TEST_F(DirectConv, RefusesOtherTypes) {
  Conv2d op{};
  op.x.dtype = DType::f32;
  EXPECT_THROW(convolve_directly(op, device()), Error);
}

TEST_F(DirectConv, BiasesAreScaledAndRoundedOnlyWhereTheyMustBe) {
  for (const std::int64_t n : {1, 257, 512})
    for (const DType from : {DType::f32, DType::bf16})
      for (const DType to : {DType::f32, DType::bf16})
        for (const double factor : {1.0, 0.5, 0.7}) {
          const std::vector<double> bias = rounded(random_values(n, 7), from);
          const Guarded memory(device(), bias, from);
          const ReadyBias ready(memory.buffer(), n, factor, to, device());
          ASSERT_EQ(ready.buffer().dtype, to);
          EXPECT_EQ(ready.buffer().data == memory.buffer().data, from == to && factor == 1.0);
          std::vector<std::byte> host(static_cast<std::size_t>(n) * size_of(to));
          device().copy_to_host(host.data(), ready.buffer().data, host.size());
          for (std::size_t i = 0; i < bias.size(); ++i) {
            const auto single = static_cast<float>(factor) * static_cast<float>(bias[i]);
            float value;
            if (to == DType::f32) std::memcpy(&value, host.data() + 4 * i, 4);
            bfloat16 half;
            if (to == DType::bf16) std::memcpy(&half, host.data() + 2 * i, 2), value = half;
            ASSERT_EQ(value, to == DType::bf16 ? static_cast<float>(bfloat16(single)) : single) << i;
          }
        }
  EXPECT_FALSE(ReadyBias({}, 5, 0.5, DType::bf16, device()).buffer());
}

TEST_F(DirectConv, EpilogueAddsToEveryRowAndToNothingBetweenRows) {
  constexpr std::int64_t kRows = 77, kCols = 13, kLd = 16;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool with_bias : {false, true})
      for (const bool with_residual : {false, true}) {
        const std::vector<double> y = rounded(random_values((kRows - 1) * kLd + kCols, 1), dtype),
                                  bias = random_values(kCols, 2),
                                  residual = rounded(random_values(kRows * kCols, 3), dtype);
        const Guarded py(device(), y, dtype, true), pb(device(), bias, DType::f32),
            pr(device(), residual, dtype);
        EpilogueTerms terms{{}, {}, py.buffer(), kRows, kCols, kLd, 0.6};
        if (with_bias) terms.bias = pb.buffer();
        if (with_residual) terms.residual = pr.buffer();
        add_epilogue(terms, device());
        std::vector<double> expected = y;
        for (std::size_t r = 0; r < kRows; ++r)
          for (std::size_t c = 0; c < kCols; ++c)
            expected[r * kLd + c] +=
                0.6 * ((with_bias ? bias[c] : 0.0) + (with_residual ? residual[r * kCols + c] : 0.0));
        expect_close(py.values(), expected, {2.0 * unit_roundoff(dtype), 4.0 * unit_roundoff(dtype)});
        for (std::size_t r = 0; r + 1 < kRows; ++r)
          for (std::size_t c = kCols; c < kLd; ++c) ASSERT_EQ(py.values()[r * kLd + c], y[r * kLd + c]);
      }
}

}  // namespace
}  // namespace sgm
