#pragma once
// The two slots of predictor-corrector sampling (Algorithm 1): a predictor steps the reverse-time SDE to the
// next noise scale, a corrector improves the batch at its scale by Markov-chain Monte Carlo.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/sampling/score_fn.h"
#include "sgm/sde/sde.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

/// A batch after an update; x_mean is x without the noise of the update's last step.
struct State {
  Tensor x;       // [N, ...]
  Tensor x_mean;  // absent unless asked for
};

/// What one update of the sampling loop is given. Nothing in it says where on the grid the update stands:
/// what depends on that comes from the device, so that an update can be captured once and replayed.
struct Update {
  std::span<const Coefficient> numbers;        // what numbers() said of the update's time
  bool want_mean;                              // whether x_mean will be used
  std::function<Tensor(const Tensor&)> score;  // at the update's time
  std::function<Noise(std::uint32_t draw, const Tensor& like)> noise;  // draws of the update, from 0
};

/// One of the two slots.
class Updater {
 public:
  virtual ~Updater() = default;
  /// All that an update at time `at` depends on besides the batch, score and noise.
  virtual std::vector<double> numbers(const TimePoint& at) const = 0;
  /// Draws of noise per update.
  virtual std::uint32_t draws() const = 0;
  virtual State step(const Tensor& x, const Update& update) const = 0;
};
using Predictor = Updater;
using Corrector = Updater;

/// The predictor that config.predictor names, for grids of num_scales scales. `sde` must outlive it. Throws
/// Error for unknown names and for combinations without a meaning (ancestral sampling of sub-VP or with
/// probability_flow).
std::unique_ptr<Predictor> create_predictor(const SDE& sde, const SamplingConfig& config, int num_scales);
/// The corrector that config.corrector names; likewise.
std::unique_ptr<Corrector> create_corrector(const SDE& sde, const SamplingConfig& config, int num_scales);

/// Known values of SamplingConfig::predictor and ::corrector.
std::vector<std::string> predictor_names();
std::vector<std::string> corrector_names();

}  // namespace sgm
