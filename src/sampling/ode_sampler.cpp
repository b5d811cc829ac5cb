#include "sampling/sampler_parts.h"
#include "sgm/core/error.h"
#include "sgm/sampling/ode_solver.h"

namespace sgm {
namespace {

/// The probability-flow ODE; denoise adds the mean of one last reverse-diffusion step at
/// eps.
class ODESampler final : public Sampler {
 public:
  ODESampler(const SDE& sde, const SamplingConfig& config)
      : sde_(sde),
        eps_(choose_eps(sde, config)),
        denoise_(config.denoise),
        options_(ode_options(sde, config)) {
    if (denoise_)
      sde_.discretize({eps_, 0, sde_.num_scales()});  // refuses too few scales before the run begins
  }

  SampleResult sample(Context& context, const ScoreFn& score, const SampleRequest& request) const override {
    check(!request.constraint, "sample: sampling.method = \"ode\" takes no constraint; use \"pc\"");
    const Tensor start = start_of(sde_, context, request, noise_of(request));
    ODEOptions options = options_;
    if (request.progress)
      options.progress = [&](double fraction) {
        return request.progress(static_cast<std::int64_t>(1000.0 * fraction), 1000);
      };
    ODESolution solution = integrate(probability_flow(sde_, score), start.to(DType::f64), 1.0, eps_, options);
    SampleResult result{solution.y.to(DType::f32), std::move(solution.nfe), solution.complete};
    if (denoise_ && result.complete) {
      const ForwardStep forward = sde_.discretize({eps_, 0, sde_.num_scales()});
      AffineTerms terms{.x = result.x, .score = score_at(score, result.x, {.t = eps_})};
      terms.a = 1.0 - forward.f;
      terms.b = forward.G * forward.G;
      result.x = affine_step(terms).y;
      for (std::int64_t& nfe : result.nfe) ++nfe;
    }
    return result;
  }

 private:
  const SDE& sde_;
  double eps_;
  bool denoise_;
  ODEOptions options_;
};

}  // namespace

std::unique_ptr<Sampler> create_ode_sampler(const SDE& sde, const SamplingConfig& config) {
  return std::make_unique<ODESampler>(sde, config);
}

}  // namespace sgm
