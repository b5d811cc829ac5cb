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

std::vector<Combination> combinations(const std::string& sde, bool full) {
  std::vector<Combination> all;
  const auto add = [&](std::string name, const auto& change) {
    SamplingConfig settings;
    settings.denoise = false;
    settings.batch_mean_norms = true;  // points of two numbers are too small for norms of their own
    settings.snr = kQuietSnr;
    settings.corrector = "none";
    change(settings);
    all.push_back({std::move(name), settings});
  };
  for (const std::string& predictor : predictor_names())
    for (const std::string& corrector : corrector_names())
      for (const bool flow : {false, true}) {
        const bool ancestral = predictor == "ancestral_sampling";
        if (predictor == "none" || (ancestral && (flow || sde == "subvpsde"))) continue;
        if (!full && (flow || corrector == "ald" || (corrector == "none") != ancestral)) continue;
        add(predictor + ", " + corrector + (flow ? ", probability flow" : ""), [&](SamplingConfig& settings) {
          settings.predictor = predictor;
          settings.corrector = corrector;
          settings.probability_flow = flow;
        });
      }
  for (const std::string& solver : solver_names()) {
    if (!full && solver != "rk45") continue;
    add("ODE, " + solver, [&](SamplingConfig& settings) {
      settings.method = "ode";
      settings.solver = solver;
    });
  }
  return all;
}

/// p of the test between a sampler's points and exact draws at the time where it stops.
double p_of(ProofRun& run, const SDE& sde, const Density& density, const SamplingConfig& settings,
            const Marginal& end, std::int64_t n) {
  const Shape shape{n, 1, 1, density.dim()};
  const ScoreFn score = exact_score(density, sde);
  const Tensor x =
      create_sampler(sde, settings)->sample(run.context(), score, {.shape = shape, .seed = 20}).x;
  return two_sample_test(x.to_host_f64(), density.sample(n, 21, 0, end), density.dim()).p;
}

// ---- samplers that theory says are biased
// -------------------------------------------------------------------

constexpr double kVariance = 0.25;

std::unique_ptr<Density> plane_gaussian(double variance) {
  return gaussian_mixture("gaussian", {1.0}, {0.0, 0.0}, {variance, 0.0, 0.0, variance});
}

/// Without a predictor, points only follow the falling noise as fast as the corrector takes them: the
/// variance of a Gaussian by the recursion of its affine steps.
double lagging_variance(const SDE& sde, const SamplingConfig& settings) {
  const auto corrector = create_corrector(sde, settings, settings.steps);
  double variance = sde.prior_std() * sde.prior_std();
  for (const TimePoint& at : sampling_grid(settings.steps, sde.sampling_eps())) {
    const Marginal now = marginal_of(sde, at.t);
    const double exact = now.mean_coeff * now.mean_coeff * kVariance + now.std * now.std;
    const double square = 2.0 * sde.langevin_alpha(at) * settings.snr * settings.snr;
    const double step =
        settings.corrector == "ald" ? square * now.std * now.std : square * exact * exact / variance;
    variance = std::pow(1.0 - step / exact, 2) * variance + 2.0 * step;
  }
  return variance;
}

void prove_lag(ProofRun& run, const SDE& sde, const std::string& name, std::int64_t n) {
  for (const std::string corrector : {"langevin", "ald"}) {
    SamplingConfig settings;
    settings.predictor = "none";
    settings.corrector = corrector;
    settings.denoise = false;
    settings.batch_mean_norms = true;
    settings.steps = 200;
    const auto density = plane_gaussian(kVariance);
    const auto expected = plane_gaussian(lagging_variance(sde, settings));
    const Tensor x =
        create_sampler(sde, settings)
            ->sample(run.context(), exact_score(*density, sde), {.shape = {n, 1, 1, 2}, .seed = 20})
            .x;
    run.at_least("sampler: " + short_name(name) + ", no predictor, " + corrector,
                 "p against the law that theory predicts",
                 two_sample_test(x.to_host_f64(), expected->sample(n, 21), 2).p, 1e-3);
  }
}

/// Annealed Langevin dynamics: scales close together, and steps enough to forget the scale before.
void prove_annealed_langevin(ProofRun& run, std::int64_t n) {
  const auto density = plane_mixture();
  const auto sde =
      proof_sde("vesde", 60, [](SDEConfig& config) { config.sigma_min = 0.1, config.sigma_max = 10.0; });
  SamplingConfig settings;
  settings.method = "annealed_langevin";
  settings.denoise = false;
  settings.n_steps_each = 40;
  settings.step_lr = 4e-4;
  run.at_least("sampler: VE, annealed Langevin", "p of the two-sample test, " + std::to_string(n) + " points",
               p_of(run, *sde, *density, settings, marginal_of(*sde, 0.0), n), 1e-3);
}

}  // namespace

void prove_samplers(ProofRun& run) {
  const auto density = plane_mixture();
  const std::int64_t n = run.is_full() ? 50'000 : 5000;
  const int steps = run.is_full() ? 1000 : 250;
  for (const std::string& name : sde_names()) {
    const auto sde = proof_sde(name, steps);
    for (const Combination& combination : combinations(name, run.is_full()))
      run.at_least("sampler: " + short_name(name) + ", " + combination.name,
                   "p of the two-sample test, " + std::to_string(n) + " points",
                   p_of(run, *sde, *density, combination.settings, marginal_of(*sde, sde->sampling_eps()), n),
                   1e-3);
    prove_lag(run, *sde, name, n);
  }
  if (run.is_full()) prove_annealed_langevin(run, n);
}

}  // namespace sgm::lab
