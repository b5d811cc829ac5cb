#include <array>
#include <cmath>
#include <numbers>

#include "lab/proof/parts.h"

namespace sgm::lab {
namespace {

struct Mode {
  double weight, mean, std;
};
constexpr std::array<Mode, 2> kLine = {{{0.35, -1.0, 0.35}, {0.65, 0.8, 0.25}}};

}  // namespace

std::unique_ptr<SDE> proof_sde(const std::string& name, int num_scales,
                               const std::function<void(SDEConfig&)>& change) {
  SDEConfig config;
  config.name = name;
  config.num_scales = num_scales;
  if (change) change(config);
  return create_sde(config);
}

std::string short_name(const std::string& sde) {
  return sde == "vesde" ? "VE" : sde == "vpsde" ? "VP" : sde == "subvpsde" ? "sub-VP" : sde;
}

std::unique_ptr<Density> line_mixture() {
  std::vector<double> weights, means, variances;
  for (const Mode& mode : kLine) {
    weights.push_back(mode.weight);
    means.push_back(mode.mean);
    variances.push_back(mode.std * mode.std);
  }
  return gaussian_mixture("line", weights, means, variances);
}

std::unique_ptr<Density> plane_mixture() {
  return gaussian_mixture("plane", {0.4, 0.35, 0.25}, {1.2, 0.3, -1.1, 0.9, -0.38, -1.74},
                          {0.16, 0.06, 0.06, 0.12, 0.12, 0.0, 0.0, 0.09, 0.10, -0.03, -0.03, 0.16});
}

double line_cdf(double x, const Marginal& at) {
  double sum = 0.0;
  for (const Mode& mode : kLine) {
    const double std = std::hypot(at.mean_coeff * mode.std, at.std);
    sum += 0.5 * mode.weight * std::erfc((at.mean_coeff * mode.mean - x) / (std * std::numbers::sqrt2));
  }
  return sum;
}

double line_quantile(double u, const Marginal& at) {
  double low = -10.0 * (at.mean_coeff + at.std), high = -low;
  while (true) {
    const double middle = 0.5 * (low + high);
    if (middle <= low || middle >= high) return middle;
    (line_cdf(middle, at) < u ? low : high) = middle;
  }
}

}  // namespace sgm::lab
