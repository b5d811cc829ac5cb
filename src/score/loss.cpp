#include "sgm/score/loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/score_matching.h"
#include "kernels/training.h"
#include "score/loss_family.h"
#include "sgm/core/registry.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

Tensor random_signs(Context& context, const Shape& shape, const NoiseKey& key, DType dtype) {
  Tensor y = Tensor::empty(context, shape, dtype);
  const std::int64_t n = shape[0];
  run(RandomSigns{y.buffer(), n, n > 0 ? shape.numel() / n : 0, key}, context);
  return y;
}

}  // namespace

double training_time(double u) {
  constexpr double kSmallest = 1e-5;
  return kSmallest + u * (1.0 - kSmallest);
}

LossTerms plain_terms(double std) {
  const double unit = std > 0 ? std : 1.0;
  return {.label = 1.0, .mean_coeff = 1.0, .std = std, .a = unit, .b = 1.0, .weight = 1.0, .unit = unit};
}

// ---- networks ---------------------------------------------------------------------------------------------

LossNetwork::LossNetwork(ScoreNetwork& network, const ForwardMode& mode)
    : forward_([&network, mode](const Tensor& x, const Tensor& label) {
        return network.forward(Var(x), label, mode);
      }) {
  if (auto* twice = dynamic_cast<TangentNetwork*>(&network))
    tangent_ = [twice, mode](const Tensor& x, const Tensor& directions, const Tensor& label) {
      return twice->forward_tangent(Var(x), directions, label, mode);
    };
}

TangentNetwork::Tangent LossNetwork::tangent(const Tensor& x, const Tensor& directions,
                                             const Tensor& label) const {
  check(bool(tangent_), "loss: the network has no tangents");
  return tangent_(x, directions, label);
}

// ---- noise levels -----------------------------------------------------------------------------------------

Loss::Loss(const SDE& sde, const TrainingConfig& config)
    : sde_(sde),
      continuous_(config.continuous),
      reduce_mean_(config.reduce_mean),
      likelihood_weighting_(config.likelihood_weighting) {
  check(continuous_ || !likelihood_weighting_,
        "training.likelihood_weighting needs training.continuous = true: discrete losses have no g(t)");
  if (!continuous_) sde_.discrete_marginal(0, sde_.num_scales());
}

TimePoint Loss::time_at(double u) const {
  if (continuous_) return {.t = training_time(u)};
  const int n = sde_.num_scales(), k = std::min(n - 1, static_cast<int>(u * n));
  return {n > 1 ? static_cast<double>(k) / (n - 1) : 1.0, k, n};
}

LossTerms Loss::terms(double u) const {
  if (continuous_) {
    const double t = training_time(u);
    const double std = sde_.marginal_std(t), scale = sde_.score_scale(t), g = sde_.diffusion(t);
    const LossTerms by_variance{sde_.noise_label(t), sde_.mean_coeff(t), std, scale * std, 1.0, 1.0, std};
    if (!likelihood_weighting_) return by_variance;
    return {by_variance.label, by_variance.mean_coeff, std, scale, 1.0 / std, g * g, std};
  }
  const TimePoint at = time_at(u);
  const Marginal marginal = sde_.discrete_marginal(at.k, at.num_scales);
  const double scale = sde_.discrete_score_scale(at);
  return {sde_.discrete_label(at),
          marginal.mean_coeff,
          marginal.std,
          scale * marginal.std,
          1.0,
          1.0,
          marginal.std};
}

namespace {

/// The columns of a batch's terms.
constexpr struct {
  Tensor LossInputs::*column;
  double LossTerms::*field;
} kColumns[] = {{&LossInputs::label, &LossTerms::label}, {&LossInputs::mean_coeff, &LossTerms::mean_coeff},
                {&LossInputs::std, &LossTerms::std},     {&LossInputs::a, &LossTerms::a},
                {&LossInputs::b, &LossTerms::b},         {&LossInputs::weight, &LossTerms::weight},
                {&LossInputs::unit, &LossTerms::unit}};

}  // namespace

LossInputs Loss::create_inputs(Context& context, const Shape& batch, DType) const {
  LossInputs inputs;
  for (const auto& [column, field] : kColumns)
    inputs.*column = Tensor::empty(context, {batch[0]}, DType::f64);
  return inputs;
}

void Loss::fill(LossInputs& inputs, std::span<const double> u) const {
  std::vector<LossTerms> all;
  for (const double each : u) all.push_back(terms(each));
  fill(inputs, std::span<const LossTerms>(all));
}

void Loss::fill(LossInputs& inputs, std::span<const LossTerms> all) const {
  std::vector<double> values;
  for (const auto& [column, field] : kColumns) {
    values.clear();
    for (const LossTerms& each : all) values.push_back(each.*field);
    (inputs.*column).upload(std::span<const double>(values));
  }
}

std::vector<double> Loss::draw(NoiseKey key, std::int64_t n) {
  key.purpose = Purpose::time;
  std::vector<double> u;
  for (std::int64_t i = 0; i < n; ++i) {
    // Philox gives (0, 1]; the far end belongs to the near one.
    const double drawn = uniform_at(key, static_cast<std::uint32_t>(i));
    u.push_back(drawn < 1.0 ? drawn : 0.0);
  }
  return u;
}

