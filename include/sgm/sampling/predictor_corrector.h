#pragma once
// The two slots of predictor-corrector sampling (Algorithm 1): a predictor steps the reverse-time SDE to the
// next noise scale, a corrector improves the batch at its scale by Markov-chain Monte Carlo.

#include <cstdint>
#include <memory>
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

/// One update of the sampling loop.
struct Update {
  TimePoint at;         // on the grid
  std::uint32_t index;  // number of the update, from 0
  bool want_mean;       // whether x_mean will be used
  const ScoreFn& score;
  const NoiseSource& noise;
};

class Predictor {
 public:
  virtual ~Predictor() = default;
  virtual State predict(const Tensor& x, const Update& update) const = 0;
};

class Corrector {
 public:
  virtual ~Corrector() = default;
  virtual State correct(const Tensor& x, const Update& update) const = 0;
};

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
