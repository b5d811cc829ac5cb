#include <cmath>
#include <limits>
#include <string_view>

#include "sgm/core/error.h"
#include "sgm/core/registry.h"
#include "sgm/sampling/ode_solver.h"
#include "sgm/sampling/sampler.h"

namespace sgm {
namespace {

double choose_eps(const SDE& sde, const SamplingConfig& config) {
  const double eps = config.eps == 0.0 ? sde.sampling_eps() : config.eps;
  check(eps > 0 && eps < 1, "sampling.eps must lie in (0, 1), or be 0 for the SDE's own; got ", config.eps);
  return eps;
}

int choose_steps(const SDE& sde, const SamplingConfig& config) {
  check(config.steps >= 0, "sampling.steps must not be negative, got ", config.steps);
  return config.steps == 0 ? sde.num_scales() : config.steps;
}

/// The latent, or a draw from the prior.
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

NoiseSource noise_of(const SampleRequest& request) {
  return request.noise ? request.noise : philox_noise(request.seed, request.first_sample);
}

/// Predictor-corrector sampling: at every noise scale the corrector, then the predictor. (Algorithm 1
/// predicts first; the order differs from the reference's at the two ends only.)
class PCSampler final : public Sampler {
 public:
  PCSampler(const SDE& sde, const SamplingConfig& config)
      : sde_(sde),
        grid_(sampling_grid(choose_steps(sde, config), choose_eps(sde, config))),
        predictor_(create_predictor(sde, config, grid_.front().num_scales)),
        corrector_(create_corrector(sde, config, grid_.front().num_scales)),
        denoise_(config.denoise) {}

  SampleResult sample(Context& context, const ScoreFn& score, const SampleRequest& request) const override {
    const NoiseSource noise = noise_of(request);
    std::int64_t nfe = 0;
    const ScoreFn counted = [&](const Tensor& x, std::span<const ImageTime> times) {
      ++nfe;
      return score(x, times);
    };
    State state{start_of(sde_, context, request, noise), {}};
    const std::int64_t steps = static_cast<std::int64_t>(grid_.size());
    std::int64_t done = 0;
    for (bool go_on = true; done < steps && go_on;) {
      const bool last = done + 1 == steps;
      const std::uint32_t index = static_cast<std::uint32_t>(done);
      const Update update{grid_[index], index, denoise_ && last, counted, noise};
      state = constrain(corrector_->correct(state.x, update), request, update, 0);
      state = constrain(predictor_->predict(state.x, update), request, update, 1);
      ++done;
      if (request.progress) go_on = request.progress(done, steps);
    }
    SampleResult result;
    result.complete = done == steps;
    result.x = result.complete && denoise_ ? state.x_mean : state.x;
    result.nfe.assign(static_cast<std::size_t>(request.shape[0]), nfe);
    return result;
  }

 private:
  static State constrain(State state, const SampleRequest& request, const Update& update,
                         std::uint32_t slot) {
    if (!request.constraint) return state;
    if (!update.want_mean) state.x_mean = {};
    return request.constraint(std::move(state), update.at.t, 2 * update.index + slot);
  }

  const SDE& sde_;
  std::vector<TimePoint> grid_;
  std::unique_ptr<Predictor> predictor_;
  std::unique_ptr<Corrector> corrector_;
  bool denoise_;
};

/// The probability-flow ODE with adaptive steps; denoise adds the mean of one last reverse-diffusion step at
/// eps.
class ODESampler final : public Sampler {
 public:
  ODESampler(const SDE& sde, const SamplingConfig& config)
      : sde_(sde), eps_(choose_eps(sde, config)), denoise_(config.denoise) {
    options_.rtol = config.rtol;
    options_.atol = config.atol;
    options_.shared_steps = config.batch_mean_norms;
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

template <class T>
std::unique_ptr<Sampler> create(const SDE& sde, const SamplingConfig& config) {
  return std::make_unique<T>(sde, config);
}

struct Entry {
  std::string_view name;
  std::unique_ptr<Sampler> (*create)(const SDE& sde, const SamplingConfig& config);
};
constexpr Entry kSamplers[] = {{"pc", create<PCSampler>}, {"ode", create<ODESampler>}};

}  // namespace

std::vector<TimePoint> sampling_grid(int num_scales, double eps) {
  check(num_scales >= 2, "sampling.steps (or sde.num_scales) must be at least 2, got ", num_scales);
  std::vector<TimePoint> grid(static_cast<std::size_t>(num_scales));
  for (int i = 0; i < num_scales; ++i) {
    const double fraction = static_cast<double>(i) / (num_scales - 1);
    grid[static_cast<std::size_t>(i)] = {(1.0 - fraction) + fraction * eps, num_scales - 1 - i, num_scales};
  }
  return grid;
}

std::unique_ptr<Sampler> create_sampler(const SDE& sde, const SamplingConfig& config) {
  return find_entry(kSamplers, config.method, "sampling.method").create(sde, config);
}

std::vector<std::string> sampler_names() { return names_of(kSamplers); }

}  // namespace sgm
