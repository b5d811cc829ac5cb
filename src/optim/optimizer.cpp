#include "sgm/optim/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/training.h"

namespace sgm {

double ema_decay(double rate, std::int64_t n) {
  return std::min(rate, (1.0 + static_cast<double>(n)) / (10.0 + static_cast<double>(n)));
}

Optimizer::Optimizer(Module& network, const OptimConfig& config, double ema_rate)
    : config_(config), ema_rate_(ema_rate) {
  for (Parameter& parameter : network.parameters()) {
    if (!parameter.trainable) continue;
    const Tensor& value = parameter.var->value();
    const Tensor m = Tensor::zeros(value.context(), value.shape(), value.dtype());
    slots_.push_back({parameter, m, m.clone(), value.clone()});
  }
  check(!slots_.empty(), "optimizer: the network has no trainable parameters");
  Context& context = slots_.front().m.context();
  schedule_ = Tensor::zeros(context, {sizeof(AdamSchedule) / sizeof(double)}, DType::f64);
  squared_norm_ = Tensor::zeros(context, {1}, DType::f64);
  norm_sum_ = Tensor::zeros(context, {1}, DType::f64);
}

void Optimizer::begin_step() {
  lr_ = config_.lr;
  if (config_.warmup > 0)
    lr_ *= std::min(static_cast<double>(completed_) / static_cast<double>(config_.warmup), 1.0);
  ++completed_;
  const auto t = static_cast<double>(completed_);
  const double schedule[] = {lr_, 1.0 - std::pow(config_.beta1, t), 1.0 - std::pow(config_.beta2, t),
                             ema_decay(ema_rate_, completed_)};
  schedule_.upload(std::span<const double>(schedule));
}

void Optimizer::update() {
  Context& context = schedule_.context();
  std::vector<ParameterList::Entry> entries;
  ParameterList list{};
  for (Slot& slot : slots_) {
    Tensor& value = slot.parameter.var->value();
    const Gradient& grad = slot.parameter.var->gradient();
    entries.push_back({value.buffer(), slot.m.buffer(), slot.v.buffer(), slot.ema.buffer(),
                       value.low_buffer(), grad.tensor.buffer(), grad.factor, value.numel(), 0,
                       value.low_factor()});
    list.append(entries.back());
  }
  const Tensor table = Tensor::table(context, std::span<const ParameterList::Entry>(entries));
  list.entries = reinterpret_cast<const ParameterList::Entry*>(table.data<double>());
  run(GradientNorm{list, squared_norm_.buffer(), norm_sum_.buffer()}, context);
  run(AdamUpdate{list, reinterpret_cast<const AdamSchedule*>(schedule_.data<double>()),
                 squared_norm_.const_buffer(), config_.grad_clip, config_.beta1, config_.beta2, config_.eps,
                 config_.weight_decay},
      context);
  zero_grad();
}

void Optimizer::zero_grad() {
  for (Slot& slot : slots_) slot.parameter.var->zero_grad();
}

void Optimizer::end_step() {
  for (Slot& slot : slots_) {
    slot.parameter.var->value().mark_modified(true);
    slot.ema.mark_modified();
  }
}

StepReport Optimizer::report() {
  const double all = norm_sum_.item();
  norm_sum_.fill(0.0);
  return {std::isfinite(all) ? std::sqrt(squared_norm_.item()) : all, lr_};
}

StepReport Optimizer::step() {
  begin_step();
  update();
  end_step();
  return report();
}

void Optimizer::swap_ema() {
  for (Slot& slot : slots_) std::swap(slot.parameter.var->value(), slot.ema);
}

}  // namespace sgm
