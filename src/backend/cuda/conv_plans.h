#pragma once
// Which cuDNN engine executes which convolution.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend/cuda/conv_graph.h"
#include "backend/cuda/cuda_context.h"
#include "backend/cuda/plan_cache.h"

namespace sgm::cudnn {

/// Plans that may execute a convolution, in cuDNN's order.
struct Candidates {
  std::vector<Plan> plans;
  std::string why_none;  // what cuDNN said of those that it refused
};

/// What cuDNN offers for `graph` that graph.accepts(). Engines whose code is compiled at run time, which
/// takes seconds, are listed only where there is nothing else and `compile_at_run_time` allows it.
Candidates candidates(const Target& target, const ConvGraph& graph, bool compile_at_run_time);

/// The addresses of a graph's operands; bias and residual may be null where the graph has none.
struct ConvOperands {
  const void* x;
  const void* weight;
  const void* y;
  const void* residual = nullptr;
  const void* bias = nullptr;
};

/// The plans of one context: get it as device.part<ConvPlans>(). The first execution of a convolution times
/// all candidates on its own operands and keeps the fastest, in memory and in a file.
class ConvPlans {
 public:
  explicit ConvPlans(CudaContext& device) : device_(device) {}
  ~ConvPlans();
  ConvPlans(const ConvPlans&) = delete;
  ConvPlans& operator=(const ConvPlans&) = delete;

  /// Counts the convolution as a launch of `kernel` at that cost, and executes it; the output holds
  /// what the graph computes of the inputs. In a dry run it is only remembered. Throws Error naming the
  /// convolution and cuDNN's reason where no engine fits.
  void execute(const char* kernel, const OpCost& cost, const ConvGraph& graph, const ConvOperands& operands);

  /// The convolutions that a dry run asked for, each once.
  std::vector<ConvGraph> requested() const;

 private:
  struct Entry {
    ConvGraph graph;
    std::optional<Plan> plan;
    bool settled = false;  // by timing, by the file, or for lack of alternatives
    std::string why = "";  // this plan
  };

  void start();
  void choose(Entry& entry, const ConvOperands& operands);
  std::optional<Plan> remembered(const ConvGraph& graph, const std::string& key) const;
  std::size_t fastest(const Candidates& candidates, const ConvOperands& operands, std::string& why) const;
  void launch(const Plan& plan, const ConvOperands& operands, void* workspace) const;

  CudaContext& device_;
  cudnnHandle_t handle_ = nullptr;
  std::string device_key_;  // the device and the library that choices in the file are for
  std::optional<PlanCache> cache_;
  std::map<ConvGraph::Key, Entry> entries_;
};

}  // namespace sgm::cudnn
