#include "sgm/sampling/constraints.h"

#include <algorithm>

#include "sgm/core/error.h"
#include "sgm/tensor/replace.h"

namespace sgm {

Tensor Constraint::start(const Tensor& x, std::span<const Coefficient> numbers, const Noise& noise) const {
  return impose({x, {}}, numbers, noise).x;
}

namespace {

/// An orthogonal projection of images is known. With it, the perturbation kernel of the whole image gives the
/// known part its noise.
class KnownPart : public Constraint {
 public:
  KnownPart(const SDE& sde, const Tensor& data, const ConstraintOptions& options)
      : sde_(sde), data_(data), options_(options) {}

  std::vector<double> numbers(const TimePoint& next, const TimePoint& updated) const final {
    const TimePoint& at = options_.reference_compat ? updated : next;
    const Marginal kernel = options_.discrete ? sde_.discrete_marginal(at.k, at.num_scales)
                                              : Marginal{sde_.mean_coeff(at.t), sde_.marginal_std(at.t)};
    return {kernel.mean_coeff, kernel.std};
  }

  Tensor start(const Tensor& x, std::span<const Coefficient> numbers, const Noise& noise) const final {
    check(x.shape() == data_.shape(), "constraint: made for batches ", data_.shape(), ", got ", x.shape());
    return options_.reference_compat ? original_start(x, data_) : Constraint::start(x, numbers, noise);
  }

  State impose(const State& state, std::span<const Coefficient> numbers, const Noise& noise) const final {
    AffineTerms perturbed{.x = data_};
    perturbed.a = numbers[0], perturbed.c = numbers[1];
    perturbed.noise = noise;
    perturbed.want_mean = options_.reference_compat && state.x_mean.defined();
    const AffineResult known = affine_step(perturbed);
    State result{replaced(state.x, known.y), {}};
    if (state.x_mean.defined())
      result.x_mean =
          options_.reference_compat ? replaced(result.x, known.mean) : replaced(state.x_mean, data_);
    return result;
  }

 protected:
  /// x with the known part of `known`.
  virtual Tensor replaced(const Tensor& x, const Tensor& known) const = 0;
  /// Where the original implementation begins.
  virtual Tensor original_start(const Tensor& x, const Tensor& data) const { return replaced(x, data); }

 private:
  const SDE& sde_;
  Tensor data_;
  ConstraintOptions options_;
};

class Inpainting final : public KnownPart {
 public:
  Inpainting(const SDE& sde, const Tensor& data, const Tensor& mask, const ConstraintOptions& options)
      : KnownPart(sde, data, options), mask_(mask) {}

 private:
  Tensor replaced(const Tensor& x, const Tensor& known) const override {
    return replace_where(mask_, x, known);
  }

  Tensor mask_;  // f32, the shape of an image
};

class Colorization final : public KnownPart {
 public:
  using KnownPart::KnownPart;

 private:
  Tensor replaced(const Tensor& x, const Tensor& known) const override {
    return replace_channel_mean(x, known);
  }
  /// The original masks the noise before it changes to the basis of colours: this takes the first colour
  /// away, not the grey value, to which the known one is then added.
  Tensor original_start(const Tensor& x, const Tensor& data) const override {
    const Tensor nothing = Tensor::zeros(x.context(), x.shape());
    std::vector<float> first(static_cast<std::size_t>(x.numel() / x.shape()[0]), 0.0f);
    for (std::size_t e = 0; e < first.size(); e += static_cast<std::size_t>(x.shape()[3])) first[e] = 1.0f;
    const Shape size{static_cast<std::int64_t>(first.size())};
    const Tensor mask = Tensor::from_host(x.context(), std::span<const float>(first), size);
    AffineTerms sum{.x = replace_where(mask, x, nothing), .score = replace_channel_mean(nothing, data)};
    sum.b = 1.0;
    return affine_step(sum).y;
  }
};

void check_data(const char* what, const Tensor& data) {
  check(data.defined() && data.shape().rank() == 4 && data.numel() > 0 && data.dtype() == DType::f32, what,
        ": data must be an f32 batch [N, H, W, C], got ", data.dtype(), ' ', data.shape());
}

/// The mask [H, W, C] of a mask [H, W] or [H, W, C].
Tensor whole_mask(const Tensor& mask, const Shape& batch) {
  const Shape plane{batch[1], batch[2]}, image{batch[1], batch[2], batch[3]};
  check(mask.defined() && (mask.shape() == plane || mask.shape() == image), "inpainting: mask must be ",
        plane, " or ", image, ", got ", mask.shape());
  const std::vector<double> given = mask.to_host_f64();
  for (const double value : given)
    check(value == 0.0 || value == 1.0, "inpainting: mask must be 1 where images are known and 0 elsewhere, ",
          "got ", value);
  const auto known = std::count(given.begin(), given.end(), 1.0);
  check(known > 0, "inpainting: the mask knows nothing; mark what is to be kept, or sample without a mask");
  check(known < std::ssize(given), "inpainting: the mask knows everything; leave out what is to be painted");
  const auto repeat = static_cast<std::size_t>(image.numel()) / given.size();
  std::vector<double> whole;
  for (const double value : given) whole.insert(whole.end(), repeat, value);
  return Tensor::from_host(mask.context(), std::span<const double>(whole), image, DType::f32);
}

}  // namespace

std::shared_ptr<const Constraint> inpainting(const SDE& sde, const Tensor& data, const Tensor& mask,
                                             const ConstraintOptions& options) {
  check_data("inpainting", data);
  return std::make_shared<Inpainting>(sde, data, whole_mask(mask, data.shape()), options);
}

std::shared_ptr<const Constraint> colorization(const SDE& sde, const Tensor& data,
                                               const ConstraintOptions& options) {
  check_data("colorization", data);
  check(data.shape()[3] >= 2, "colorization: images of one channel have no colours; got ", data.shape());
  return std::make_shared<Colorization>(sde, data, options);
}

}  // namespace sgm
