#include "sgm/train/memory_plan.h"

#include "sgm/core/bytes.h"

#include <algorithm>

namespace sgm {
namespace {

// The first step makes what later ones keep; a run draws samples between steps that follow.
constexpr int kStepsBefore = 2;

int configured_micro_batch(const Config& config) {
  return config.training.micro_batch ? config.training.micro_batch : config.training.batch_size;
}

/// The largest divisor of `batch` up to half of `now`; 0 when there is none.
int next_micro_batch(int batch, int now) {
  int next = now / 2;
  while (next > 0 && batch % next != 0) --next;
  return next;
}

}  // namespace

Config MemoryPlan::apply(Config config) const {
  config.training.micro_batch = micro_batch == config.training.batch_size ? 0 : micro_batch;
  config.training.recompute = recompute;
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
  for (int i = 0; i < kStepsBefore; ++i) trainee->launch();
  std::size_t beside = 0;
  if (between) {
    const MemoryStats before = context->memory();
    context->reset_peak();
    between(*trainee);
    // On a GPU the graph of the step keeps its memory meanwhile.
    if (!context->is_cpu()) beside = context->memory().peak - before.in_use;
    trainee->launch();
  }
  const MemoryStats stats = context->memory();
  return {.micro_batch = configured_micro_batch(config),
          .recompute = config.training.recompute,
          .state = stats.in_use,
          .activations = trainee->activation_bytes(),
          .peak = stats.peak,
          .held = stats.reserved + beside};
}

MemoryPlan fit_memory(const Config& config, std::size_t limit, const PlanMemory& plan) {
  MemoryPlan least{.micro_batch = configured_micro_batch(config), .recompute = config.training.recompute};
  for (int micro = least.micro_batch; micro > 0;
       micro = next_micro_batch(config.training.batch_size, micro)) {
    for (const bool recompute : {false, true}) {
      if (config.training.recompute && !recompute) continue;
      const MemoryPlan found = plan(MemoryPlan{.micro_batch = micro, .recompute = recompute}.apply(config));
      if (limit == 0 || found.held <= limit) return found;
      if (least.held == 0 || found.held < least.held) least = found;
    }
  }
  fail("--max-memory ", format_bytes(limit), " is too little: with micro-batches of ", least.micro_batch,
       least.recompute ? " and recomputation" : "", " a step holds ", least.text(),
       "; allow that much, or use a smaller model");
}

}  // namespace sgm
