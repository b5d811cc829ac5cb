#include <cmath>
#include <string_view>

#include "sgm/core/error.h"
#include "sgm/core/registry.h"
#include "sgm/sampling/predictor_corrector.h"

namespace sgm {
namespace {

/// Predictors whose step is x_mean = a x + b score, x <- x_mean + c z with numbers of the time alone.
class AffinePredictor : public Predictor {
 public:
  explicit AffinePredictor(bool is_noisy) : is_noisy_(is_noisy) {}

  std::vector<double> numbers(const TimePoint& at) const final {
    const ReverseStep step = coefficients(at);
    return {step.a, step.b, step.c};
  }
  std::uint32_t draws() const final { return 1; }
  State step(const Tensor& x, const Update& update) const final {
    AffineTerms terms{.x = x, .score = update.score(x)};
    terms.a = update.numbers[0], terms.b = update.numbers[1], terms.c = update.numbers[2];
    terms.want_mean = update.want_mean;
    if (is_noisy_) terms.noise = update.noise(0, x);
    AffineResult result = affine_step(terms);
    return {result.y, result.mean};
  }
  virtual ReverseStep coefficients(const TimePoint& at) const = 0;

 private:
  bool is_noisy_;
};

/// One step of a reverse-time SDE dx = [f - g^2 score] dt + g dw (eq. 6), or of its probability-flow ODE
/// dx = [f - g^2 score / 2] dt (eq. 13), given the forward step x + f x + G z.
ReverseStep reverse(const ForwardStep& forward, bool probability_flow) {
  const double variance = forward.G * forward.G;
  if (probability_flow) return {1.0 - forward.f, 0.5 * variance, 0.0};
  return {1.0 - forward.f, variance, forward.G};
}

/// Euler-Maruyama with steps of 1 / N. (Grid times lie (1 - eps) / (N - 1) apart, as in the reference.)
class EulerMaruyama final : public AffinePredictor {
 public:
  EulerMaruyama(const SDE& sde, const SamplingConfig& config)
      : AffinePredictor(!config.probability_flow), sde_(sde), probability_flow_(config.probability_flow) {}
  ReverseStep coefficients(const TimePoint& at) const override {
    const double dt = 1.0 / at.num_scales;
    return reverse({sde_.drift(at.t) * dt, sde_.diffusion(at.t) * std::sqrt(dt)}, probability_flow_);
  }

 private:
  const SDE& sde_;
  bool probability_flow_;
};

/// The reverse of the SDE's own discretisation (Appendix E): SMLD's chain for VE, DDPM's for VP.
class ReverseDiffusion final : public AffinePredictor {
 public:
  ReverseDiffusion(const SDE& sde, const SamplingConfig& config)
      : AffinePredictor(!config.probability_flow), sde_(sde), probability_flow_(config.probability_flow) {}
  ReverseStep coefficients(const TimePoint& at) const override {
    return reverse(sde_.discretize(at), probability_flow_);
  }

 private:
  const SDE& sde_;
  bool probability_flow_;
};

/// The posterior step of the chain that the SDE is the limit of, with the SDE's own noise, or with the
/// posterior's for a known x_0: G_k std_{k-1} / std_k (DDPM's beta~), none at the end.
class AncestralSampling final : public AffinePredictor {
 public:
  AncestralSampling(const SDE& sde, const SamplingConfig& config)
      : AffinePredictor(true), sde_(sde), is_posterior_(config.ancestral_variance == "posterior") {
    check(!config.probability_flow,
          "sampling.predictor: ancestral_sampling has no probability flow; use reverse_diffusion or set "
          "sampling.probability_flow = false");
  }
  ReverseStep coefficients(const TimePoint& at) const override {
    ReverseStep step = sde_.ancestral(at);
    if (is_posterior_)
      step.c = at.k == 0 ? 0.0 : sde_.discretize(at).G * chain_std(at, -1) / chain_std(at, 0);
    return step;
  }

 private:
  double chain_std(const TimePoint& at, int offset) const {
    return sde_.discrete_marginal(at.k + offset, at.num_scales).std;
  }

  const SDE& sde_;
  bool is_posterior_;
};

/// Leaves the batch alone and asks for no score; the final denoising step is then none either, as in the
/// reference.
class NoPredictor final : public Predictor {
 public:
  std::vector<double> numbers(const TimePoint&) const override { return {}; }
  std::uint32_t draws() const override { return 0; }
  State step(const Tensor& x, const Update&) const override { return {x, x}; }
};

template <class T>
std::unique_ptr<Predictor> create_affine(const SDE& sde, const SamplingConfig& config, int num_scales) {
  auto predictor = std::make_unique<T>(sde, config);
  predictor->coefficients({1.0, num_scales - 1, num_scales});  // refuses combinations before the run begins
  return predictor;
}

struct NamedPredictor {
  std::string_view name;
  std::unique_ptr<Predictor> (*create)(const SDE& sde, const SamplingConfig& config, int num_scales);
};
constexpr NamedPredictor kPredictors[] = {
    {"euler_maruyama", create_affine<EulerMaruyama>},
    {"reverse_diffusion", create_affine<ReverseDiffusion>},
    {"ancestral_sampling", create_affine<AncestralSampling>},
    {"none",
     [](const SDE&, const SamplingConfig&, int) -> std::unique_ptr<Predictor> {
       return std::make_unique<NoPredictor>();
     }},
};

}  // namespace

std::unique_ptr<Predictor> create_predictor(const SDE& sde, const SamplingConfig& config, int num_scales) {
  return find_entry(kPredictors, config.predictor, "sampling.predictor").create(sde, config, num_scales);
}

std::vector<std::string> predictor_names() { return names_of(kPredictors); }

}  // namespace sgm
