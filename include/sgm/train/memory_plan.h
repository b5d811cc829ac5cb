#pragma once
// What a training step takes of a device's memory, before the first one runs: the same step on a dry device,
// whose allocator sees the same requests in the same order.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "sgm/core/config.h"
#include "sgm/train/trainee.h"

namespace sgm {

/// Bytes of tensors, and the settings that they belong to.
struct MemoryPlan {
  int micro_batch = 0;
  bool recompute = false, late_gradients = false;
  std::size_t state = 0;        // kept between steps: weights, averages, Adam's moments, copies of weights
  std::size_t activations = 0;  // kept for gradients at the end of a forward pass
  std::size_t peak = 0;         // in use at the most
  std::size_t held = 0;         // taken from the system at the most: blocks that wait for their next use too

  /// The configuration with these settings.
  Config apply(Config config) const;
  /// "1.92 GiB (0.94 weights and optimiser, 0.71 activations, 0.27 gradients and temporary)".
  std::string text() const;
};

/// Makes the training of a configuration on a device.
using MakeTrainee = std::function<std::unique_ptr<Trainee>(const Config&, Context&)>;
/// What a run does between steps on the same device, e.g. draw samples; may be absent.
using BetweenSteps = std::function<void(Trainee&)>;

/// The plan of a configuration as it is. device: cpu or cuda; on GPUs the workspaces of the vendor's
/// libraries count with the most that they may take, so that the plan is an upper bound.
MemoryPlan plan_memory(const Config& config, const std::string& device, int threads, const MakeTrainee& make,
                       const BetweenSteps& between = {});

/// The plan of a configuration with other settings.
using PlanMemory = std::function<MemoryPlan(const Config&)>;

/// The first plan that holds at most `limit` bytes (0: whatever it takes), from the cheapest in time: as
/// configured, with recomputation, with late gradients, with both, and the first two in micro-batches of a
/// half, a quarter ... down to one image.
/// Throws Error naming the least that is possible.
MemoryPlan fit_memory(const Config& config, std::size_t limit, const PlanMemory& plan);

}  // namespace sgm
