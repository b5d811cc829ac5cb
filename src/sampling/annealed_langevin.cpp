#include <cmath>

#include "sampling/chain_run.h"
#include "sampling/sampler_parts.h"
#include "sgm/core/error.h"

namespace sgm {
namespace {

/// One Langevin step at noise scale sigma: x <- x + e score + sqrt(2 e) z, e = step_lr (sigma / sigma_min)^2.
/// x_mean is the estimate x + sigma^2 score of the image without noise.
class LangevinStepAtScale final : public Updater {
 public:
  LangevinStepAtScale(const SDE& sde, double step_lr) : sde_(sde), step_lr_(step_lr) {}

  std::vector<double> numbers(const TimePoint& at) const override {
    const double sigma = sde_.discrete_marginal(at.k, at.num_scales).std;
    const double ratio = sigma / sde_.discrete_marginal(0, at.num_scales).std, e = step_lr_ * ratio * ratio;
    return {e, std::sqrt(2.0 * e), sigma * sigma};
  }
  std::uint32_t draws() const override { return 1; }
  State step(const Tensor& x, const Update& update) const override {
    AffineTerms terms{.x = x, .score = update.score(x)};
    terms.noise = update.noise(0, x);
    terms.b = update.numbers[0], terms.c = update.numbers[1];
    State state{affine_step(terms).y, {}};
    if (!update.want_mean) return state;
    AffineTerms denoise{.x = state.x, .score = update.score(state.x)};
    denoise.b = update.numbers[2];
    state.x_mean = affine_step(denoise).y;
    return state;
  }

 private:
  const SDE& sde_;
  double step_lr_;
};

/// U[0, 1) for every element, where the original begins. Drawn once a run: the host is fast enough.
Tensor uniform_start(Context& context, const SampleRequest& request) {
  const std::int64_t n = request.shape[0], per_image = request.shape.numel() / n;
  const NoiseKey key{request.seed, Purpose::prior, 0, request.first_sample};
  std::vector<float> values(static_cast<std::size_t>(request.shape.numel()));
#pragma omp parallel for
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t e = 0; e < per_image; ++e)
      values[static_cast<std::size_t>(i * per_image + e)] =
          1.0f - uniform_at(key, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(e));
  return Tensor::from_host(context, std::span<const float>(values), request.shape);
}

/// Annealed Langevin dynamics (Song and Ermon 2019, Algorithm 1): n_steps_each steps at every noise scale,
/// from the largest to the smallest; then, as in their work of 2020, the estimate without noise.
class AnnealedLangevinSampler final : public Sampler {
 public:
  AnnealedLangevinSampler(const SDE& sde, const SamplingConfig& config)
      : sde_(sde),
        step_(sde, config.step_lr),
        denoise_(config.denoise),
        starts_uniform_(config.start == "uniform") {
    check(sde.drift(1.0) == 0.0,
          "sampling.method annealed_langevin is for data under noise alone (sde.name = \"vesde\"); this SDE "
          "also scales it; use \"pc\", whose predictors follow that");
    check(config.step_lr > 0 && std::isfinite(config.step_lr),
          "sampling.step_lr must be positive and finite, got ", config.step_lr);
    check(config.n_steps_each >= 1, "sampling.n_steps_each must be at least 1, got ", config.n_steps_each);
    for (const TimePoint& at : sampling_grid(choose_steps(sde, config), choose_eps(sde, config)))
      grid_.insert(grid_.end(), static_cast<std::size_t>(config.n_steps_each), at);
  }

  SampleResult sample(Context& context, const ScoreFn& score, const SampleRequest& request) const override {
    const Slot slots[] = {{step_, Purpose::corrector}};
    const bool draws_start = starts_uniform_ && !request.latent.defined();
    check(!draws_start || !request.noise,
          "sample: sampling.start = \"uniform\" draws its own noise; give a latent");
    SampleRequest from = request;
    if (draws_start) from.latent = uniform_start(context, request);
    const Tensor start = start_of(sde_, context, from, noise_of(from));
    return run_chain(slots, grid_, denoise_, context, score, request, start);
  }

 private:
  const SDE& sde_;
  LangevinStepAtScale step_;
  bool denoise_, starts_uniform_;
  std::vector<TimePoint> grid_;  // every time as often as steps are made at it
};

}  // namespace

std::unique_ptr<Sampler> create_annealed_langevin(const SDE& sde, const SamplingConfig& config) {
  return std::make_unique<AnnealedLangevinSampler>(sde, config);
}

}  // namespace sgm
