// Attention in one pass, and its gradient.

#include "kernel_checks.h"
#include "kernels/attention.h"

namespace sgm {
namespace {

struct AttentionSizes {
  std::int64_t n, t, c;
};
// One token; tiles that are not full, of tokens and of channels; several tiles; the networks' shapes.
constexpr AttentionSizes kSizes[] = {{1, 1, 16},  {2, 5, 48},   {1, 33, 16},   {1, 64, 32},
                                     {2, 81, 80}, {3, 16, 256}, {1, 130, 144}, {1, 256, 256}};

/// The definition, in double: of the operands as they are.
struct Formula {
  AttentionSizes s;
  double scale;
  std::vector<double> qkv;

  double at(std::int64_t image, int part, std::int64_t token, std::int64_t channel) const {
    return qkv[static_cast<std::size_t>(((image * s.t + token) * 3 + part) * s.c + channel)];
  }
  /// <x_i, y_j> of two of queries, keys and values.
  double dot(std::int64_t image, int x, std::int64_t i, int y, std::int64_t j) const {
    double sum = 0.0;
    for (std::int64_t k = 0; k < s.c; ++k) sum += at(image, x, i, k) * at(image, y, j, k);
    return sum;
  }
  /// Weights and log-sum-exp of one query.
  std::vector<double> weights(std::int64_t image, std::int64_t query, double& lse) const {
    std::vector<double> weight;
    for (std::int64_t j = 0; j < s.t; ++j) weight.push_back(scale * dot(image, 0, query, 1, j));
    const double largest = *std::max_element(weight.begin(), weight.end());
    double sum = 0.0;
    for (double& value : weight) sum += value = std::exp(value - largest);
    for (double& value : weight) value /= sum;
    lse = largest + std::log(sum);
    return weight;
  }

  void forward(std::vector<double>& y, std::vector<double>& lse) const {
    for (std::int64_t image = 0; image < s.n; ++image)
      for (std::int64_t i = 0; i < s.t; ++i) {
        lse.push_back(0.0);
        const std::vector<double> weight = weights(image, i, lse.back());
        for (std::int64_t k = 0; k < s.c; ++k) {
          double sum = 0.0;
          for (std::int64_t j = 0; j < s.t; ++j)
            sum += weight[static_cast<std::size_t>(j)] * at(image, 2, j, k);
          y.push_back(sum);
        }
      }
  }

