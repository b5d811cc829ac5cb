// Losses that need neither the perturbation kernel nor its score: only samples of x_t.

#include <vector>

#include "kernels/elementwise.h"
#include "kernels/score_matching.h"
#include "score/loss_family.h"
#include "sgm/autograd/ops.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

/// With n the network's output and s = scale n the score, everything is in units of the noise, so that
/// nothing is divided by a small std: a = scale std, and the derivative of n is taken along std v,
///   std^2 (v^T grad s v + |s|^2 / 2) = a v^T (grad n std v) + |a n|^2 / 2.
class DirectionalScoreMatching : public Loss {
 public:
  using Loss::Loss;

  LossTerms terms(double u) const override {
    LossTerms terms = Loss::terms(u);
    terms.a /= terms.b, terms.weight *= terms.b * terms.b, terms.b = 1.0;
    return terms;
  }

 protected:
  struct Along {
    TangentNetwork::Tangent at;
    Tensor v;  // the directions, of unit length on average; copies of the batch
  };
  LossResult loss_of(const Along& along, const LossInputs& inputs, bool projected) const {
    const Tensor &output = along.at.output.value(), &tangent = along.at.tangent.value();
    const std::int64_t n = output.shape()[0];
    Context& context = output.context();
    Tensor per_image = Tensor::empty(context, {n}, DType::f64);
    Tensor doutput = Tensor::empty(context, output.shape(), output.dtype());
    Tensor dtangent = Tensor::empty(context, tangent.shape(), tangent.dtype());
    run(DirectionalLoss{output.buffer(), tangent.buffer(), along.v.buffer(), inputs.a.buffer(),
                        inputs.weight.buffer(), per_image.buffer(), doutput.buffer(), dtangent.buffer(), n,
                        output.numel() / n, tangent.numel() / output.numel(), projected, reduces_to_mean()},
        context);
    Tensor mean = Tensor::empty(context, {1}, DType::f64);
    run(SumRows{per_image.buffer(), mean.buffer(), n, 1, 1.0 / static_cast<double>(n)}, context);
    return {mean_loss("directional_loss", mean, {along.at.output, along.at.tangent}, {doutput, dtangent}),
            per_image};
  }
  /// unit v, for every image its own unit.
  static Tensor scaled(const Tensor& v, const LossInputs& inputs) {
    return affine_step({.x = v, .a = inputs.unit}).y;
  }
};

class SlicedLoss final : public DirectionalScoreMatching {
 public:
  SlicedLoss(const SDE& sde, const TrainingConfig& config, bool projected)
      : DirectionalScoreMatching(sde, config), projected_(projected) {}

 private:
  bool draws_directions() const override { return true; }
  LossResult of_perturbed(const LossNetwork& network, const Tensor& x, const LossInputs& inputs,
                          const Draws& draws) const override {
    return loss_of({network.tangent(x, scaled(draws.v, inputs), inputs.label), draws.v}, inputs, projected_);
  }

  bool projected_;
};

/// Hyvarinen's: the sum over all axes of the sliced loss is tr grad s + |s|^2 / 2.
class ExplicitLoss final : public DirectionalScoreMatching {
 public:
  using DirectionalScoreMatching::DirectionalScoreMatching;

  LossInputs create_inputs(Context& context, const Shape& batch, DType dtype) const override {
    LossInputs inputs = Loss::create_inputs(context, batch, dtype);
    const std::int64_t n = batch[0], d = n > 0 ? batch.numel() / n : 0;
    check(d <= DirectionalLoss::kMostCopies, "training.loss 'esm' evaluates one derivative for each of ", d,
          " dimensions, and allows ", DirectionalLoss::kMostCopies, "; use ssm_vr or fd_ssm");
    std::vector<float> axes(static_cast<std::size_t>(d * n * d));
    for (std::int64_t row = 0; row < d * n; ++row) axes[static_cast<std::size_t>(row * d + row / n)] = 1.0f;
    inputs.directions =
        Tensor::from_host(context, std::span<const float>(axes), with_batch(batch, d * n), dtype);
    return inputs;
  }

 private:
  bool draws_directions() const override { return false; }
  LossResult of_perturbed(const LossNetwork& network, const Tensor& x, const LossInputs& inputs,
                          const Draws&) const override {
    const Tensor& axes = inputs.directions;
    // Derivatives along axes of length one; the unit goes into their images instead.
    TangentNetwork::Tangent at = network.tangent(x, axes, inputs.label);
    at.tangent = multiply(scale_images(Var(ones_like(x)), inputs.unit), at.tangent);
    return loss_of({at, axes}, inputs, true);
  }
  static Tensor ones_like(const Tensor& x) { return Tensor::full(x.context(), x.shape(), 1.0, x.dtype()); }
};

/// v^T grad n v by central differences over fd_step in units of the noise, and the mean of both outputs as n:
/// two evaluations, with the same dropout, of any network.
class DifferenceLoss final : public DirectionalScoreMatching {
 public:
  DifferenceLoss(const SDE& sde, const TrainingConfig& config)
      : DirectionalScoreMatching(sde, config), step_(config.fd_step) {}

 private:
  bool draws_directions() const override { return true; }
  LossResult of_perturbed(const LossNetwork& network, const Tensor& x, const LossInputs& inputs,
                          const Draws& draws) const override {
    const Tensor direction = scaled(draws.v, inputs);
    const auto output_at = [&](double step) {
      return network.forward(affine_step({.x = x, .score = direction, .b = step}).y, inputs.label);
    };
    const Var after = output_at(step_), before = output_at(-step_);
    const double slope = 0.5 / step_;
    return loss_of({{add(after, before, 0.5, 0.5), add(after, before, slope, -slope)}, draws.v}, inputs,
                   false);
  }

  double step_;
};

}  // namespace

std::unique_ptr<Loss> create_sliced_loss(const SDE& sde, const TrainingConfig& config) {
  return std::make_unique<SlicedLoss>(sde, config, true);
}

std::unique_ptr<Loss> create_variance_reduced_loss(const SDE& sde, const TrainingConfig& config) {
  return std::make_unique<SlicedLoss>(sde, config, false);
}

std::unique_ptr<Loss> create_explicit_loss(const SDE& sde, const TrainingConfig& config) {
  return std::make_unique<ExplicitLoss>(sde, config);
}

std::unique_ptr<Loss> create_difference_loss(const SDE& sde, const TrainingConfig& config) {
  return std::make_unique<DifferenceLoss>(sde, config);
}

}  // namespace sgm
