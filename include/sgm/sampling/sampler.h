#pragma once
// Samplers: from prior noise at t = 1 to data at t = eps.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/sampling/constraints.h"
#include "sgm/sampling/score_fn.h"
#include "sgm/sde/sde.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

struct SampleRequest {
  Shape shape = {};                // [N, H, W, C]
  std::uint64_t seed = 0;          // with the sample index, all that an image depends on
  std::uint32_t first_sample = 0;  // sample index of the batch's first image
  Tensor latent = {};              // [N, H, W, C] f32 at t = 1, prior's scale; absent: drawn from the prior
  std::shared_ptr<const Constraint> constraint = {};  // null: unconditional; not for ODE samplers
  NoiseSource noise = {};                             // empty: philox_noise(seed, first_sample)
  bool capture = true;                                // replay captured updates where the device can
  /// Told steps done and in all (of an ODE: thousandths of the way); false stops the run.
  std::function<bool(std::int64_t done, std::int64_t total)> progress = {};
};

struct SampleResult {
  Tensor x;                       // [N, H, W, C] f32 in data space: not yet in [0, 1], not clipped
  std::vector<std::int64_t> nfe;  // network evaluations that each image took, denoising included
  bool complete = true;           // false when progress() stopped the run; x is then still noisy
};

class Sampler {
 public:
  virtual ~Sampler() = default;
  /// Throws Error for requests that do not fit. Non-finite scores make an ODE sampler throw; others pass them
  /// on.
  virtual SampleResult sample(Context& context, const ScoreFn& score, const SampleRequest& request) const = 0;
};

/// The sampler that config.method names; `sde` must outlive it. Throws Error for unknown names and for values
/// or combinations without a meaning. With batch_mean_norms the ODE's step size is shared by the batch, too.
std::unique_ptr<Sampler> create_sampler(const SDE& sde, const SamplingConfig& config);

/// Known values of SamplingConfig::method.
std::vector<std::string> sampler_names();

/// Times of the N updates of a sampling grid, from 1 down to eps, with the noise scales N - 1 down to 0.
std::vector<TimePoint> sampling_grid(int num_scales, double eps);

}  // namespace sgm
