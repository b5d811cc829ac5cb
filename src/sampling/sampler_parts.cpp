#include "sampling/sampler_parts.h"

#include <limits>

#include "sgm/core/error.h"

namespace sgm {

double choose_eps(const SDE& sde, const SamplingConfig& config) {
  const double eps = config.eps == 0.0 ? sde.sampling_eps() : config.eps;
  check(eps > 0 && eps < 1, "sampling.eps must lie in (0, 1), or be 0 for the SDE's own; got ", config.eps);
  return eps;
}

int choose_steps(const SDE& sde, const SamplingConfig& config) {
  check(config.steps >= 0, "sampling.steps must not be negative, got ", config.steps);
  return config.steps == 0 ? sde.num_scales() : config.steps;
}

NoiseSource noise_of(const SampleRequest& request) {
  return request.noise ? request.noise : philox_noise(request.seed, request.first_sample);
}

Tensor start_of(const SDE& sde, Context& context, const SampleRequest& request, const NoiseSource& noise) {
  const Shape& shape = request.shape;
  check(shape.rank() >= 2 && shape.numel() > 0, "sample: shape must be a batch of images [N, H, W, C], got ",
        shape);
  check(shape[0] - 1 <= std::numeric_limits<std::uint32_t>::max() - std::int64_t{request.first_sample},
        "sample: sample indices must stay below 2^32, got ", request.first_sample, " plus ", shape[0]);
  if (request.latent.defined()) {
    check(request.latent.shape() == shape && request.latent.dtype() == DType::f32,
          "sample: latent must be f32 ", shape, ", got ", request.latent.dtype(), ' ',
          request.latent.shape());
    return request.latent;
  }
  const Tensor like = Tensor::empty(context, shape);
  return normal(context, shape, noise(Purpose::prior, 0, like), sde.prior_std());
}

}  // namespace sgm
