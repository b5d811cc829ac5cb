#pragma once
// Factories of the table in sde.cpp, and what their families share.

#include <memory>

#include "sgm/core/config.h"
#include "sgm/core/error.h"
#include "sgm/sde/sde.h"

namespace sgm {

std::unique_ptr<SDE> create_ve_sde(const SDEConfig& config);
std::unique_ptr<SDE> create_vp_sde(const SDEConfig& config);
std::unique_ptr<SDE> create_sub_vp_sde(const SDEConfig& config);

/// Scale k of N as a fraction: 0 at the least noise, 1 at the most.
inline double scale_fraction(int k, int num_scales) {
  check(k >= 0 && k < num_scales, "noise scale ", k, " of ", num_scales, " does not exist");
  return num_scales > 1 ? static_cast<double>(k) / (num_scales - 1) : 1.0;
}

/// The linear schedule beta(t) = beta_min + t (beta_max - beta_min) of VP and sub-VP.
class LinearBeta {
 public:
  explicit LinearBeta(const SDEConfig& config) : min_(config.beta_min), max_(config.beta_max) {
    // Written so that NaN fails.
    check(min_ >= 0 && max_ > min_ && max_ < 1e9,
          "sde.beta_min and sde.beta_max must satisfy 0 <= beta_min < beta_max, got ", min_, " and ", max_);
  }
  double at(double t) const { return min_ + t * (max_ - min_); }
  /// log of the mean coefficient: minus half the integral of beta from 0 to t.
  double log_mean_coeff(double t) const { return -t * (0.25 * t * (max_ - min_) + 0.5 * min_); }
  double max() const { return max_; }

 private:
  double min_, max_;
};

}  // namespace sgm
