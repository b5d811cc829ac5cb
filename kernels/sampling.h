#pragma once
// Noise, stochastic steps and the linear algebra of ODE states. Batches are [N, ...]: n images of per_image
// elements. Every image is computed from its own elements in an order that neither the batch nor the number
// of threads changes.

#include "kernels/op.h"
#include "sgm/core/pixel.h"
#include "sgm/core/random.h"

namespace sgm {

inline constexpr std::int64_t kDoubleBytes = sizeof(double);

/// Standard normal noise: the values at `given`, or else element e of image i drawn where it is used, from
/// `key`.
struct NoiseOperand {
  NoiseKey key;
  ConstBuffer given;
};

/// A coefficient: `per_image` (f64 [N]) where given, else `value` for every image.
struct CoefficientOperand {
  double value;
  ConstBuffer per_image;

  SGM_HD double at(std::int64_t image) const {
    return per_image.data ? static_cast<const double*>(per_image.data)[image] : value;
  }
};

/// y = std z.
struct Normal {
  Buffer y;
  std::int64_t n, per_image;
  NoiseKey key;
  double std;
  OpCost cost() const { return {bytes_of(y, n * per_image)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y_mean = a x + b score, y = y_mean + c z: the one step of perturbation, predictors and correctors. Absent
/// operands drop their terms; y may be x. Computed as fma(c, z, fma(a, x, b score)) in the accumulator of x's
/// type.
struct AffineStep {
  ConstBuffer x;
  ConstBuffer score;   // of any element type; optional
  NoiseOperand noise;  // given noise has x's element type
  bool has_noise;
  CoefficientOperand a, b, c;
  Buffer y;
  Buffer y_mean;  // optional
  std::int64_t n, per_image;
  OpCost cost() const {
    return {bytes_of({x, score, y, y_mean}, n * per_image) +
            (has_noise ? bytes_of(noise.given, n * per_image) : 0) +
            bytes_of({a.per_image, b.per_image, c.per_image}, n)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// norms[i] = sum of the squares of image i, accumulated in double; norms is f64 [N].
struct SquaredNorms {
  NoiseOperand x;  // a tensor where given, else the norms of the noise that `key` names
  Buffer norms;
  std::int64_t n, per_image;
  OpCost cost() const { return {bytes_of(x.given, n * per_image) + bytes_of(norms, n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// Step sizes of Langevin dynamics from the squared norms of score and noise:
/// b = 2 alpha (snr |z| / |score|)^2, c = sqrt(2 b). With batch_mean both norms are averaged over the batch.
/// Where the score vanishes no step is taken.
struct LangevinStepSize {
  const double *score_norms, *noise_norms;  // [N], squared
  double *b, *c;                            // [N]
  std::int64_t n;
  CoefficientOperand alpha;
  double snr;
  bool batch_mean;
  OpCost cost() const { return {4 * n * kDoubleBytes + bytes_of(alpha.per_image, n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// Most terms of a linear combination: the stages of a Dormand-Prince step.
inline constexpr int kMaxTerms = 7;

/// sum_j coefficient[j] term[j], all f64 [N, ...].
struct TermList {
  const double* term[kMaxTerms];
  double coefficient[kMaxTerms];
  int count;
};

/// y = base + h_i sum_j coefficient_j term_j.
struct LinearCombination {
  const double* base;
  const double* h;  // [N]
  TermList terms;
  double* y;
  std::int64_t n, per_image;
  OpCost cost() const { return {((2 + terms.count) * n * per_image + n) * kDoubleBytes}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// norms[i] = sum over image i of (sum_j coefficient_j term_j / (atol + rtol max(|y|, |y_other|)))^2.
struct ScaledSquaredNorms {
  const double *y, *y_other;  // the same pointer twice where there is one state
  TermList terms;
  double rtol, atol;
  double* norms;  // [N]
  std::int64_t n, per_image;
  OpCost cost() const {
    return {(((y == y_other ? 1 : 2) + terms.count) * n * per_image + n) * kDoubleBytes};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[i] = image rows[i] of the two batches first and second, numbered through; all f64.
struct GatherImages {
  const double *first, *second;
  const double* rows;  // [N], whole numbers below n_first + images in second
  double* y;
  std::int64_t n_first, n, per_image;
  OpCost cost() const { return {(2 * n * per_image + n) * kDoubleBytes}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[i] = the byte of factor x[i] + shift.
struct ToBytes {
  ConstBuffer x;    // [n], f32
  std::uint8_t* y;  // [n]
  std::int64_t n;
  float factor, shift;
  PixelRule rule;

  SGM_HD std::uint8_t of(float value) const { return to_byte(fmaf(factor, value, shift), rule); }
  OpCost cost() const { return {bytes_of(x, n) + n}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
