// Every sampler, with the closed-form score, against exact draws.

#include <cmath>

#include "lab/proof/parts.h"
#include "lab/two_sample.h"
#include "sgm/sampling/ode_solver.h"
#include "sgm/sampling/predictor_corrector.h"
#include "sgm/sampling/sampler.h"

namespace sgm::lab {
namespace {

struct Combination {
  std::string name;
  SamplingConfig settings;
};

/// A signal-to-noise ratio at which correctors bias variances by 0.25 %, less than the test can see.
constexpr double kQuietSnr = 0.05;

SamplingConfig plain_settings() {
  SamplingConfig settings;
  settings.denoise = false;
  settings.batch_mean_norms = true;  // points of two numbers are too small for norms of their own
  settings.corrector = "none";
  return settings;
}

/// Samplers that converge fast enough to be indistinguishable from the truth.
std::vector<Combination> accurate_samplers(const std::string& sde, bool full) {
  std::vector<Combination> all;
  for (const std::string& predictor : predictor_names())
    for (const std::string& corrector : corrector_names()) {
      const bool ancestral = predictor == "ancestral_sampling";
      if (predictor == "none" || (ancestral && sde == "subvpsde")) continue;
      if (!full && (corrector == "ald" || (corrector == "none") != ancestral)) continue;
      SamplingConfig settings = plain_settings();
      settings.snr = kQuietSnr;
      settings.predictor = predictor;
      settings.corrector = corrector;
      // SMLD's chain has the largest errors of first order: 1 % of the variance at 1000 steps.
      settings.steps = !full ? 250 : sde == "vesde" ? 1000 : 400;
      all.push_back({predictor + ", " + corrector, settings});
    }
  for (const std::string solver : {"rk45", "rk23", "rk4", "heun"}) {
    if (!full && solver != "rk45") continue;
    SamplingConfig settings = plain_settings();
    settings.method = "ode";
    settings.solver = solver;
    settings.steps = 250;
    all.push_back({"ODE, " + solver, settings});
  }
  return all;
}

/// p of the test between the points of a sampler that knows the score of `density` and draws of `expected`.
double p_of(ProofRun& run, const SDE& sde, const Density& density, const SamplingConfig& settings,
            const Density& expected, const Marginal& end, std::int64_t n) {
  const SampleRequest request{.shape = {n, 1, 1, density.dim()}, .seed = 20};
  const Tensor x = create_sampler(sde, settings)->sample(run.context(), exact_score(density, sde), request).x;
  return two_sample_test(x.to_host_f64(), expected.sample(n, 21, 0, end), density.dim()).p;
}

// ---- samplers that theory says are biased
// -------------------------------------------------------------------

constexpr double kDataVariance = 0.25;

std::unique_ptr<Density> plane_gaussian(double variance) {
  return gaussian_mixture("gaussian", {1.0}, {0.0, 0.0}, {variance, 0.0, 0.0, variance});
}

/// Without a predictor points only follow the falling noise as fast as the corrector takes them, and
/// predictors that follow the ODE have errors of percents at these numbers of steps.
std::vector<Combination> biased_samplers() {
  std::vector<Combination> all;
  for (const std::string& predictor : predictor_names())
    for (const std::string& corrector : corrector_names()) {
      const bool lags = predictor == "none";
      if (predictor == "ancestral_sampling" || (lags && corrector == "none")) continue;
      SamplingConfig settings = plain_settings();
      settings.predictor = predictor;
      settings.corrector = corrector;
      settings.probability_flow = !lags;
      settings.steps = 200;
      all.push_back(
          {(lags ? "no predictor" : predictor + " (probability flow)") + ", " + corrector, settings});
    }
  return all;
}

/// The variance of a Gaussian by the recursion of the sampler's affine steps.
double predicted_variance(const SDE& sde, const SamplingConfig& settings) {
  const auto predictor = create_predictor(sde, settings, settings.steps);
  double variance = sde.prior_std() * sde.prior_std();
  for (const TimePoint& at : sampling_grid(settings.steps, sde.sampling_eps())) {
    const Marginal now = marginal_at(sde, at.t);
    const double exact = now.mean_coeff * now.mean_coeff * kDataVariance + now.std * now.std;
    const auto apply = [&](double a, double b, double c) {
      variance = std::pow(a - b / exact, 2) * variance + c * c;
    };
    const double square = 2.0 * sde.langevin_alpha(at) * settings.snr * settings.snr;
    const double scale = settings.corrector == "ald" ? now.std * now.std : exact * exact / variance;
    const double step = settings.corrector == "none" ? 0.0 : square * scale;
    apply(1.0, step, std::sqrt(2.0 * step));
    if (const std::vector<double> numbers = predictor->numbers(at); !numbers.empty())
      apply(numbers.at(0), numbers.at(1), numbers.at(2));
  }
  return variance;
}

void prove_biased_samplers(ProofRun& run, const SDE& sde, const std::string& name, std::int64_t n) {
  const auto density = plane_gaussian(kDataVariance);
  for (const Combination& combination : biased_samplers()) {
    if (!run.is_full() && combination.settings.corrector == "none") continue;
    const auto expected = plane_gaussian(predicted_variance(sde, combination.settings));
    run.at_least("sampler: " + short_name(name) + ", " + combination.name,
                 "p against the law that theory predicts",
                 p_of(run, sde, *density, combination.settings, *expected, {1.0, 0.0}, n), 1e-3);
  }
}

/// Annealed Langevin dynamics: scales close together, and steps enough to forget the scale before.
void prove_annealed_langevin(ProofRun& run, std::int64_t n) {
  const auto density = plane_mixture();
  const auto sde =
      proof_sde("vesde", 30, [](SDEConfig& config) { config.sigma_min = 0.1, config.sigma_max = 10.0; });
  SamplingConfig settings = plain_settings();
  settings.method = "annealed_langevin";
  settings.n_steps_each = 150;
  settings.step_lr = 1e-3;
  run.at_least("sampler: VE, annealed Langevin", "p of the two-sample test, " + std::to_string(n) + " points",
               p_of(run, *sde, *density, settings, *density, marginal_at(*sde, 0.0), n), 1e-3);
}

}  // namespace

void prove_samplers(ProofRun& run) {
  const auto density = plane_mixture();
  const std::int64_t n = run.is_full() ? 50'000 : 5000;
  for (const std::string& name : sde_names()) {
    const auto sde = proof_sde(name);
    const Marginal end = marginal_at(*sde, sde->sampling_eps());
    for (const Combination& combination : accurate_samplers(name, run.is_full()))
      run.at_least("sampler: " + short_name(name) + ", " + combination.name,
                   "p of the two-sample test, " + std::to_string(n) + " points",
                   p_of(run, *sde, *density, combination.settings, *density, end, n), 1e-3);
    prove_biased_samplers(run, *sde, name, n);
  }
  if (run.is_full()) prove_annealed_langevin(run, n);
}

}  // namespace sgm::lab
