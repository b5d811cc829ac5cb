// Orders of convergence: stochastic predictors, weakly and strongly, and the solvers of the ODE.

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lab/proof/parts.h"
#include "sgm/sampling/ode_solver.h"
#include "sgm/sampling/predictor_corrector.h"
#include "sgm/sampling/sampler.h"

namespace sgm::lab {
namespace {

/// A predictor of the tables, as a sampler would make it.
struct Method {
  std::string name;
  SamplingConfig settings;
};

/// All predictors that step this SDE, also along the ODE and with both variances of DDPM.
std::vector<Method> methods_for(const std::string& sde, bool with_flow) {
  std::vector<Method> methods;
  for (const std::string& predictor : predictor_names()) {
    if (predictor == "none" || (predictor == "ancestral_sampling" && sde == "subvpsde")) continue;
    SamplingConfig settings;
    settings.predictor = predictor;
    methods.push_back({predictor, settings});
    if (predictor == "ancestral_sampling") {
      if (sde != "vpsde") continue;
      settings.ancestral_variance = "posterior";
      methods.push_back({predictor + " (posterior variance)", settings});
    } else if (with_flow) {
      settings.probability_flow = true;
      methods.push_back({predictor + " (probability flow)", settings});
    }
  }
  return methods;
}

ReverseStep step_of(const Predictor& predictor, const TimePoint& at) {
  const std::vector<double> numbers = predictor.numbers(at);
  return {numbers.at(0), numbers.at(1), numbers.at(2)};
}

// ---- weak -------------------------------------------------------------------------------------------------

constexpr double kMean = 0.4, kVariance = 0.0625;  // of the Gaussian whose moments are followed

double gaussian_variance(const Marginal& at) {
  return at.mean_coeff * at.mean_coeff * kVariance + at.std * at.std;
}

/// The variance that the sampler leaves, exactly: with the score of a Gaussian every step is affine, and
/// multiplies the variance by (a - b / v_t)^2 and adds c^2.
double final_variance(const SDE& sde, const Method& method, int steps, double eps) {
  const auto predictor = create_predictor(sde, method.settings, steps);
  double variance = sde.prior_std() * sde.prior_std();
  for (const TimePoint& at : sampling_grid(steps, eps)) {
    const ReverseStep step = step_of(*predictor, at);
    const double factor = step.a - step.b / gaussian_variance(marginal_at(sde, at.t));
    variance = factor * factor * variance + step.c * step.c;
  }
  return variance;
}

double order_of(double coarse, double fine) { return std::log2(coarse / fine); }

/// What the variance converges to, by extrapolation from errors proportional to 1 / N.
double limit_of_variance(const SDE& sde, const Method& method, double eps) {
  constexpr int kFinest = 8000;
  return 2.0 * final_variance(sde, method, kFinest, eps) - final_variance(sde, method, kFinest / 2, eps);
}

}  // namespace

void prove_weak_orders(ProofRun& run) {
  for (const std::string& name : sde_names()) {
    const auto sde = proof_sde(name);
    for (const Method& method : methods_for(name, true)) {
      ErrorCurve curve{"weak", short_name(name) + ", " + method.name, {}, {}};
      const double eps = sde->sampling_eps(), limit = limit_of_variance(*sde, method, eps);
      for (int steps = 125; steps <= 2000; steps *= 2) {
        curve.steps.push_back(steps);
        curve.errors.push_back(std::abs(final_variance(*sde, method, steps, eps) - limit));
      }
      const std::size_t last = curve.errors.size() - 1;
      run.near("weak order: " + curve.name, "order of the variance's error",
               order_of(curve.errors[last - 1], curve.errors[last]), 1.0, 0.2);
      // Steps are 1 / N long on a grid of spacing (1 - eps) / (N - 1), and chains walk all of [0, 1] with
      // scores from [eps, 1]: what they converge to is the marginal only where eps tends to 0, too.
      constexpr double kEps = 1e-5;
      run.near("limit: " + curve.name, "limit of the variance / variance of p_eps, eps = 1e-5",
               limit_of_variance(*sde, method, kEps) / gaussian_variance(marginal_at(*sde, kEps)), 1.0,
               0.005);
      run.curve(std::move(curve));
    }
  }
}

namespace {

// ---- strong -----------------------------------------------------------------------------------------------

/// Mean and variance of a path with N steps, of one with 2N, and their covariance, when the same Brownian
/// motion drives both: exactly, because with the score of a Gaussian every step is affine.
class CoupledPaths {
 public:
  CoupledPaths(const SDE& sde, const Method& method, int scales)
      : sde_(sde),
        // SMLD's N scales are N - 1 steps apart; then comes a step from the least noise to none, of the same
        // length at any N, which is compared without its noise. Other chains have N steps to t = 0.
        last_denoises_(sde.drift(1.0) == 0.0 && method.settings.predictor != "euler_maruyama"),
        coarse_{create_predictor(sde, method.settings, scales), scales},
        fine_{create_predictor(sde, method.settings, of_fine(scales)), of_fine(scales)} {
    const double start = sde.prior_std() * sde.prior_std();
    coarse_variance_ = fine_variance_ = covariance_ = start;
  }

  /// Root mean square of the ends' difference.
  double difference() {
    const int steps = coarse_.scales - last_denoises_;
    for (int i = 0; i < steps; ++i)
      advance(map_at(coarse_, i), map_at(fine_, 2 * i), map_at(fine_, 2 * i + 1));
    if (last_denoises_) {
      AffineMap coarse = map_at(coarse_, steps), fine = map_at(fine_, 2 * steps);
      coarse.noise = fine.noise = 0.0;
      advance(coarse, fine, {1.0, 0.0, 0.0});
    }
    const double mean = coarse_mean_ - fine_mean_;
    return std::sqrt(coarse_variance_ - 2.0 * covariance_ + fine_variance_ + mean * mean);
  }

