#pragma once
// The original's optimiser: warm-up, gradient clipping, Adam, exponential moving average of the weights.

#include <cstdint>
#include <functional>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/nn/module.h"

namespace sgm {

struct ParameterList;

/// Decay of the moving average at its n-th update (n from 1): min(rate, (1 + n) / (10 + n)).
double ema_decay(double rate, std::int64_t n);

/// What a step did.
struct StepReport {
  double grad_norm = 0;  // before clipping; not finite if that of any step since the last report was not
  double lr = 0;
};

/// One step, in the original's order: lr = config.lr min(step / warmup, 1) with `step` counting completed
/// steps, so that the very first update moves nothing; gradients times min(1, grad_clip / (norm + 1e-6));
/// Adam; EMA.
class Optimizer {
 public:
  /// Moments start at zero, the moving average at the weights. The network must outlive the optimiser.
  Optimizer(Module& network, const OptimConfig& config, double ema_rate);

  /// Uses and clears the gradients. A norm that is not finite leaves weights, moments and averages untouched.
  StepReport step();

  /// The parts of step(). zero_grad() forgets gradients; begin_step() counts the step and hands its numbers
  /// to the device; update() launches the work, which reads only those, so that it may be captured and
  /// replayed; end_step() tells that the weights have changed; report() waits for the device.
  void zero_grad();
  void begin_step();
  void update();
  void end_step();
  StepReport report();

  std::int64_t completed_steps() const { return completed_; }
  void set_completed_steps(std::int64_t steps) { completed_ = steps; }

  /// State of one trainable parameter, all of its shape.
  struct Slot {
    Parameter parameter;
    Tensor m, v, ema;
  };
  std::vector<Slot>& slots() { return slots_; }

  /// Exchanges weights and moving averages: networks are sampled and evaluated with the latter.
  void swap_ema();

 private:
  struct Listed;

  /// Makes every late gradient, by parts, and calls execute(part) with each in a list of its own.
  void for_each_late(const std::function<void(const ParameterList&)>& execute);

  OptimConfig config_;
  double ema_rate_;
  std::int64_t completed_ = 0;
  double lr_ = 0;  // of the step begun last
  std::vector<Slot> slots_;
  Tensor schedule_;      // AdamSchedule
  Tensor squares_;       // f64: of each chunk of the gradients of the last update, in the order of slots
  Tensor squared_norm_;  // [1] f64: of all of them
  Tensor norm_sum_;      // [1] f64: squared norms since the last report
};

}  // namespace sgm
