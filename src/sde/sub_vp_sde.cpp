#include <cmath>

#include "sde/families.h"

namespace sgm {
namespace {

/// Sub-VP: the drift of VP with less diffusion, so that the marginal variance stays below VP's at every t and
/// has the same limit. It is defined in continuous time only.
class SubVPSDE final : public SDE {
 public:
  explicit SubVPSDE(const SDEConfig& config) : SDE(config.num_scales), beta_(config) {}

  double drift(double t) const override { return -0.5 * beta_.at(t); }
  double diffusion(double t) const override {
    return std::sqrt(-beta_.at(t) * std::expm1(4.0 * beta_.log_mean_coeff(t)));
  }
  double mean_coeff(double t) const override { return std::exp(beta_.log_mean_coeff(t)); }
  double marginal_std(double t) const override { return -std::expm1(2.0 * beta_.log_mean_coeff(t)); }
  double prior_std() const override { return 1.0; }
  double sampling_eps() const override { return 1e-3; }
  double noise_label(double t) const override { return 999.0 * t; }
  double score_scale(double t) const override { return -1.0 / marginal_std(t); }

  /// Neither the paper nor the reference has a corrector for sub-VP; this is VP's alpha in continuous time.
  double langevin_alpha(const TimePoint& at) const override {
    check(at.num_scales > beta_.max(),
          "sub-VP SDE: the corrector needs more steps than sde.beta_max = ", beta_.max(), ", got ",
          at.num_scales, "; raise sde.num_scales or sampling.steps");
    return 1.0 - beta_.at(at.t) / at.num_scales;
  }

 private:
  LinearBeta beta_;
};

}  // namespace

std::unique_ptr<SDE> create_sub_vp_sde(const SDEConfig& config) { return std::make_unique<SubVPSDE>(config); }

}  // namespace sgm
