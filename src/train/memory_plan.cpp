#include "sgm/train/memory_plan.h"

#include <algorithm>

#include "sgm/core/bytes.h"

namespace sgm {
namespace {

// The first step makes what later ones keep; on a GPU a graph is captured after the second. A run draws
// samples between steps that follow.
constexpr int kStepsBefore = 2;

/// The largest divisor of `batch` up to half of `now`; 0 when there is none.
int next_micro_batch(int batch, int now) {
  int next = now / 2;
  while (next > 0 && batch % next != 0) --next;
  return next;
}

/// What a plan has besides micro-batches, as the end of a list.
const char* settings_of(const MemoryPlan& plan) {
  if (plan.recompute)
    return plan.late_gradients ? ", recomputation and late gradients" : " and recomputation";
  return plan.late_gradients ? " and late gradients" : "";
}

}  // namespace

Config MemoryPlan::apply(Config config) const {
  config.training.micro_batch = micro_batch == config.training.batch_size ? 0 : micro_batch;
  config.training.recompute = recompute;
  config.training.late_gradients = late_gradients;
  return config;
}

std::string MemoryPlan::text() const {
  const std::size_t rest = held - std::min(held, state + activations);
  return format_bytes(held) + " (" + format_bytes(state) + " weights and optimiser, " +
         format_bytes(activations) + " activations, " + format_bytes(rest) + " gradients and temporary)";
}

MemoryPlan plan_memory(const Config& config, const std::string& device, int threads, const MakeTrainee& make,
                       const BetweenSteps& between) {
  const auto context = create_context(device + "-dry", threads);
  const auto trainee = make(config, *context);
  std::size_t held = 0;
  const auto launch = [&](int steps) {
    for (int i = 0; i < steps; ++i) trainee->launch();
    held = std::max(held, context->memory().reserved);
  };
  launch(kStepsBefore);
  const std::size_t state = context->memory().in_use;
  if (!context->is_cpu()) launch(1);  // captured, in memory of the graph
  if (between) {
    between(*trainee);
    launch(1);
  }
  return {.micro_batch = config.training.images_at_once(),
          .recompute = config.training.recompute,
          .late_gradients = config.training.late_gradients,
          .state = state,
          .activations = trainee->activation_bytes(),
          .peak = context->memory().peak,
          .held = held};
}

MemoryPlan fit_memory(const Config& config, std::size_t limit, const PlanMemory& plan) {
  const TrainingConfig& given = config.training;
  MemoryPlan least{.micro_batch = config.training.images_at_once()};
  for (int micro = least.micro_batch; micro > 0; micro = next_micro_batch(given.batch_size, micro)) {
    for (const auto& [recompute, late] :
         {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
      if (given.recompute && !recompute) continue;
      if (late && (given.late_gradients || micro < given.batch_size)) continue;  // sums are kept
      const MemoryPlan wanted{
          .micro_batch = micro, .recompute = recompute, .late_gradients = late || given.late_gradients};
      const MemoryPlan found = plan(wanted.apply(config));
      if (limit == 0 || found.held <= limit) return found;
      if (least.held == 0 || found.held < least.held) least = found;
    }
  }
  fail("--max-memory ", format_bytes(limit), " is too little: with micro-batches of ", least.micro_batch,
       settings_of(least), " a step holds ", least.text(), "; allow that much, or use a smaller model");
}

}  // namespace sgm