 private:
  struct Chain {
    std::unique_ptr<Predictor> predictor;
    int scales;
  };
  struct AffineMap {
    double factor, offset, noise;
  };

  int of_fine(int scales) const { return 2 * scales - last_denoises_; }

  /// Update i of a chain.
  AffineMap map_at(const Chain& chain, int i) const {
    const int k = chain.scales - 1 - i;
    const double t = last_denoises_ ? static_cast<double>(k) / (chain.scales - 1)
                                    : 1.0 - static_cast<double>(i) / chain.scales;
    const ReverseStep step = step_of(*chain.predictor, {t, k, chain.scales});
    const Marginal now = marginal_at(sde_, t);
    const double pull = step.b / gaussian_variance(now);
    return {step.a - pull, pull * now.mean_coeff * kMean, step.c};
  }

  void advance(const AffineMap& coarse, const AffineMap& first, const AffineMap& second) {
    const double factor = first.factor * second.factor, noise = second.factor * first.noise;
    coarse_mean_ = coarse.factor * coarse_mean_ + coarse.offset;
    fine_mean_ = factor * fine_mean_ + second.factor * first.offset + second.offset;
    covariance_ =
        coarse.factor * factor * covariance_ + coarse.noise * (noise + second.noise) / std::numbers::sqrt2;
    coarse_variance_ = coarse.factor * coarse.factor * coarse_variance_ + coarse.noise * coarse.noise;
    fine_variance_ = factor * factor * fine_variance_ + noise * noise + second.noise * second.noise;
  }

  const SDE& sde_;
  bool last_denoises_;
  Chain coarse_, fine_;
  double coarse_mean_ = 0.0, fine_mean_ = 0.0, coarse_variance_, fine_variance_, covariance_;
};

}  // namespace

void prove_strong_orders(ProofRun& run) {
  for (const std::string& name : sde_names()) {
    const auto sde = proof_sde(name);
    for (const Method& method : methods_for(name, false)) {
      ErrorCurve curve{"strong", short_name(name) + ", " + method.name, {}, {}};
      for (int steps = 125; steps <= 2000; steps *= 2) {
        curve.steps.push_back(steps);
        curve.errors.push_back(CoupledPaths(*sde, method, steps).difference());
      }
      // The posterior's variance is beta (1 - 1 / j) in the chain's j-th step from the data, at any N: such
      // noise differs from the SDE's by sqrt(1 / N) in all.
      const double order = method.settings.ancestral_variance == "posterior" ? 0.5 : 1.0;
      const std::size_t last = curve.errors.size() - 1;
      run.near("strong order: " + curve.name, "order of the paths' difference when steps are halved",
               order_of(curve.errors[last - 1], curve.errors[last]), order, 0.2);
      run.curve(std::move(curve));
    }
  }
}

// ---- solvers of the ODE -----------------------------------------------------------------------------------

namespace {

struct SolverOrder {
  const char* name;
  double order;
  int fewest;  // steps at which the asymptotics have begun
};
constexpr SolverOrder kSolverOrders[] = {
    {"euler", 1.0, 400}, {"heun", 2.0, 400}, {"rk23", 3.0, 200}, {"rk4", 4.0, 200}, {"rk45", 5.0, 160}};

double rms_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

/// The probability-flow ODE with the score in double precision.
DriftFn exact_flow(const SDE& sde, const ScoreFn& score) {
  return [&](const Tensor& y, std::span<const ImageTime> times) {
    return flow_drift(flow_coefficients(sde, times), y, score(y, times));
  };
}

}  // namespace

void prove_solvers(ProofRun& run) {
  // From data to noise; on a line the ODE keeps every point at its quantile, which for a Gaussian means: at
  // its distance from the mean in standard deviations. A narrow one, so that errors stay above rounding.
  constexpr double kNarrow = 0.1;
  const auto density = gaussian_mixture("narrow", {1.0}, {kMean}, {kNarrow * kNarrow});
  for (const std::string& name : sde_names()) {
    const auto sde = proof_sde(name);
    const double eps = sde->sampling_eps();
    const auto points_at = [&](double t) {
      const Marginal at = marginal_at(*sde, t);
      std::vector<double> points;
      for (double distance = -2.0; distance <= 2.0; distance += 0.25)
        points.push_back(at.mean_coeff * kMean + distance * std::hypot(at.mean_coeff * kNarrow, at.std));
      return points;
    };
    const std::vector<double> start = points_at(eps), exact = points_at(1.0);
    const Tensor y0 = Tensor::from_host(run.context(), std::span<const double>(start),
                                        {static_cast<std::int64_t>(start.size()), 1, 1, 1});
    const ScoreFn score = exact_score(*density, *sde);
    for (const SolverOrder& solver : kSolverOrders) {
      ErrorCurve curve{"ODE", short_name(name) + ", " + solver.name, {}, {}};
      for (const int factor : {1, 2, 4}) {
        ODEOptions options;
        options.solver = solver.name;
        options.fixed_steps = factor * solver.fewest;
        const Tensor end = integrate(exact_flow(*sde, score), y0, eps, 1.0, options).y;
        curve.steps.push_back(static_cast<double>(options.fixed_steps));
        curve.errors.push_back(rms_difference(end.to_host_f64(), exact));
      }
      run.near("solver order: " + curve.name, "order of the error against quantiles",
               order_of(curve.errors[1], curve.errors[2]), solver.order, 0.2);
      run.curve(std::move(curve));
    }
  }
}

}  // namespace sgm::lab
