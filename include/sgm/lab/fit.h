#pragma once
// Networks trained on densities that are known: what a loss and a network achieve can be compared with the
// truth.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/lab/density.h"
#include "sgm/nn/module.h"
#include "sgm/sampling/score_fn.h"

namespace sgm {

struct FitOptions {
  /// Plain score matching: the one noise level, 0 or more, that the network is to know. Else all those of the
  /// SDE.
  std::optional<double> noise = {};
  /// Called every config.training.log_freq steps with the mean loss since the last call.
  std::function<void(std::int64_t step, double loss)> progress = {};
  /// Polled with it; true ends the training there.
  std::function<bool()> should_stop = {};
};

/// A trained network, its weights the moving averages, gradients off.
struct FittedScore {
  Config config;  // as it was trained with
  std::unique_ptr<SDE> sde;
  std::unique_ptr<ScoreNetwork> network;
  ScoreFn score;               // of batches [N, 1, 1, d]; lives as long as this
  std::vector<double> losses;  // means over config.training.log_freq steps each
  double seconds_per_step = 0.0;
};

/// Trains the mlp of `config` with its loss and optimiser, config.training.n_iters steps of fresh draws of
/// the density. The result depends on config.training.seed alone. Data space is the density's: data.* is
/// ignored. Throws Error for another network, and when the loss ceases to be finite.
FittedScore fit_score(Config config, const Density& density, Context& context,
                      const FitOptions& options = {});

/// sqrt(E |s - grad log p|^2 / E |grad log p|^2) over n draws of the density perturbed as `marginal` says, at
/// which `score` is asked for time t.
double score_error(const ScoreFn& score, const Density& density, const Marginal& marginal, double t,
                   Context& context, std::int64_t n = 2000, std::uint64_t seed = 0);

}  // namespace sgm
