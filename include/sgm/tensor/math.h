#pragma once
// Tensor in, tensor out, no tape: noise, stochastic steps and the linear algebra of ODE states. A batch is
// [N, ...]; what is "per image" has one entry for each index of the first dimension.

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "sgm/core/pixel.h"
#include "sgm/core/random.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

/// Standard normal noise of a batch: the values of `given`, or else a pure function of `key`, image and
/// element.
struct Noise {
  NoiseKey key;
  Tensor given;
};

/// A coefficient: one number for the batch, or one per image (f64 [N]).
class Coefficient {
 public:
  Coefficient(double value) : value_(value) {}
  Coefficient(Tensor per_image) : per_image_(std::move(per_image)) {}
  double value() const { return value_; }
  const Tensor& per_image() const { return per_image_; }

 private:
  double value_ = 0.0;
  Tensor per_image_;
};

/// std z, z ~ N(0, I), f32, bf16 or f64; equal for equal (key, image, element) whatever the batch.
Tensor normal(Context& context, Shape shape, const NoiseKey& key, double std = 1.0, DType dtype = DType::f32);
/// std z from either kind of noise; `given` must have that shape and type.
Tensor normal(Context& context, Shape shape, const Noise& noise, double std = 1.0, DType dtype = DType::f32);

/// Operands of y_mean = a x + b score, y = y_mean + c z. Absent ones drop their terms.
struct AffineTerms {
  Tensor x;           // [N, ...]
  Tensor score = {};  // shape of x, any element type
  std::optional<Noise> noise = {};
  Coefficient a = 1.0, b = 0.0, c = 0.0;
  bool want_mean = false;
};
struct AffineResult {
  Tensor y;     // shape and type of x
  Tensor mean;  // absent unless wanted; y itself where there is no noise
};
AffineResult affine_step(const AffineTerms& terms);

/// Sums of squares per image, f64 [N], accumulated in double.
Tensor squared_norms(const Tensor& x);
/// The same of noise for a batch like `like`.
Tensor squared_norms(const Noise& noise, const Tensor& like);

/// Coefficients b = 2 alpha (snr |z| / |score|)^2 and c = sqrt(2 b), f64 [N], computed on the device from
/// squared norms [N] of score and noise. batch_mean averages both norms over the batch, so that all images
/// share one step.
struct LangevinStep {
  Tensor b, c;
};
LangevinStep langevin_step(const Tensor& score_norms, const Tensor& noise_norms, const Coefficient& alpha,
                           double snr, bool batch_mean);

/// coefficient * x as a term of a linear combination; x is f64 and outlives the call.
struct Term {
  double coefficient;
  const Tensor* x;
};
/// base + h_i * sum of terms, f64 [N, ...]; h is f64 [N]; at most seven terms, those with coefficient 0 are
/// skipped.
Tensor linear_combination(const Tensor& base, const Tensor& h, std::span<const Term> terms);
/// Per image sum over elements of (sum of terms / (atol + rtol max(|y|, |y_other|)))^2, f64 [N].
Tensor scaled_squared_norms(std::span<const Term> terms, const Tensor& y, const Tensor& y_other, double rtol,
                            double atol);

/// Images `rows` of the batches first and second, numbered through; f64. Throws Error for a row out of range.
Tensor gather_images(const Tensor& first, const Tensor& second, std::span<const std::int64_t> rows);

/// Pixels of factor x + shift, x f32, by the rule.
std::vector<std::uint8_t> to_bytes(const Tensor& x, double factor, double shift, PixelRule rule);

/// `shape` with another batch size.
Shape with_batch(const Shape& shape, std::int64_t n);

}  // namespace sgm
