#include "sgm/score/score_model.h"

#include <vector>

#include "sgm/autograd/ops.h"

namespace sgm {

ScoreFn score_function(ScoreNetwork& network, const SDE& sde, bool continuous, DType compute) {
  network.set_requires_grad(false);
  return [&network, &sde, continuous, compute](const Tensor& x, std::span<const ImageTime> times) {
    std::vector<double> labels, scales;
    for (const ImageTime& at : times) {
      labels.push_back(continuous ? sde.noise_label(at.t) : sde.discrete_label(at));
      scales.push_back(continuous ? sde.score_scale(at.t) : sde.discrete_score_scale(at));
    }
    const Shape n{x.shape()[0]};
    const Tensor label = Tensor::from_host(x.context(), std::span<const double>(labels), n);
    const Tensor scale = Tensor::from_host(x.context(), std::span<const double>(scales), n);
    const ForwardMode mode{compute, false, {}};
    return scale_images(network.forward(Var(x), label, mode), scale).value();
  };
}

}  // namespace sgm
