#pragma once
// A run: training with metrics, checkpoints and an end from which it can be resumed.

#include <cstdint>
#include <filesystem>
#include <functional>

#include "sgm/train/metrics.h"
#include "sgm/train/trainee.h"

namespace sgm {

/// How a run ended.
enum class RunEnd { finished, interrupted };

struct RunOptions {
  std::filesystem::path workdir;
  bool resume = false;
  /// Steps profile_first to profile_end - 1 are opened to profilers.
  std::int64_t profile_first = -1, profile_end = -1;
  /// Polled between steps; true saves a checkpoint and stops.
  std::function<bool()> should_stop = {};
  /// Called after each checkpoint, with the moving averages as weights and gradients off.
  std::function<void(MetricsWriter& metrics)> snapshot = {};
};

/// Trains until config.training.n_iters steps are complete. The working directory gets config.toml,
/// checkpoints/, metrics.jsonl and TensorBoard events. Throws Error when it already holds a run and resume is
/// off, when the run to be resumed had another model, SDE or data space, and when the loss ceases to be
/// finite (the last checkpoint stays).
RunEnd train(Trainee& trainee, const RunOptions& options);

}  // namespace sgm
