// What correctors do to a Gaussian that they should leave alone.

#include <cmath>

#include "lab/proof/parts.h"
#include "sgm/sampling/predictor_corrector.h"
#include "sgm/sampling/sampler.h"

namespace sgm::lab {
namespace {

constexpr double kPointVariance = 0.0625, kTime = 0.3;

/// Images of many independent elements: the norms of scores and noise are then what theory says.
constexpr Shape kImages = {512, 16, 16, 1};

/// Variance of a batch after many steps at one time, over the Gaussian's.
double stationary_variance(ProofRun& run, const SDE& sde, const SamplingConfig& settings, double variance,
                           int steps) {
  const TimePoint at{kTime, static_cast<int>(kTime * (sde.num_scales() - 1)), sde.num_scales()};
  const auto corrector = create_corrector(sde, settings, sde.num_scales());
  const std::vector<double> numbers = corrector->numbers(at);
  const std::vector<Coefficient> coefficients(numbers.begin(), numbers.end());
  Tensor x = normal(run.context(), kImages, NoiseKey{5, Purpose::prior}, std::sqrt(variance));
  for (int i = 0; i < steps; ++i) {
    const Update update{coefficients, false,
                        [&](const Tensor& y) { return affine_step({.x = y, .a = -1.0 / variance}).y; },
                        [&](std::uint32_t draw, const Tensor&) {
                          return Noise{{5, Purpose::corrector, static_cast<std::uint32_t>(i) + draw}, {}};
                        }};
    x = corrector->step(x, update).x;
  }
  double sum = 0.0;
  for (const double value : x.to_host_f64()) sum += value * value;
  return sum / static_cast<double>(kImages.numel()) / variance;
}

}  // namespace

void prove_correctors(ProofRun& run) {
  for (const std::string& name : sde_names()) {
    const auto sde = proof_sde(name);
    const Marginal now = marginal_at(*sde, kTime);
    const double variance = now.mean_coeff * now.mean_coeff * kPointVariance + now.std * now.std;
    const double alpha =
        sde->langevin_alpha({kTime, static_cast<int>(kTime * (sde->num_scales() - 1)), sde->num_scales()});
    for (const std::string& corrector : corrector_names())
      for (const double snr : {0.16, 0.4}) {
        if (corrector == "none") continue;
        SamplingConfig settings;
        settings.corrector = corrector;
        settings.snr = snr;
        settings.batch_mean_norms = true;
        // A step s multiplies deviations by 1 - s / v and adds 2 s, which settles at v / (1 - s / 2v). The
        // step of `ald` is fixed; that of `langevin` follows the score's norm, so that s = 2 alpha snr^2 v^2
        // / V.
        const double pull = 2.0 * alpha * std::pow(snr * now.std, 2) / variance;
        const double expected = corrector == "ald" ? 1.0 / (1.0 - 0.5 * pull) : 1.0 + alpha * snr * snr;
        const int steps = static_cast<int>(std::ceil(1.5 / (alpha * snr * snr)));
        run.near(
            "corrector: " + short_name(name) + ", " + corrector + ", snr " + (snr < 0.3 ? "0.16" : "0.4"),
            "variance that it settles at / the law's",
            stationary_variance(run, *sde, settings, variance, steps), expected, 0.015);
      }
  }
}

}  // namespace sgm::lab
