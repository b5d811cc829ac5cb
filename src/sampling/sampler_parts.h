#pragma once
// What the samplers have in common, and the factories of the table in samplers.cpp.

#include <memory>
#include <span>
#include <vector>

#include "sgm/sampling/sampler.h"

namespace sgm {

std::unique_ptr<Sampler> create_pc_sampler(const SDE& sde, const SamplingConfig& config);
std::unique_ptr<Sampler> create_ode_sampler(const SDE& sde, const SamplingConfig& config);
std::unique_ptr<Sampler> create_annealed_langevin(const SDE& sde, const SamplingConfig& config);

/// config.eps, or the SDE's own. Throws Error outside (0, 1).
double choose_eps(const SDE& sde, const SamplingConfig& config);
/// config.steps, or the SDE's own N.
int choose_steps(const SDE& sde, const SamplingConfig& config);

NoiseSource noise_of(const SampleRequest& request);

/// The latent, or a draw from the prior. Throws Error for requests whose parts do not fit.
Tensor start_of(const SDE& sde, Context& context, const SampleRequest& request, const NoiseSource& noise);

}  // namespace sgm
