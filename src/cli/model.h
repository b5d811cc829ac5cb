#pragma once
// What the commands that use a trained model have in common: opening it, sampling settings, and the loop over
// batches.

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/output.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/score_model.h"
#include "sgm/train/checkpoint.h"
#include "sgm/train/progress.h"

namespace sgm::cli {

/// A trained network as a score function, on its device. Not to be moved: `score` refers to the rest.
struct Model {
  std::unique_ptr<Context> context;
  LoadedNetwork loaded;
  std::unique_ptr<SDE> sde;
  DType compute;
  ScoreFn score;

  const Config& config() const { return loaded.info.config; }
  /// [n, H, W, C].
  Shape batch_shape(std::int64_t n) const;
};

/// The model and how it is evaluated.
struct ModelOptions {
  std::string model, precision;
  bool raw = false;
  DeviceOptions device;

  void add_to(CLI::App& command);
  /// Throws Error for files that hold no score model. Says on stderr what was opened.
  std::unique_ptr<Model> open() const;
};

/// Overrides of a checkpoint's [sampling] settings.
struct SamplingOptions {
  std::string sampler, predictor, corrector, solver, ancestral_variance, start;
  int steps = -1, n_steps_each = -1;
  double snr = -1, rtol = -1, atol = -1, eps = -1, step_lr = -1;
  bool probability_flow = false, no_denoise = false, batch_mean_norms = false;

  void add_to(CLI::App& command);
  SamplingConfig apply(SamplingConfig settings) const;
};

/// How many images, from which seed and number on, how many at a time.
struct BatchOptions {
  std::int64_t n = 64, first = 0;
  std::uint64_t seed = 0;
  int batch = 0;  // 0: as many as keep the device busy
  bool no_graph = false;

  void add_to(CLI::App& command, bool with_n = true);
};

/// Makes `options.n` images batch by batch, with progress on stderr, and writes them. `make` fills what is
/// missing in the request and runs a sampler; columns: of a grid, 0: about as many as rows. Returns the exit
/// code; of interrupted work, a folder keeps the images that are complete.
int generate(const Model& model, const BatchOptions& options, ImageOutput& out,
             const std::function<SampleResult(SampleRequest&)>& make, int columns = 0);

}  // namespace sgm::cli
