#include "sgm/score/loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/training.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

constexpr double kSmallestTime = 1e-5;  // closer to t = 0 the target's variance explodes

/// The mean of [N] f64 values as a [1] tensor.
Tensor mean_of(const Tensor& values) {
  Tensor mean = Tensor::empty(values.context(), {1}, DType::f64);
  const auto n = static_cast<double>(values.numel());
  run(SumRows{values.buffer(), mean.buffer(), values.numel(), 1, 1.0 / n}, values.context());
  return mean;
}

}  // namespace

DenoisingLoss::DenoisingLoss(const SDE& sde, const TrainingConfig& config)
    : sde_(sde),
      continuous_(config.continuous),
      reduce_mean_(config.reduce_mean),
      likelihood_weighting_(config.likelihood_weighting) {
  check(continuous_ || !likelihood_weighting_,
        "training.likelihood_weighting needs training.continuous = true: discrete losses have no g(t)");
  if (!continuous_) sde_.discrete_marginal(0, sde_.num_scales());
}

LossTerms DenoisingLoss::terms(double u) const {
  if (continuous_) {
    const double t = kSmallestTime + u * (1.0 - kSmallestTime);
    const double std = sde_.marginal_std(t), scale = sde_.score_scale(t), g = sde_.diffusion(t);
    const LossTerms by_variance{sde_.noise_label(t), sde_.mean_coeff(t), std, scale * std, 1.0, 1.0};
    if (!likelihood_weighting_) return by_variance;
    return {by_variance.label, by_variance.mean_coeff, std, scale, 1.0 / std, g * g};
  }
  const int n = sde_.num_scales();
  const int k = std::min(n - 1, static_cast<int>(u * n));
  const TimePoint at{n > 1 ? static_cast<double>(k) / (n - 1) : 1.0, k, n};
  const Marginal marginal = sde_.discrete_marginal(k, n);
  const double scale = sde_.discrete_score_scale(at);
  return {sde_.discrete_label(at), marginal.mean_coeff, marginal.std, scale * marginal.std, 1.0, 1.0};
}

LossInputs DenoisingLoss::create_inputs(Context& context, std::int64_t n) const {
  LossInputs inputs;
  for (Tensor* column :
       {&inputs.label, &inputs.mean_coeff, &inputs.std, &inputs.a, &inputs.b, &inputs.weight})
    *column = Tensor::empty(context, {n}, DType::f64);
  return inputs;
}

void DenoisingLoss::fill(LossInputs& inputs, std::span<const double> u) const {
  std::vector<LossTerms> all;
  for (const double each : u) all.push_back(terms(each));
  const auto column = [&](Tensor& to, double LossTerms::*field) {
    std::vector<double> values;
    for (const LossTerms& t : all) values.push_back(t.*field);
    to.upload(std::span<const double>(values));
  };
  column(inputs.label, &LossTerms::label);
  column(inputs.mean_coeff, &LossTerms::mean_coeff);
  column(inputs.std, &LossTerms::std);
  column(inputs.a, &LossTerms::a);
  column(inputs.b, &LossTerms::b);
  column(inputs.weight, &LossTerms::weight);
}

LossResult DenoisingLoss::evaluate(const Network& network, const Tensor& x0, const LossInputs& inputs,
                                   const Tensor& z) const {
  const std::int64_t n = x0.shape()[0];
  check(inputs.label.numel() == n && z.shape() == x0.shape(), "loss: ", inputs.label.numel(),
        " times and noise ", z.shape(), " for images ", x0.shape());
  Context& context = x0.context();
  const AffineResult perturbed =
      affine_step({.x = x0, .noise = Noise{{}, z}, .a = inputs.mean_coeff, .c = inputs.std});
  const Var output = network(perturbed.y, inputs.label);
  Tensor per_image = Tensor::empty(context, {n}, DType::f64);
  Tensor gradient = Tensor::empty(context, x0.shape(), output.value().dtype());
  run(ResidualLoss{output.value().const_buffer(), z.buffer(), inputs.a.buffer(), inputs.b.buffer(),
                   inputs.weight.buffer(), per_image.buffer(), gradient.buffer(), n, x0.numel() / n,
                   reduce_mean_},
      context);
  Var mean = record("denoising_loss", mean_of(per_image), {output},
                    [gradient](const Gradient& grad_out, InputGradients& into) {
                      Tensor scaled = Tensor::empty(gradient.context(), gradient.shape(), gradient.dtype());
                      run(ScaleRows{gradient.buffer(), grad_out.tensor.buffer(), scaled.buffer(), 1,
                                    scaled.numel(), grad_out.factor, 0.0},
                          gradient.context());
                      into.add(0, {scaled});
                    });
  return {mean, per_image};
}

LossResult DenoisingLoss::evaluate(const Network& network, const Tensor& x0, std::span<const double> u,
                                   const Tensor& z) const {
  LossInputs inputs = create_inputs(x0.context(), static_cast<std::int64_t>(u.size()));
  fill(inputs, u);
  return evaluate(network, x0, inputs, z);
}

std::vector<double> DenoisingLoss::draw(NoiseKey key, std::int64_t n) {
  key.purpose = Purpose::time;
  std::vector<double> u;
  for (std::int64_t i = 0; i < n; ++i) {
    // Philox gives (0, 1]; the far end belongs to the near one.
    const double drawn = uniform_at(key, static_cast<std::uint32_t>(i));
    u.push_back(drawn < 1.0 ? drawn : 0.0);
  }
  return u;
}

LossResult DenoisingLoss::evaluate(const Network& network, const Tensor& x0, NoiseKey key) const {
  key.purpose = Purpose::noise;
  return evaluate(network, x0, draw(key, x0.shape()[0]),
                  normal(x0.context(), x0.shape(), key, 1.0, x0.dtype()));
}

}  // namespace sgm
