#pragma once
// Chains of updates along a grid of times: what predictor-corrector sampling and annealed Langevin dynamics
// have in common.

#include <span>
#include <vector>

#include "sgm/sampling/sampler.h"

namespace sgm {

/// One of the updates at every time, and the purpose of its noise.
struct Slot {
  const Updater& updater;
  Purpose purpose;
};

/// Runs the updates of `slots` in turn at every time of `grid`, from `start` on, on which the request's
/// constraint is imposed at first and after every update. `denoise`: the result is the last update's x_mean.
SampleResult run_chain(std::span<const Slot> slots, std::span<const TimePoint> grid, bool denoise,
                       Context& context, const ScoreFn& score, const SampleRequest& request,
                       const Tensor& start);

}  // namespace sgm