// ---- evaluation -------------------------------------------------------------------------------------------

LossResult Loss::evaluate(const LossNetwork& network, const Tensor& x0, const LossInputs& inputs,
                          const Draws& draws) const {
  check(inputs.label.numel() == x0.shape()[0] && (!draws.z.defined() || draws.z.shape() == x0.shape()),
        "loss: ", inputs.label.numel(), " times and noise ", draws.z.shape(), " for images ", x0.shape());
  check(!draws_directions() || (draws.v.defined() && draws.v.shape() == x0.shape()),
        "loss: directions must be given like the images ", x0.shape());
  const AffineResult perturbed =
      affine_step({.x = x0, .noise = Noise{draws.key, draws.z}, .a = inputs.mean_coeff, .c = inputs.std});
  return of_perturbed(network, perturbed.y, inputs, draws);
}

LossResult Loss::evaluate(const LossNetwork& network, const Tensor& x0, const LossInputs& inputs,
                          NoiseKey key) const {
  key.purpose = Purpose::noise;
  Draws draws{.z = {}, .v = {}, .key = key};
  key.purpose = Purpose::direction;
  if (draws_directions()) draws.v = random_signs(x0.context(), x0.shape(), key, x0.dtype());
  return evaluate(network, x0, inputs, draws);
}

LossResult Loss::evaluate(const LossNetwork& network, const Tensor& x0, std::span<const double> u,
                          const Draws& draws) const {
  LossInputs inputs = create_inputs(x0.context(), with_batch(x0.shape(), std::ssize(u)), x0.dtype());
  fill(inputs, u);
  return evaluate(network, x0, inputs, draws);
}

LossResult Loss::evaluate(const LossNetwork& network, const Tensor& x0, NoiseKey key) const {
  LossInputs inputs = create_inputs(x0.context(), x0.shape(), x0.dtype());
  fill(inputs, draw(key, x0.shape()[0]));
  return evaluate(network, x0, inputs, key);
}

Var mean_loss(std::string_view op, const Tensor& mean, std::vector<Var> outputs,
              std::vector<Tensor> gradients) {
  return record(op, mean, std::move(outputs),
                [gradients = std::move(gradients)](const Gradient& grad_out, InputGradients& into) {
                  for (std::size_t i = 0; i < gradients.size(); ++i) {
                    if (!into.wanted(i)) continue;
                    const Tensor& gradient = gradients[i];
                    if (grad_out.is_one) {
                      into.add(i, {gradient, grad_out.factor});
                      continue;
                    }
                    Tensor scaled = Tensor::empty(gradient.context(), gradient.shape(), gradient.dtype());
                    run(ScaleRows{gradient.buffer(), grad_out.tensor.buffer(), scaled.buffer(), 1,
                                  scaled.numel(), grad_out.factor, 0.0},
                        gradient.context());
                    into.add(i, {scaled});
                  }
                });
}

LossResult DenoisingLoss::of_perturbed(const LossNetwork& network, const Tensor& x, const LossInputs& inputs,
                                       const Draws& draws) const {
  const std::int64_t n = x.shape()[0];
  const Var output = network.forward(x, inputs.label);
  Tensor per_image = Tensor::empty(x.context(), {n}, DType::f64);
  Tensor mean = Tensor::empty(x.context(), {1}, DType::f64);
  Tensor gradient = Tensor::empty(x.context(), x.shape(), output.value().dtype());
  run(ResidualLoss{.net = output.value().const_buffer(),
                   .z = {draws.key, draws.z.buffer()},
                   .a = inputs.a.buffer(),
                   .b = inputs.b.buffer(),
                   .weight = inputs.weight.buffer(),
                   .loss = per_image.buffer(),
                   .mean = mean.buffer(),
                   .dnet = gradient.buffer(),
                   .n = n,
                   .per = x.numel() / n,
                   .reduce_mean = reduces_to_mean()},
      x.context());
  return {mean_loss("denoising_loss", mean, {output}, {gradient}), per_image};
}

// ---- table ------------------------------------------------------------------------------------------------

namespace {

std::unique_ptr<Loss> create_denoising(const SDE& sde, const TrainingConfig& config) {
  return std::make_unique<DenoisingLoss>(sde, config);
}

constexpr struct {
  const char* name;
  std::unique_ptr<Loss> (*create)(const SDE&, const TrainingConfig&);
  bool differentiates_twice;
} kLosses[] = {{"dsm", create_denoising, false},
               {"fd_ssm", create_difference_loss, false},
               {"ssm", create_sliced_loss, true},
               {"ssm_vr", create_variance_reduced_loss, true},
               {"esm", create_explicit_loss, true}};

}  // namespace

std::unique_ptr<Loss> create_loss(const SDE& sde, const TrainingConfig& config, const ScoreNetwork& network) {
  const auto& entry = find_entry(kLosses, config.loss, "training.loss");
  check(!entry.differentiates_twice || dynamic_cast<const TangentNetwork*>(&network), "training.loss '",
        config.loss,
        "' differentiates the network twice, which only model.name = mlp offers; use dsm or fd_ssm");
  return entry.create(sde, config);
}

std::vector<std::string> loss_names() { return names_of(kLosses); }

}  // namespace sgm
