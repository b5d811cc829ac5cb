#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "sgm/core/captured_step.h"
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

/// Numbers that change from step to step, at fixed addresses where the device reads them.
class StepNumbers {
 public:
  StepNumbers(Context& context, std::int64_t n, std::size_t count) : n_(n) {
    for (std::size_t i = 0; i < count; ++i) values_.emplace_back(Tensor::zeros(context, {n}, DType::f64));
  }
  /// Number i, for every image of the batch.
  void set(std::size_t i, double value) {
    Tensor column = values_[i].per_image();
    column.upload(std::vector<double>(static_cast<std::size_t>(n_), value));
  }
  std::span<const Coefficient> from(std::size_t first, std::size_t count) const {
    return std::span(values_).subspan(first, count);
  }
  const Tensor& tensor(std::size_t i) const { return values_[i].per_image(); }

 private:
  std::int64_t n_;
  std::vector<Coefficient> values_;
};

/// One run of predictor-corrector sampling.
class PCRun {
 public:
  PCRun(const SDE& sde, const Predictor& predictor, const Corrector& corrector, bool denoise,
        std::span<const TimePoint> grid, Context& context, const ScoreFn& score, const SampleRequest& request)
      : predictor_(predictor),
        corrector_(corrector),
        denoise_(denoise),
        grid_(grid),
        context_(context),
        score_(score),
        request_(request),
        noise_(noise_of(request)),
        of_corrector_(corrector.numbers(grid.front()).size()),
        of_predictor_(predictor.numbers(grid.front()).size()),
        numbers_(context, request.shape[0], kOfScore + of_corrector_ + of_predictor_),
        drawn_(Tensor::zeros(context, {1}, DType::f64)),
        x_(start_of(sde, context, request, noise_).clone()),
        // Only what reads all that changes from the device can be captured.
        captured_(context,
                  request.capture && !request.constraint && !request.noise && score.takes_numbers()) {}

  SampleResult operator()() {
    const auto steps = static_cast<std::int64_t>(grid_.size());
    const std::int64_t stride = std::max<std::int64_t>(1, steps / 100);
    std::int64_t done = 0;
    for (bool go_on = true; done < steps && go_on;) {
      prepare(done);
      const bool with_mean = denoise_ && done + 1 == steps;
      const std::int64_t before = nfe_;
      if (with_mean || request_.constraint)
        update(with_mean);
      else
        captured_.run([this] { update(false); });
      if (nfe_ == before) nfe_ += per_step_;
      per_step_ = nfe_ - before;
      ++done;
      if (!request_.progress) continue;
      if (done % stride == 0) context_.synchronize();  // else the device would lag far behind
      go_on = request_.progress(done, steps);
    }
    SampleResult result;
    result.complete = done == steps;
    result.x = result.complete && denoise_ ? x_mean_ : x_;
    result.nfe.assign(static_cast<std::size_t>(request_.shape[0]), nfe_);
    return result;
  }

 private:
  static constexpr std::size_t kOfScore = 2;  // label and scale

  /// Hands the numbers of update `index` to the device.
  void prepare(std::int64_t index) {
    at_ = grid_[static_cast<std::size_t>(index)];
    index_ = static_cast<std::uint32_t>(index);
    std::vector<double> all(kOfScore);
    if (score_.takes_numbers()) {
      const ScoreFn::Numbers now = score_.numbers({at_, 0});
      all = {now.label, now.scale};
    }
    for (const double number : corrector_.numbers(at_)) all.push_back(number);
    for (const double number : predictor_.numbers(at_)) all.push_back(number);
    for (std::size_t i = 0; i < all.size(); ++i) numbers_.set(i, all[i]);
    const std::uint32_t drawn[] = {index_ * corrector_.draws(), index_ * predictor_.draws()};
    context_.copy_from_host(drawn_.data<double>(), drawn, sizeof drawn);
  }

  /// The corrector, then the predictor, on x_ in place.
  void update(bool with_mean) {
    State state{x_, {}};
    state = constrain(corrector_.step(state.x, part(0, with_mean)), with_mean, 0);
    state = constrain(predictor_.step(state.x, part(1, with_mean)), with_mean, 1);
    if (with_mean) x_mean_ = state.x_mean;
    if (state.x.version() != x_.version()) x_.copy_from(state.x);
  }

  Update part(std::uint32_t slot, bool with_mean) {
    Update update{};
    update.numbers = slot == 0 ? numbers_.from(kOfScore, of_corrector_)
                               : numbers_.from(kOfScore + of_corrector_, of_predictor_);
    update.want_mean = with_mean;
    update.score = [this](const Tensor& x) {
      ++nfe_;
      return score_.takes_numbers() ? score_.evaluate(x, numbers_.tensor(0), numbers_.tensor(1))
                                    : score_at(score_, x, at_);
    };
    update.noise = [this, slot](std::uint32_t draw, const Tensor& like) {
      const Purpose purpose = slot == 0 ? Purpose::corrector : Purpose::predictor;
      const std::uint32_t first = index_ * (slot == 0 ? corrector_ : predictor_).draws();
      if (request_.noise) return noise_(purpose, first + draw, like);
      Noise noise = noise_(purpose, draw, like);
      noise.key.step_from = reinterpret_cast<const std::uint32_t*>(drawn_.data<double>()) + slot;
      return noise;
    };
    return update;
  }

  State constrain(State state, bool with_mean, std::uint32_t slot) const {
    if (!request_.constraint) return state;
    if (!with_mean) state.x_mean = {};
    return request_.constraint(std::move(state), at_.t, 2 * index_ + slot);
  }

  const Predictor& predictor_;
  const Corrector& corrector_;
  bool denoise_;
  std::span<const TimePoint> grid_;
  Context& context_;
  const ScoreFn& score_;
  const SampleRequest& request_;
  NoiseSource noise_;
  std::size_t of_corrector_, of_predictor_;
  StepNumbers numbers_;
  Tensor drawn_;  // draws of noise before this update: the corrector's and the predictor's
  Tensor x_, x_mean_;
  CapturedStep captured_;
  TimePoint at_{};
  std::uint32_t index_ = 0;
  std::int64_t nfe_ = 0, per_step_ = 0;
};

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
    return PCRun(sde_, *predictor_, *corrector_, denoise_, grid_, context, score, request)();
  }

 private:
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
