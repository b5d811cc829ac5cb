#pragma once
// The training loop: batch, loss, gradient, update; metrics, checkpoints and sample grids along the way.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "sgm/core/captured_step.h"
#include "sgm/core/config.h"
#include "sgm/data/dataset.h"
#include "sgm/data/loader.h"
#include "sgm/nn/module.h"
#include "sgm/optim/optimizer.h"
#include "sgm/score/loss.h"
#include "sgm/sde/sde.h"
#include "sgm/train/metrics.h"

namespace sgm {

/// One training step after another, with no files: network, loss, data order and optimiser of a
/// configuration.
class Trainer {
 public:
  /// Throws Error for impossible configurations. Dataset and context must outlive the trainer. capture =
  /// false launches every step call by call, also where the device can replay it.
  Trainer(const Config& config, const Dataset& dataset, Context& context, bool capture = true);

  struct Step {
    double loss = 0;       // mean over the batch
    double grad_norm = 0;  // before clipping
    double lr = 0;
    bool is_finite() const;
  };
  /// One batch. Steps are numbered by the optimiser; the batch, its noise and its dropout masks depend on
  /// seed and step alone, so that a resumed run continues bit for bit.
  Step step();

  /// step() in two halves. launch() leaves a step to the device and returns; read() waits for all steps
  /// launched since the last read() and returns their mean loss and the norm of the last, or a norm that is
  /// not finite where one of them had such a one.
  void launch();
  Step read();
  /// Why steps are not captured and replayed; empty where they are, or as long as nobody knows.
  const std::string& why_not_captured() const { return captured_.why_not(); }

  const Config& config() const { return config_; }
  ScoreNetwork& network() { return *network_; }
  const SDE& sde() const { return *sde_; }
  Optimizer& optimizer() { return optimizer_; }
  /// Completed steps.
  std::int64_t position() const { return optimizer_.completed_steps(); }
  /// Continues from a checkpoint of the same model.
  void load(const std::filesystem::path& checkpoint);

 private:
  void work();

  Config config_;
  Context& context_;
  std::unique_ptr<SDE> sde_;
  std::unique_ptr<ScoreNetwork> network_;
  Optimizer optimizer_;
  std::unique_ptr<Loss> loss_;
  Loader loader_;
  DType compute_;  // storage of activations

  // What a step reads and writes on the device, at fixed addresses.
  Tensor x0_;           // images of the batch
  LossInputs inputs_;   // their noise levels
  Tensor step_number_;  // of the noise and of the dropout masks
  Tensor loss_sum_;     // [1] f64: of the steps since the last read()
  Tensor norm_sum_;     // [1] f64: squared norms, likewise
  std::int64_t unread_ = 0;
  CapturedStep captured_;
};

/// How a run ended.
enum class RunEnd { finished, interrupted };

struct RunOptions {
  std::filesystem::path workdir;
  bool resume = false;
  bool capture = true;  // replay captured steps where the device can
  /// Steps profile_first to profile_end - 1 are opened to profilers.
  std::int64_t profile_first = -1, profile_end = -1;
  /// Polled between steps; true saves a checkpoint and stops.
  std::function<bool()> should_stop;
  /// Called after each checkpoint, with the moving averages as weights and gradients off.
  std::function<void(Trainer& trainer, MetricsWriter& metrics)> snapshot;
};

/// Trains until config.training.n_iters steps are complete. The working directory gets config.toml,
/// checkpoints/, metrics.jsonl and TensorBoard events. Throws Error when it already holds a run and resume is
/// off, when the run to be resumed had another model, SDE or data space, and when the loss ceases to be
/// finite (the last checkpoint stays).
RunEnd train(const Config& config, const Dataset& dataset, Context& context, const RunOptions& options);

}  // namespace sgm
