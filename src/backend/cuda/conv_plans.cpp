#include "backend/cuda/conv_plans.h"

#include <algorithm>
#include <limits>
#include <sstream>

#include "backend/cuda/event.h"
#include "backend/cuda/workspace.h"
#include "backend/scratch.h"

namespace sgm::cudnn {
namespace {

constexpr int kWarmUpRuns = 3, kTimedRuns = 10;

/// The plan of a proposal, if it may execute the graph; `said` gathers why not.
std::optional<Plan> admitted(const Target& target, const ConvGraph& graph, const Descriptor& proposal,
                             const std::string& what, std::string& said) {
  try {
    Plan plan(target, proposal, what);
    if (plan.workspace() <= graph.most_workspace() && graph.accepts(plan.notes())) return plan;
  } catch (const Error& error) {
    said = error.what();
  }
  return std::nullopt;
}

}  // namespace

Candidates candidates(const Target& target, const ConvGraph& graph, bool compile_at_run_time) {
  const std::string what = graph.text();
  const Descriptor description = graph.describe(target);
  Candidates result;
  const auto collect = [&](bool compiled) {
    for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
      if (!result.plans.empty()) return;
      for (const Descriptor& proposal : proposals(target, description, mode, what, &result.why_none)) {
        if (compiles_at_run_time(engine_of(proposal)) != compiled) continue;
        if (auto plan = admitted(target, graph, proposal, what, result.why_none))
          result.plans.push_back(std::move(*plan));
      }
    }
  };
  collect(false);
  if (compile_at_run_time) collect(true);
  return result;
}

ConvPlans::~ConvPlans() {
  entries_.clear();
  if (handle_) cudnnDestroy(handle_);
}

void ConvPlans::start() {
  if (handle_) return;
  require(cudnnCreate(&handle_), "cudnnCreate", "convolutions");
  require(cudnnSetStream(handle_, device_.stream()), "cudnnSetStream", "convolutions");
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, device_.options().ordinal), "cudaGetDeviceProperties");
  device_key_ = std::string(properties.name) + ", cuDNN " + version() + ", ";
  cache_.emplace(PlanCache::default_path("convolutions.txt"));
}

void ConvPlans::execute(const char* kernel, const OpCost& cost, const ConvGraph& graph,
                        const ConvOperands& operands) {
  Entry& entry = entries_.try_emplace(graph.key(), Entry{graph, {}}).first->second;
  if (!device_.note({kernel, Traffic::product, cost.bytes, cost.flop})) {
    const Scratch most(device_, workspace_size(graph.most_workspace()));
    return;
  }
  for (const void* p : {operands.x, operands.weight, operands.y, operands.residual, operands.bias})
    check(reinterpret_cast<std::uintptr_t>(p) % ConvGraph::kAlignment == 0, kernel, ": operands of ",
          graph.text(), " must be aligned to ", ConvGraph::kAlignment, " bytes");
  start();
  if (!entry.plan || (!entry.settled && !device_.is_capturing())) choose(entry, operands);
  device_.explain(
      [&] { return graph.text() + ": cuDNN engine " + entry.plan->choice().text() + ", " + entry.why; });
  const Scratch workspace(device_, workspace_size(entry.plan->workspace()));
  launch(*entry.plan, operands, workspace.data());
}

std::vector<ConvGraph> ConvPlans::requested() const {
  std::vector<ConvGraph> graphs;
  for (const auto& [key, entry] : entries_) graphs.push_back(entry.graph);
  return graphs;
}

void ConvPlans::choose(Entry& entry, const ConvOperands& operands) {
  const std::string key = device_key_ + entry.graph.text();
  entry.plan = remembered(entry.graph, key);
  entry.settled = entry.plan.has_value();
  entry.why = "remembered from an earlier run";
  if (entry.settled) return;
  Candidates found = candidates(Target(handle_), entry.graph, true);
  check(!found.plans.empty(), "convolution: cuDNN ", version(), " has no engine for ", entry.graph.text(),
        ": ",
        found.why_none.empty() ? "none was proposed that is deterministic and accurate" : found.why_none,
        "; use another batch size or --precision");
  std::size_t best = 0;
  // While a graph is captured nothing can be timed, and runs on an output that is an input too do not repeat.
  const bool repeatable = operands.y != operands.residual;
  entry.settled = !device_.is_capturing();
  entry.why = found.plans.size() == 1 ? "the only one" : "the first of " + std::to_string(found.plans.size());
  if (entry.settled && repeatable && found.plans.size() > 1) {
    best = fastest(found, operands, entry.why);
    cache_->put(key, found.plans[best].choice().text());
  }
  entry.plan = std::move(found.plans[best]);
}

std::optional<Plan> ConvPlans::remembered(const ConvGraph& graph, const std::string& key) const {
  const std::optional<std::string> text = cache_->find(key);
  if (!text) return std::nullopt;
  try {
    const Target target(handle_);
    Plan plan(target, graph.describe(target), EngineChoice::parse(*text), graph.text());
    if (graph.accepts(plan.notes())) return plan;
  } catch (const Error&) {  // what was possible once is not now: choose afresh
  }
  return std::nullopt;
}

std::size_t ConvPlans::fastest(const Candidates& found, const ConvOperands& operands,
                               std::string& why) const {
  std::size_t most = 0, best = found.plans.size();
  for (const Plan& plan : found.plans) most = std::max(most, plan.workspace());
  const Scratch workspace(device_, workspace_size(most));
  const cudaStream_t stream = device_.stream();
  Event begin, end;
  const auto run = [&](const Plan& plan, int times) {
    begin.record(stream);
    for (int i = 0; i < times; ++i) launch(plan, operands, workspace.data());
    end.record(stream);
    return end.since(begin) / static_cast<float>(times);
  };
  float best_time = std::numeric_limits<float>::infinity(), first_time = 0;
  std::string problem;
  for (std::size_t i = 0; i < found.plans.size(); ++i) {
    try {
      // The first run loads code; the others tell whether the plan has a chance at all.
      run(found.plans[i], 1);
      if (run(found.plans[i], kWarmUpRuns - 1) > 2.0f * best_time) continue;
      const float time = run(found.plans[i], kTimedRuns);
      if (i == 0) first_time = time;
      if (time < best_time) best_time = time, best = i;
    } catch (const Error& error) {
      problem = error.what();
    }
  }
  check(best < found.plans.size(), problem);
  std::ostringstream text;
  text.precision(3);
  text << "the fastest of " << found.plans.size() << " with " << 1e3f * best_time
       << " us; cuDNN's first took " << 1e3f * first_time << " us";
  why = text.str();
  return best;
}

void ConvPlans::launch(const Plan& plan, const ConvOperands& operands, void* workspace) const {
  std::array<std::int64_t, 5> ids{};
  std::array<void*, 5> pointers{};
  std::size_t count = 0;
  const auto add = [&](std::int64_t id, const void* data) {
    if (!data) return;
    ids[count] = id;
    pointers[count++] = const_cast<void*>(data);  // cuDNN has one list for inputs and outputs
  };
  add(kInput, operands.x);
  add(kWeight, operands.weight);
  add(kOutput, operands.y);
  add(kResidual, operands.residual);
  add(kBias, operands.bias);
  plan.execute(handle_, std::span(ids).first(count), std::span(pointers).first(count), workspace);
}

}  // namespace sgm::cudnn
