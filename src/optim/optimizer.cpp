#include "sgm/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/training.h"

namespace sgm {

double ema_decay(double rate, std::int64_t n) {
  return std::min(rate, (1.0 + static_cast<double>(n)) / (10.0 + static_cast<double>(n)));
}

namespace {

/// A tensor's memory from element number `first` on.
Buffer from(Buffer all, std::int64_t first) {
  if (all) all.data = all.as<char>() + first * static_cast<std::int64_t>(size_of(all.dtype));
  return all;
}

/// Elements that a late gradient is made of at once where it can be made in parts: whole chunks and whole
/// rows.
std::int64_t elements_at_once(std::int64_t row) {
  constexpr std::int64_t kAbout = 1 << 18;
  const std::int64_t both = std::lcm(row, ParameterList::kChunk);
  return std::max<std::int64_t>(1, kAbout / both) * both;
}

}  // namespace

/// Some of the parameters, in a list on the device.
struct Optimizer::Listed {
  std::vector<Gradient> gradients = {};  // alive until the list has been used
  std::vector<ParameterList::Entry> entries = {};
  ParameterList list = {};
  Tensor table = {};

  /// The parameter, or those of its elements from `first` on that the gradient is of.
  void add(Slot& slot, Gradient gradient, std::int64_t first = 0) {
    Tensor& value = slot.parameter.var->value();
    const std::int64_t n = gradient.defined() ? gradient.tensor.numel() : value.numel();
    entries.push_back({from(value.buffer(), first), from(slot.m.buffer(), first),
                       from(slot.v.buffer(), first), from(slot.ema.buffer(), first),
                       from(value.low_buffer(), first), gradient.tensor.const_buffer(), gradient.factor, n, 0,
                       value.low_factor()});
    gradients.push_back(std::move(gradient));
    list.append(entries.back());
  }
  /// The list, once everything is added.
  ParameterList on_device(Context& context) {
    table = Tensor::table(context, std::span<const ParameterList::Entry>(entries));
    list.entries = reinterpret_cast<const ParameterList::Entry*>(table.data<double>());
    return list;
  }
};

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
  std::int64_t chunks = 0;
  for (const Slot& slot : slots_) chunks += ParameterList::chunks_of(slot.m.numel());
  squares_ = Tensor::zeros(context, {chunks}, DType::f64);
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

void Optimizer::for_each_late(const std::function<void(const ParameterList&)>& execute) {
  Context& context = schedule_.context();
  std::int64_t first_chunk = 0;
  for (Slot& slot : slots_) {
    const Shape& shape = slot.m.shape();
    if (const LateGradient* late = slot.parameter.var->late_gradient()) {
      const std::int64_t row = shape.numel() / shape[0],
                         rows = late->by_rows ? elements_at_once(row) / row : shape[0];
      for (std::int64_t first = 0; first < shape[0]; first += rows) {
        Listed part{.list = {.first_chunk = first_chunk + first * row / ParameterList::kChunk}};
        part.add(slot, late->make(first, std::min(rows, shape[0] - first)), first * row);
        execute(part.on_device(context));
      }
    }
    first_chunk += ParameterList::chunks_of(shape.numel());
  }
}

void Optimizer::update() {
  Context& context = schedule_.context();
  Listed at_hand;  // with gaps where gradients are late
  bool any_late = false;
  for (Slot& slot : slots_) {
    const Var& var = *slot.parameter.var;
    const bool is_late = var.late_gradient() != nullptr;
    any_late |= is_late;
    at_hand.add(slot, is_late ? Gradient{} : var.gradient());
  }
  const ParameterList list = at_hand.on_device(context);
  // Late gradients are made twice: for the norm, and for the step.
  const auto squares = [&](const ParameterList& part) {
    run(GradientNorm{part, squares_.buffer(), squares_.numel()}, context);
  };
  if (any_late) squares(list), for_each_late(squares);
  run(GradientNorm{any_late ? ParameterList{} : list, squares_.buffer(), squares_.numel(),
                   squared_norm_.buffer(), norm_sum_.buffer()},
      context);
  const auto adam = [&](const ParameterList& part) {
    run(AdamUpdate{part, reinterpret_cast<const AdamSchedule*>(schedule_.data<double>()),
                   squared_norm_.const_buffer(), config_.grad_clip, config_.beta1, config_.beta2, config_.eps,
                   config_.weight_decay},
        context);
  };
  adam(list);
  for_each_late(adam);
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
