// The probability-flow ODE: likelihoods and latent codes.

#include <algorithm>
#include <cmath>

#include "lab/proof/parts.h"
#include "sgm/sampling/latent.h"
#include "sgm/sampling/likelihood.h"

namespace sgm::lab {
namespace {

constexpr double kEps = 1e-5;

FlowOptions flow_options(double tolerance) {
  FlowOptions options;
  options.eps = kEps;
  options.ode.rtol = options.ode.atol = tolerance;
  return options;
}

/// Likelihoods assume that x_1 is N(0, prior_std^2), which leaves out the data's own variance: under VE an
/// error of up to (|x| / sigma_max)^2, which a wider range makes negligible.
std::unique_ptr<SDE> sde_for_likelihoods(const std::string& name) {
  return proof_sde(name, 1000, [](SDEConfig& config) { config.sigma_max = 500.0; });
}

/// log p_eps at every point of a batch.
std::vector<double> true_log_probs(const Density& density, const SDE& sde, const Tensor& x) {
  const auto p = density.at(marginal_at(sde, kEps));
  const std::vector<double> points = x.to_host_f64();
  const std::size_t d = static_cast<std::size_t>(density.dim());
  std::vector<double> result;
  for (std::size_t at = 0; at < points.size(); at += d)
    result.push_back(p->log_prob(std::span(points).subspan(at, d)));
  return result;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    if (!std::isnan(worst) && !(difference <= worst)) worst = difference;
  }
  return worst;
}

/// How many standard errors the estimates' mean is away from the truth's.
double standard_errors_off(const std::vector<double>& estimates, const std::vector<double>& truth) {
  const double n = static_cast<double>(truth.size());
  double mean = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double difference = estimates[i] - truth[i];
    mean += difference / n, squares += difference * difference / n;
  }
  return std::abs(mean) / std::sqrt((squares - mean * mean) / (n - 1.0));
}

std::vector<double> log_likelihoods(const SDE& sde, const ScoreProductFn& score, const Tensor& x,
                                    const Probes& probes, double tolerance) {
  const Likelihood result = log_likelihood(sde, score, x, probes, flow_options(tolerance));
  std::vector<double> values;
  for (std::size_t i = 0; i < result.delta.size(); ++i) values.push_back(result.log_likelihood(i));
  return values;
}

}  // namespace

void prove_likelihoods(ProofRun& run) {
  const auto density = plane_mixture();
  const std::int64_t n = run.is_full() ? 1000 : 100;
  for (const std::string& name : sde_names()) {
    const auto sde = sde_for_likelihoods(name);
    const ScoreProductFn score = exact_score_product(*density, *sde);
    const Tensor x = sample_tensor(*density, run.context(), n, 1);
    const std::vector<double> truth = true_log_probs(*density, *sde, x);
    const auto exact = log_likelihoods(*sde, score, x, unit_probes(run.context(), x.shape()), 1e-6);
    run.at_most("likelihood: " + short_name(name) + ", exact trace, rtol 1e-6",
                "largest error in nats of " + std::to_string(n) + " points", largest_difference(exact, truth),
                1e-3);
    for (const std::string& kind : probe_names()) {
      const Probes probes = random_probes(kind, run.context(), x.shape(), 1, {2, Purpose::probe});
      run.at_most("likelihood: " + short_name(name) + ", one " + kind + " probe",
                  "error of the mean in standard errors",
                  standard_errors_off(log_likelihoods(*sde, score, x, probes, 1e-5), truth), 3.3);
    }
  }
}

void prove_encoding(ProofRun& run) {
  const auto plane = plane_mixture(), line = line_mixture();
  const std::int64_t n = run.is_full() ? 1000 : 100;
  for (const std::string& name : sde_names()) {
    const auto sde = proof_sde(name);
    const Tensor x = sample_tensor(*plane, run.context(), n, 3),
                 z = encode(*sde, exact_score(*plane, *sde), x, flow_options(1e-7)).x;
    const Tensor back = decode(*sde, exact_score(*plane, *sde), z, flow_options(1e-7)).x;
    run.at_most("encoding: " + short_name(name) + ", decode(encode(x)), rtol 1e-7",
                "largest error of " + std::to_string(n) + " points",
                largest_difference(back.to_host_f64(), x.to_host_f64()), 1e-4);

    // On a line the latent code of x is the point at the same quantile.
    const Tensor on_line = sample_tensor(*line, run.context(), n, 4);
    std::vector<double> exact;
    for (const double value : on_line.to_host_f64())
      exact.push_back(line_quantile(line_cdf(value, marginal_at(*sde, kEps)), marginal_at(*sde, 1.0)));
    const Tensor codes = encode(*sde, exact_score(*line, *sde), on_line, flow_options(1e-8)).x;
    run.at_most("encoding: " + short_name(name) + ", codes on a line, rtol 1e-8",
                "largest error / prior's standard deviation",
                largest_difference(codes.to_host_f64(), exact) / sde->prior_std(), 1e-4);
  }
}

}  // namespace sgm::lab
