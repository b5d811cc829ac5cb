#include <cmath>

#include "sde/families.h"

namespace sgm {
namespace {

/// Variance exploding, the limit of SMLD: sigma(t) = sigma_min (sigma_max / sigma_min)^t, no drift. The
/// marginal variance is sigma(t)^2, that of the chain, whose first step goes from 0 to sigma_min.
class VESDE final : public SDE {
 public:
  explicit VESDE(const SDEConfig& config)
      : SDE(config.num_scales), min_(config.sigma_min), max_(config.sigma_max) {
    check(min_ > 0 && max_ > min_ && max_ < 1e9,
          "sde.sigma_min and sde.sigma_max must satisfy 0 < sigma_min < sigma_max, got ", min_, " and ",
          max_);
  }

  double drift(double) const override { return 0.0; }
  double diffusion(double t) const override { return sigma(t) * std::sqrt(2.0 * std::log(max_ / min_)); }
  double mean_coeff(double) const override { return 1.0; }
  double marginal_std(double t) const override { return sigma(t); }
  double prior_std() const override { return max_; }
  double sampling_eps() const override { return 1e-5; }
  double noise_label(double t) const override { return sigma(t); }
  double score_scale(double) const override { return 1.0; }

  ForwardStep discretize(const TimePoint& at) const override { return {0.0, std::sqrt(variance_step(at))}; }

  ReverseStep ancestral(const TimePoint& at) const override {
    const double now = sigma(at.k, at.num_scales), gained = variance_step(at);
    return {1.0, gained, std::sqrt(gained * (1.0 - gained / (now * now)))};
  }

  Marginal discrete_marginal(int k, int num_scales) const override { return {1.0, sigma(k, num_scales)}; }

  /// Integers, 0 for the most noise: the row of the network's table of descending sigmas.
  double discrete_label(const TimePoint& at) const override {
    const double noise = at.on_grid() ? scale_fraction(at.k, at.num_scales) : at.t;
    return std::round((1.0 - noise) * (num_scales() - 1));
  }
  double discrete_score_scale(const TimePoint&) const override { return 1.0; }

 private:
  double sigma(double t) const { return min_ * std::pow(max_ / min_, t); }
  double sigma(int k, int num_scales) const { return sigma(scale_fraction(k, num_scales)); }

  /// sigma_k^2 - sigma_{k-1}^2, where sigma_{-1} = 0.
  double variance_step(const TimePoint& at) const {
    const double now = sigma(at.k, at.num_scales);
    if (at.k == 0) return now * now;
    const double before = sigma(at.k - 1, at.num_scales);
    return (now - before) * (now + before);
  }

  double min_, max_;
};

}  // namespace

std::unique_ptr<SDE> create_ve_sde(const SDEConfig& config) { return std::make_unique<VESDE>(config); }

}  // namespace sgm