  /// Of qkv, given the output's and the output as it is.
  std::vector<double> backward(const std::vector<double>& y, const std::vector<double>& dy) const {
    std::vector<double> dqkv(qkv.size());
    const auto grad = [&](std::int64_t image, int part, std::int64_t token) {
      return dqkv.begin() + ((image * s.t + token) * 3 + part) * s.c;
    };
    for (std::int64_t image = 0; image < s.n; ++image)
      for (std::int64_t i = 0; i < s.t; ++i) {
        double lse, mean = 0.0;
        const std::vector<double> weight = weights(image, i, lse);
        const auto row = static_cast<std::size_t>((image * s.t + i) * s.c);
        const auto size = static_cast<std::size_t>(s.c);
        for (std::size_t k = row; k < row + size; ++k) mean += y[k] * dy[k];
        for (std::int64_t j = 0; j < s.t; ++j) {
          const double p = weight[static_cast<std::size_t>(j)];
          double dp = 0.0;
          for (std::size_t k = 0; k < size; ++k)
            dp += dy[row + k] * at(image, 2, j, static_cast<std::int64_t>(k));
          for (std::int64_t k = 0; k < s.c; ++k) {
            grad(image, 0, i)[k] += scale * p * (dp - mean) * at(image, 1, j, k);
            grad(image, 1, j)[k] += scale * p * (dp - mean) * at(image, 0, i, k);
            grad(image, 2, j)[k] += p * dy[row + static_cast<std::size_t>(k)];
          }
        }
      }
    return dqkv;
  }
};

/// scores: about their standard deviation.
Formula formula(const AttentionSizes& s, DType dtype, double scores) {
  return {s, scores / std::sqrt(static_cast<double>(s.c)), normals(3 * s.n * s.t * s.c, 1, dtype)};
}

/// Of weights and their gradients, which in bf16 are rounded on their way to a product.
Tolerance tolerance(DType dtype) {
  if (dtype == DType::bf16) return {unit_roundoff(dtype), 4.0 * unit_roundoff(dtype)};
  return {64.0 * unit_roundoff(dtype)};
}

void check_attention(Context& context, DType dtype) {
  for (const AttentionSizes& s : kSizes)
    // Scores of all sizes: an exponential of 300 must not overflow.
    for (const double size : {1.0, 100.0}) {
      SCOPED_TRACE(testing::Message() << s.n << " x " << s.t << " x " << s.c << ", scores of " << size);
      if (size > 1.0 && s.t > 130) continue;
      const Formula f = formula(s, dtype, size);
      std::vector<double> y, lse;
      f.forward(y, lse);
      const Guarded in(context, f.qkv, dtype), out(context, std::ssize(y), dtype),
          sums(context, std::ssize(lse), parameter_type(dtype));
      run(Attention{in.buffer(), out.buffer(), sums.buffer(), s.n, s.t, s.c, f.scale}, context);
      const double exact = unit_roundoff(parameter_type(dtype));
      // The exponent itself is rounded: its error is relative to the scores.
      expect_close(out.values(), y, {tolerance(dtype).l2 + 16.0 * size * exact});
      expect_close(sums.values(), lse, {16.0 * exact, 64.0 * exact, size}, "log-sum-exp");
    }
}

void check_attention_grad(Context& context, DType dtype) {
  for (const AttentionSizes& s : kSizes)
    for (const bool with_sums : {true, false}) {
      SCOPED_TRACE(testing::Message() << s.n << " x " << s.t << " x " << s.c << ", sums " << with_sums);
      if (!with_sums && s.t > 130) continue;
      const Formula f = formula(s, dtype, 1.0);
      std::vector<double> y, lse;
      f.forward(y, lse);
      y = rounded(y, dtype), lse = rounded(lse, parameter_type(dtype));
      const std::vector<double> dy = normals(std::ssize(y), 2, dtype), expected = f.backward(y, dy);
      std::vector<double> totals(static_cast<std::size_t>(3 * s.c));
      for (std::size_t i = 0; i < expected.size(); ++i) totals[i % totals.size()] += expected[i];
      const Guarded qkv(context, f.qkv, dtype), out(context, y, dtype),
          stats(context, lse, parameter_type(dtype)), dout(context, dy, dtype),
          dqkv(context, std::ssize(expected), dtype);
      std::vector<std::vector<double>> runs;
      for (int i = 0; i < (with_sums ? 2 : 0); ++i) {
        const Guarded sums(context, 3 * s.c, parameter_type(dtype));
        run(AttentionGrad{qkv.buffer(), out.buffer(), stats.buffer(), dout.buffer(), dqkv.buffer(),
                          sums.buffer(), s.n, s.t, s.c, f.scale},
            context);
        runs.push_back(sums.values());
      }
      if (!with_sums)
        run(AttentionGrad{qkv.buffer(),
                          out.buffer(),
                          stats.buffer(),
                          dout.buffer(),
                          dqkv.buffer(),
                          {},
                          s.n,
                          s.t,
                          s.c,
                          f.scale},
            context);
      expect_close(dqkv.values(), expected, tolerance(dtype), "gradient");
      if (!with_sums) continue;
      // Those of the keys are 0 but for rounding: all of them moved together change no weight.
      expect_close(runs[0], totals, tolerance(dtype), "sums");
      EXPECT_EQ(runs[0], runs[1]) << "the order of a sum is fixed";
    }
}

}  // namespace

std::vector<KernelRow> attention_kernels() {
  return {{"Attention", check_attention, true}, {"AttentionGrad", check_attention_grad, true}};
}

}  // namespace sgm
