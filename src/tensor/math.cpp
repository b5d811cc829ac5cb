#include "sgm/tensor/math.h"

#include <array>
#include <vector>

#include "kernels/sampling.h"

namespace sgm {
namespace {

std::int64_t batch_of(const Tensor& x, const char* op) {
  check(x.defined() && x.shape().rank() >= 1, op, ": expected a batch [N, ...], got shape ", x.shape());
  return x.shape()[0];
}

std::int64_t image_size(const Shape& shape) {
  std::int64_t size = 1;
  for (int i = 1; i < shape.rank(); ++i) size *= shape[i];
  return size;
}

void check_like(const Tensor& x, const Shape& shape, DType dtype, const char* what) {
  check(x.shape() == shape && x.dtype() == dtype, what, ": expected ", dtype, ' ', shape, ", got ", x.dtype(),
        ' ', x.shape());
}

CoefficientOperand operand(const Coefficient& coefficient, std::int64_t n) {
  if (coefficient.per_image().defined()) check_like(coefficient.per_image(), {n}, DType::f64, "coefficient");
  return {coefficient.value(), coefficient.per_image().buffer()};
}

NoiseOperand operand(const Noise& noise, const Shape& shape, DType dtype) {
  if (noise.given.defined()) check_like(noise.given, shape, dtype, "noise");
  return {noise.key, noise.given.buffer()};
}

TermList operand(std::span<const Term> terms, const Shape& shape, const char* op) {
  TermList list = {};
  for (const Term& term : terms) {
    if (term.coefficient == 0.0) continue;
    check(list.count < kMaxTerms, op, ": more than ", kMaxTerms, " terms");
    check_like(*term.x, shape, DType::f64, op);
    list.term[list.count] = term.x->data<double>();
    list.coefficient[list.count++] = term.coefficient;
  }
  return list;
}

}  // namespace

Tensor normal(Context& context, Shape shape, const NoiseKey& key, double std, DType dtype) {
  Tensor y = Tensor::empty(context, shape, dtype);
  const std::int64_t n = batch_of(y, "normal");
  run(Normal{y.buffer(), n, image_size(shape), key, std}, context);
  return y;
}

Tensor normal(Context& context, Shape shape, const Noise& noise, double std, DType dtype) {
  if (!noise.given.defined()) return normal(context, shape, noise.key, std, dtype);
  check_like(noise.given, shape, dtype, "normal: given noise");
  return affine_step({.x = noise.given, .a = std}).y;
}

AffineResult affine_step(const AffineTerms& terms) {
  const std::int64_t n = batch_of(terms.x, "affine_step");
  const Shape& shape = terms.x.shape();
  if (terms.score.defined())
    check(terms.score.shape() == shape, "affine_step: score must have shape ", shape, ", got ",
          terms.score.shape());
  AffineResult result;
  result.y = Tensor::empty(terms.x.context(), shape, terms.x.dtype());
  if (terms.want_mean)
    result.mean = terms.noise ? Tensor::empty(terms.x.context(), shape, terms.x.dtype()) : result.y;
  AffineStep op{.x = terms.x.buffer(),
                .score = terms.score.buffer(),
                .noise = {},
                .has_noise = terms.noise.has_value(),
                .a = operand(terms.a, n),
                .b = operand(terms.b, n),
                .c = operand(terms.c, n),
                .y = result.y.buffer(),
                .y_mean = {},
                .n = n,
                .per_image = image_size(shape)};
  if (terms.noise) {
    op.noise = operand(*terms.noise, shape, terms.x.dtype());
    op.y_mean = result.mean.buffer();
  }
  run(op, terms.x.context());
  return result;
}

namespace {

Tensor squared_norms(const NoiseOperand& x, const Tensor& like) {
  const std::int64_t n = batch_of(like, "squared_norms");
  Tensor norms = Tensor::empty(like.context(), {n}, DType::f64);
  run(SquaredNorms{x, norms.buffer(), n, image_size(like.shape())}, like.context());
  return norms;
}

}  // namespace

Tensor squared_norms(const Tensor& x) { return squared_norms(NoiseOperand{{}, x.buffer()}, x); }

Tensor squared_norms(const Noise& noise, const Tensor& like) {
  return squared_norms(operand(noise, like.shape(), like.dtype()), like);
}

LangevinStep langevin_step(const Tensor& score_norms, const Tensor& noise_norms, const Coefficient& alpha,
                           double snr, bool batch_mean) {
  const std::int64_t n = batch_of(score_norms, "langevin_step");
  check_like(score_norms, {n}, DType::f64, "langevin_step: score norms");
  check_like(noise_norms, {n}, DType::f64, "langevin_step: noise norms");
  Context& context = score_norms.context();
  LangevinStep step{Tensor::empty(context, {n}, DType::f64), Tensor::empty(context, {n}, DType::f64)};
  run(LangevinStepSize{score_norms.data<double>(), noise_norms.data<double>(), step.b.data<double>(),
                       step.c.data<double>(), n, operand(alpha, n), snr, batch_mean},
      context);
  return step;
}

Tensor linear_combination(const Tensor& base, const Tensor& h, std::span<const Term> terms) {
  const std::int64_t n = batch_of(base, "linear_combination");
  check_like(h, {n}, DType::f64, "linear_combination: h");
  Tensor y = Tensor::empty(base.context(), base.shape(), DType::f64);
  run(LinearCombination{base.data<double>(), h.data<double>(),
                        operand(terms, base.shape(), "linear_combination"), y.data<double>(), n,
                        image_size(base.shape())},
      base.context());
  return y;
}

Tensor scaled_squared_norms(std::span<const Term> terms, const Tensor& y, const Tensor& y_other, double rtol,
                            double atol) {
  const std::int64_t n = batch_of(y, "scaled_squared_norms");
  check_like(y_other, y.shape(), DType::f64, "scaled_squared_norms: second state");
  Tensor norms = Tensor::empty(y.context(), {n}, DType::f64);
  run(ScaledSquaredNorms{y.data<double>(), y_other.data<double>(),
                         operand(terms, y.shape(), "scaled_squared_norms"), rtol, atol, norms.data<double>(),
                         n, image_size(y.shape())},
      y.context());
  return norms;
}

Tensor gather_images(const Tensor& first, const Tensor& second, std::span<const std::int64_t> rows) {
  const std::int64_t n_first = batch_of(first, "gather_images"), n_second = batch_of(second, "gather_images");
  const std::int64_t n = static_cast<std::int64_t>(rows.size());
  check(with_batch(second.shape(), n_first) == first.shape(), "gather_images: images of ", first.shape(),
        " and ", second.shape(), " differ in size");
  std::vector<double> row_numbers(rows.begin(), rows.end());
  for (const std::int64_t row : rows)
    check(row >= 0 && row < n_first + n_second, "gather_images: row ", row, " of ", n_first + n_second);
  Context& context = first.context();
  const Tensor row_tensor = Tensor::from_host(context, std::span<const double>(row_numbers), {n});
  Tensor y = Tensor::empty(context, with_batch(first.shape(), n), DType::f64);
  run(GatherImages{first.data<double>(), second.data<double>(), row_tensor.data<double>(), y.data<double>(),
                   n_first, n, image_size(first.shape())},
      context);
  return y;
}

std::vector<std::uint8_t> to_bytes(const Tensor& x, double factor, double shift, PixelRule rule) {
  const std::size_t n = static_cast<std::size_t>(x.numel());
  // Tensors hold no bytes: the pixels lie in one of f64.
  Tensor pixels = Tensor::empty(x.context(), {(x.numel() + 7) / 8}, DType::f64);
  auto* const y = reinterpret_cast<std::uint8_t*>(pixels.data<double>());
  check(x.dtype() == DType::f32, "to_bytes: x must be f32, got ", x.dtype());
  run(ToBytes{x.buffer(), y, x.numel(), static_cast<float>(factor), static_cast<float>(shift), rule},
      x.context());
  std::vector<std::uint8_t> bytes(n);
  x.context().copy_to_host(bytes.data(), y, n);
  return bytes;
}

Shape with_batch(const Shape& shape, std::int64_t n) {
  std::array<std::int64_t, Shape::kMaxRank> sizes{};
  for (int i = 0; i < shape.rank(); ++i) sizes[static_cast<std::size_t>(i)] = i == 0 ? n : shape[i];
  return Shape(std::span<const std::int64_t>(sizes.data(), static_cast<std::size_t>(shape.rank())));
}

}  // namespace sgm
