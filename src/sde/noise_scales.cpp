#include "sgm/sde/noise_scales.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "sgm/core/error.h"

namespace sgm {
namespace {

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

}  // namespace

double scale_overlap(double ratio, std::int64_t dim) {
  const double shift = std::sqrt(2.0 * static_cast<double>(dim)) * (ratio - 1.0);
  return normal_cdf(shift + 3.0 * ratio) - normal_cdf(shift - 3.0 * ratio);
}

double scale_ratio(std::int64_t dim) {
  check(dim >= 5, "noise scales: need images of at least 5 elements, got ", dim);
  double low = 1.0, high = 100.0;  // at 5 elements the ratio is 19.5, and it falls with their number
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (scale_overlap(middle, dim) > 0.5 ? low : high) = middle;
  }
  return low;
}

int scale_count(double sigma_min, double sigma_max, double ratio) {
  check(sigma_min > 0 && sigma_max > sigma_min && std::isfinite(sigma_max),
        "noise scales: need 0 < sigma_min < sigma_max, got ", sigma_min, " and ", sigma_max);
  check(ratio > 1 && std::isfinite(ratio), "noise scales: their ratio must be above 1, got ", ratio);
  return std::max(2, 1 + static_cast<int>(std::lround(std::log(sigma_max / sigma_min) / std::log(ratio))));
}

double annealed_variance(double step_lr, double sigma_min, double ratio, int steps) {
  const double u = step_lr / (sigma_min * sigma_min), stays = 1.0 / (1.0 - 0.5 * u);
  return std::pow(1.0 - u, 2 * steps) * (ratio * ratio - stays) + stays;
}

double annealed_step(double sigma_min, double ratio, int steps) {
  check(steps >= 1, "noise scales: need at least one Langevin step at each, got ", steps);
  // The variance falls with the step as long as too much of the noise before is left, then rises with what
  // the steps add themselves: its only minimum, by golden sections of log u.
  constexpr double kSection = 0.6180339887498949;
  double low = std::log(1e-12), high = 0.0;
  const auto variance = [&](double log_u) {
    return annealed_variance(sigma_min * sigma_min * std::exp(log_u), sigma_min, ratio, steps);
  };
  for (int i = 0; i < 100; ++i) {
    const double left = high - kSection * (high - low), right = low + kSection * (high - low);
    if (variance(left) < variance(right))
      high = right;
    else
      low = left;
  }
  return sigma_min * sigma_min * std::exp(0.5 * (low + high));
}

}  // namespace sgm
