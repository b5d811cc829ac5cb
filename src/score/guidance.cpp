#include "sgm/score/guidance.h"

#include <array>
#include <utility>

#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

/// What one batch is told of its times and classes, each [M] f64.
struct ClassInputs {
  Tensor scale;  // from x to images in [0, 1], but for the shift
  Tensor sigma;  // noise of those
  Tensor label;
};

ClassInputs inputs_for(Context& context, const SDE& sde, const ClassRequest& request,
                       std::span<const ImageTime> times) {
  const double half = request.centered ? 0.5 : 1.0;
  std::vector<double> scale, sigma, label;
  for (const ImageTime& at : times) {
    const bool discrete = !request.continuous && at.on_grid();
    const Marginal marginal = discrete ? sde.discrete_marginal(at.k, at.num_scales)
                                       : Marginal{sde.mean_coeff(at.t), sde.marginal_std(at.t)};
    check(at.image >= 0 && at.image < std::ssize(request.classes), "guidance: image ", at.image,
          " has no class; ", request.classes.size(), " were given");
    scale.push_back(half / marginal.mean_coeff);
    sigma.push_back(half * marginal.std / marginal.mean_coeff);
    label.push_back(request.classes[static_cast<std::size_t>(at.image)]);
  }
  const auto upload = [&](const std::vector<double>& values) {
    return Tensor::from_host(context, std::span<const double>(values), {std::ssize(values)});
  };
  return {upload(scale), upload(sigma), upload(label)};
}

}  // namespace

ScoreFn class_gradient(Classifier& classifier, const SDE& sde, ClassRequest request) {
  classifier.set_requires_grad(false);
  return
      [&classifier, &sde, request = std::move(request)](const Tensor& x, std::span<const ImageTime> times) {
        Context& context = x.context();
        const ClassInputs inputs = inputs_for(context, sde, request, times);
        const std::array leaf = {Var(x, true)};
        const Var image = affine(scale_images(leaf[0], inputs.scale), 1.0, request.centered ? 0.5 : 0.0);
        const Var logits = classifier.forward(image, inputs.sigma, {request.compute, false, {}});
        for (const int chosen : request.classes)
          check(chosen >= 0 && chosen < logits.shape()[1], "guidance: class ", chosen, " is not one of the ",
                logits.shape()[1], " of the classifier");
        const Var loss = cross_entropy(logits, inputs.label).loss;
        return vjp(loss, Tensor::full(context, loss.shape(), -1.0, DType::f64), leaf)[0];
      };
}

ScoreFn guided_score(ScoreFn score, ScoreFn gradient, double weight) {
  return [score = std::move(score), gradient = std::move(gradient), weight](
             const Tensor& x, std::span<const ImageTime> times) {
    return add(Var(score(x, times)), Var(gradient(x, times)), 1.0, weight).value();
  };
}

}  // namespace sgm
