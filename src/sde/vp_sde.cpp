#include <cmath>

#include "sde/families.h"

namespace sgm {
namespace {

/// Variance preserving, the limit of DDPM: drift -beta(t) x / 2, diffusion sqrt(beta(t)).
class VPSDE final : public SDE {
 public:
  explicit VPSDE(const SDEConfig& config) : SDE(config.num_scales), beta_(config) {}

  double drift(double t) const override { return -0.5 * beta_.at(t); }
  double diffusion(double t) const override { return std::sqrt(beta_.at(t)); }
  double mean_coeff(double t) const override { return std::exp(beta_.log_mean_coeff(t)); }
  double marginal_std(double t) const override {
    return std::sqrt(-std::expm1(2.0 * beta_.log_mean_coeff(t)));
  }
  double prior_std() const override { return 1.0; }
  /// Where the variance equals that of DDPM's first noise scale.
  double sampling_eps() const override { return 1e-3; }
  /// Independent of N: every continuously trained network is told labels in [0, 999].
  double noise_label(double t) const override { return 999.0 * t; }
  double score_scale(double t) const override { return -1.0 / marginal_std(t); }

  ForwardStep discretize(const TimePoint& at) const override {
    const double beta = chain_beta(at.k, at.num_scales);
    return {std::sqrt(1.0 - beta) - 1.0, std::sqrt(beta)};
  }

  /// The posterior's variance is DDPM's larger choice, beta.
  ReverseStep ancestral(const TimePoint& at) const override {
    const double beta = chain_beta(at.k, at.num_scales), a = 1.0 / std::sqrt(1.0 - beta);
    return {a, a * beta, std::sqrt(beta)};
  }

  /// 1 - beta_k, not its cumulative product: the reference's choice, for which snr values are published.
  double langevin_alpha(const TimePoint& at) const override { return 1.0 - chain_beta(at.k, at.num_scales); }

  Marginal discrete_marginal(int k, int num_scales) const override {
    double log_product = 0.0;
    for (int j = 0; j <= k; ++j) log_product += std::log1p(-chain_beta(j, num_scales));
    return {std::exp(0.5 * log_product), std::sqrt(-std::expm1(log_product))};
  }

  /// Real: sampling grids end at eps > 0, so that their times lie slightly above k / (N - 1).
  double discrete_label(const TimePoint& at) const override { return at.t * (num_scales() - 1); }
  double discrete_score_scale(const TimePoint& at) const override {
    return at.on_grid() ? -1.0 / discrete_marginal(at.k, at.num_scales).std : score_scale(at.t);
  }

 private:
  /// beta_k of a chain of N scales: beta(t) / N.
  double chain_beta(int k, int num_scales) const {
    check(num_scales > beta_.max(),
          "VP SDE: a chain needs more noise scales than sde.beta_max = ", beta_.max(),
          ", or a step would add more than unit variance; got ", num_scales,
          "; raise sde.num_scales or sampling.steps");
    return beta_.at(scale_fraction(k, num_scales)) / num_scales;
  }

  LinearBeta beta_;
};

}  // namespace

std::unique_ptr<SDE> create_vp_sde(const SDEConfig& config) { return std::make_unique<VPSDE>(config); }

}  // namespace sgm
