#include "sgm/optim/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/training.h"

namespace sgm {

double ema_decay(double rate, std::int64_t n) {
  return std::min(rate, (1.0 + static_cast<double>(n)) / (10.0 + static_cast<double>(n)));
}

Optimizer::Optimizer(ScoreNetwork& network, const OptimConfig& config, double ema_rate)
    : config_(config), ema_rate_(ema_rate) {
  for (Parameter& parameter : network.parameters()) {
    if (!parameter.trainable) continue;
    const Tensor& value = parameter.var->value();
    const Tensor m = Tensor::zeros(value.context(), value.shape(), value.dtype());
    slots_.push_back({parameter, m, m.clone(), value.clone()});
  }
}

double Optimizer::gradient_norm() const {
  double sum = 0;
  for (const Slot& slot : slots_) {
    const Tensor& grad = slot.parameter.var->grad();
    if (!grad.defined()) continue;
    Tensor squares = Tensor::empty(grad.context(), {1}, DType::f64);
    run(SumOfSquares{grad.buffer(), squares.buffer(), grad.numel()}, grad.context());
    sum += squares.item();
  }
  return std::sqrt(sum);
}

StepReport Optimizer::step() {
  StepReport report{gradient_norm(), config_.lr};
  if (!std::isfinite(report.grad_norm)) {
    for (Slot& slot : slots_) slot.parameter.var->zero_grad();
    return report;
  }
  if (config_.warmup > 0)
    report.lr *= std::min(static_cast<double>(completed_) / static_cast<double>(config_.warmup), 1.0);
  const double clip =
      config_.grad_clip >= 0 ? std::min(1.0, config_.grad_clip / (report.grad_norm + 1e-6)) : 1.0;
  ++completed_;
  const auto t = static_cast<double>(completed_);
  AdamStep op{};
  op.gradient_scale = clip;
  op.lr = report.lr;
  op.beta1 = config_.beta1;
  op.beta2 = config_.beta2;
  op.eps = config_.eps;
  op.weight_decay = config_.weight_decay;
  op.bias1 = 1.0 - std::pow(config_.beta1, t);
  op.bias2 = 1.0 - std::pow(config_.beta2, t);
  op.ema_decay = ema_decay(ema_rate_, completed_);
  for (Slot& slot : slots_) {
    Tensor& value = slot.parameter.var->value();
    const Tensor& grad = slot.parameter.var->grad();
    if (!grad.defined()) continue;  // a parameter that the network does not use
    op.p = value.buffer();
    op.m = slot.m.buffer();
    op.v = slot.v.buffer();
    op.ema = slot.ema.buffer();
    op.g = grad.buffer();
    op.n = value.numel();
    run(op, value.context());
    value.mark_modified();
    slot.ema.mark_modified();
    slot.parameter.var->zero_grad();
  }
  return report;
}

void Optimizer::swap_ema() {
  for (Slot& slot : slots_) std::swap(slot.parameter.var->value(), slot.ema);
}

}  // namespace sgm
