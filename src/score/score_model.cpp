#include "sgm/score/score_model.h"

#include "sgm/autograd/ops.h"

namespace sgm {

namespace {

ScoreFn::Numbers numbers_at(const SDE& sde, bool continuous, const ImageTime& at) {
  return continuous ? ScoreFn::Numbers{sde.noise_label(at.t), sde.score_scale(at.t)}
                    : ScoreFn::Numbers{sde.discrete_label(at), sde.discrete_score_scale(at)};
}

}  // namespace

ScoreFn score_function(ScoreNetwork& network, const SDE& sde, bool continuous, DType compute) {
  network.set_requires_grad(false);
  const auto numbers = [&sde, continuous](const ImageTime& at) { return numbers_at(sde, continuous, at); };
  const auto evaluate = [&network, compute](const Tensor& x, const Tensor& label, const Tensor& scale) {
    const ForwardMode mode{compute, false, {}};
    return scale_images(network.forward(Var(x), label, mode), scale).value();
  };
  return ScoreFn(numbers, evaluate);
}

ScoreProductFn score_product_function(ScoreNetwork& network, const SDE& sde, bool continuous, DType compute) {
  network.set_requires_grad(false);
  return [&network, &sde, continuous, compute](const Tensor& x, const Tensor& direction,
                                               std::span<const ImageTime> times) {
    std::vector<double> labels, scales;
    for (const ImageTime& time : times) {
      const ScoreFn::Numbers now = numbers_at(sde, continuous, time);
      labels.push_back(now.label);
      scales.push_back(now.scale);
    }
    const Shape n{x.shape()[0]};
    const Tensor label = Tensor::from_host(x.context(), std::span<const double>(labels), n);
    const Tensor scale = Tensor::from_host(x.context(), std::span<const double>(scales), n);
    const Var leaf(x.to(DType::f32), true);
    const Var score = scale_images(network.forward(leaf, label, {compute, false, {}}), scale);
    return ScoreAndProduct{score.value(), vjp(score, direction.to(DType::f32), {&leaf, 1})[0]};
  };
}

}  // namespace sgm
