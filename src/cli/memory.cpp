#include "cli/memory.h"

#include <iostream>

#include "sgm/core/bytes.h"

namespace sgm::cli {
namespace {

/// "micro-batches of 32 of the 128 images and recomputation"; empty where nothing was changed.
std::string changes(const Config& config, const Config& chosen) {
  std::string text;
  const auto add = [&](const std::string& change) { text += (text.empty() ? "" : " and ") + change; };
  if (chosen.training.images_at_once() != config.training.images_at_once())
    add("micro-batches of " + std::to_string(chosen.training.images_at_once()) + " of the " +
        std::to_string(chosen.training.batch_size) + " images");
  if (chosen.training.recompute && !config.training.recompute) add("recomputation");
  if (chosen.training.late_gradients && !config.training.late_gradients) add("late gradients");
  return text;
}

}  // namespace

Config with_memory_plan(const Config& config, const DeviceOptions& device, const MakeTrainee& make,
                        const BetweenSteps& between) {
  const MemoryPlan plan = fit_memory(config, device.max_memory, [&](const Config& candidate) {
    return plan_memory(candidate, device.resolved(), device.threads, make, between);
  });
  const Config chosen = plan.apply(config);
  const std::string changed = changes(config, chosen);
  std::cerr << "memory: " << (device.resolved() == "cpu" ? "" : "at most ") << plan.text();
  if (!changed.empty()) std::cerr << ", with " << changed << " to fit " << format_bytes(device.max_memory);
  std::cerr << '\n';
  return chosen;
}

}  // namespace sgm::cli
