#include "sgm/score/score_model.h"

#include "sgm/autograd/ops.h"

namespace sgm {

ScoreFn score_function(ScoreNetwork& network, const SDE& sde, bool continuous, DType compute) {
  network.set_requires_grad(false);
  const auto numbers = [&sde, continuous](const ImageTime& at) {
    return continuous ? ScoreFn::Numbers{sde.noise_label(at.t), sde.score_scale(at.t)}
                      : ScoreFn::Numbers{sde.discrete_label(at), sde.discrete_score_scale(at)};
  };
  const auto evaluate = [&network, compute](const Tensor& x, const Tensor& label, const Tensor& scale) {
    const ForwardMode mode{compute, false, {}};
    return scale_images(network.forward(Var(x), label, mode), scale).value();
  };
  return ScoreFn(numbers, evaluate);
}

}  // namespace sgm
