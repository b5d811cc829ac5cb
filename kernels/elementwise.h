#pragma once
// Elementwise ops, channel concatenation and row sums.

#include <cmath>

#include "kernels/op.h"
#include "sgm/core/activation.h"

namespace sgm {

/// y = activation(x).
struct Activate {
  ConstBuffer x;  // [n]
  Buffer y;       // [n]
  std::int64_t n;
  Activation activation;
  OpCost cost() const { return {bytes_of({x, y}, n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dx = dy activation'(x).
struct ActivateGrad {
  ConstBuffer x, dy;  // [n]
  Buffer dx;          // [n]
  std::int64_t n;
  Activation activation;
  OpCost cost() const { return {bytes_of({x, dy, dx}, n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y = alpha a + beta b; y may be a or b; b may be absent.
struct AddScaled {
  ConstBuffer a, b;  // [n]
  Buffer y;          // [n]
  std::int64_t n;
  double alpha, beta;
  OpCost cost() const { return {bytes_of({a, b, y}, n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[r, :] = scale[r] x[r, :] + shift.
struct ScaleRows {
  ConstBuffer x;      // [rows, cols]
  ConstBuffer scale;  // [rows], f64; absent: 1
  Buffer y;           // [rows, cols]
  std::int64_t rows, cols;
  double factor, shift;  // y = factor scale x + shift
  OpCost cost() const { return {bytes_of({x, y}, rows * cols) + bytes_of(scale, rows)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[r, :] = x[r, :] + bias.
struct AddBias {
  ConstBuffer x;     // [rows, cols]
  ConstBuffer bias;  // [cols]; f32 beside bf16
  Buffer y;          // [rows, cols]
  std::int64_t rows, cols;
  OpCost cost() const { return {bytes_of({x, y}, rows * cols) + bytes_of(bias, cols)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[r, :] = [a[r, :], b[r, :]].
struct ConcatChannels {
  ConstBuffer a, b;  // [rows, ca], [rows, cb]
  Buffer y;          // [rows, ca + cb]
  std::int64_t rows, ca, cb;
  OpCost cost() const { return {2 * bytes_of(y, rows * (ca + cb))}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// The inverse of ConcatChannels; an absent output is skipped.
struct SplitChannels {
  ConstBuffer y;  // [rows, ca + cb]
  Buffer a, b;    // [rows, ca], [rows, cb]
  std::int64_t rows, ca, cb;
  OpCost cost() const { return {2 * (bytes_of(a, rows * ca) + bytes_of(b, rows * cb))}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[c] = scale times the sum over rows of x[r, c], in a fixed order.
struct SumRows {
  ConstBuffer x;  // [rows, cols]
  Buffer y;       // [cols]
  std::int64_t rows, cols;
  double scale = 1.0;
  OpCost cost() const { return {bytes_of(x, rows * cols) + bytes_of(y, cols)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[r, :] = softmax(scale x[r, :]).
struct Softmax {
  ConstBuffer x;  // [rows, cols]
  Buffer y;       // [rows, cols]
  std::int64_t rows, cols;
  double scale;
  OpCost cost() const { return {bytes_of({x, y}, rows * cols)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dx[r, :] = scale y (dy - <y, dy>).
struct SoftmaxGrad {
  ConstBuffer y, dy;  // [rows, cols]
  Buffer dx;          // [rows, cols]
  std::int64_t rows, cols;
  double scale;
  OpCost cost() const { return {bytes_of({y, dy, dx}, rows * cols)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[n, :] = [sin(a), cos(a)], a[n, j] = ((log(u[n]) w[j]) 2) pi evaluated in the type of y.
struct FourierEmbedding {
  ConstBuffer u;  // [n], f64, positive
  ConstBuffer w;  // [half]
  Buffer y;       // [n, 2 half]
  std::int64_t n, half;
  OpCost cost() const { return {bytes_of(u, n) + bytes_of(w, half) + bytes_of(y, n * 2 * half)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[n, :] = [sin(t w_j), cos(t w_j)], w_j = 10000^(-j / (half - 1)), half = dim / 2;
/// a trailing zero if dim is odd. Angles are products of f32 numbers whatever y is: networks are trained on
/// those.
struct PositionalEmbedding {
  ConstBuffer t;  // [n], f64
  Buffer y;       // [n, dim]
  std::int64_t n, dim;
  OpCost cost() const { return {bytes_of(t, n) + bytes_of(y, n * dim)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// scale[n] = 1 / sqrt(sigma^2 + softening^2) of noise label n: the label is sigma itself or, where there is
/// a table of num_scales geometric noise scales from sigma_max down to sigma_min, an index into it
/// (truncated, and clamped to it).
struct InverseSigma {
  ConstBuffer label;  // [n], f64
  Buffer scale;       // [n], f64
  std::int64_t n;
  double sigma_min, sigma_max;
  std::int64_t num_scales;  // 0: labels are sigmas
  double softening = 0.0;

  /// Of one label; NaN stays NaN.
  SGM_HD double of(double value) const {
    const double exact = inverse(value);
    return softening == 0.0 ? exact : exact / sqrt(1.0 + softening * softening * exact * exact);
  }
  SGM_HD double inverse(double value) const {
    if (num_scales == 0) return 1.0 / value;
    const double last = static_cast<double>(num_scales - 1), whole = trunc(value);
    const double index = whole < 0.0 ? 0.0 : last < whole ? last : whole;
    return 1.0 / (sigma_max * pow(sigma_min / sigma_max, index / (last > 1.0 ? last : 1.0)));
  }
  OpCost cost() const { return {bytes_of({label, scale}, n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
