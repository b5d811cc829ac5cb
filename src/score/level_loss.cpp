#include "sgm/score/level_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "sgm/core/error.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

MeanAndError summary(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0.0, squares = 0.0;
  for (const double value : values) mean += value / n;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double error = n > 1 ? std::sqrt(squares / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN();
  return {mean, error};
}

}  // namespace

LevelLosses::LevelLosses(const SDE& sde, const TrainingConfig& config, int levels, std::uint64_t seed)
    : config_(config), loss_(sde, config), seed_(seed) {
  check(levels >= 1, "loss: at least one noise level is needed, got ", levels);
  const int count = config.continuous ? levels : std::min(levels, sde.num_scales());
  for (int l = 0; l < count; ++l) u_.push_back((l + 0.5) / count);
  losses_.resize(u_.size());
}

void LevelLosses::add(const LossNetwork& network, const Tensor& x0, std::int64_t first, int level) {
  check(x0.numel() > 0, "loss: no images at noise level ", level);
  const auto l = static_cast<std::size_t>(level);
  const NoiseKey key{seed_, Purpose::noise, static_cast<std::uint32_t>(level),
                     static_cast<std::uint32_t>(first)};
  const std::vector<double> u(static_cast<std::size_t>(x0.shape()[0]), u_.at(l));
  const LossResult result = loss_.evaluate(
      network, x0, u, Loss::Draws{.z = normal(x0.context(), x0.shape(), key, 1.0, x0.dtype())});
  for (const double value : result.per_image.to_host_f64()) losses_[l].push_back(value);
  dim_ = x0.numel() / x0.shape()[0];
}

std::vector<LevelLoss> LevelLosses::results() const {
  std::vector<LevelLoss> results;
  for (std::size_t l = 0; l < u_.size(); ++l) {
    const LossTerms terms = loss_.terms(u_[l]);
    const MeanAndError loss = summary(losses_[l]);
    // loss = weight reduce((a net + b z)^2), and std score + z = (a net + b z) / b.
    const double per_dim = config_.reduce_mean ? 1.0 : 2.0 / static_cast<double>(dim_);
    const double noise_error = per_dim * loss.mean / (terms.weight * terms.b * terms.b);
    results.push_back({loss_.time_at(u_[l]),
                       {terms.mean_coeff, terms.std},
                       loss,
                       noise_error,
                       terms.std / terms.mean_coeff * std::sqrt(noise_error)});
  }
  return results;
}

MeanAndError LevelLosses::total() const {
  std::vector<double> of_image(losses_.front().size());
  for (const std::vector<double>& level : losses_)
    for (std::size_t i = 0; i < of_image.size(); ++i)
      of_image[i] += level.at(i) / static_cast<double>(losses_.size());
  return summary(of_image);
}

}  // namespace sgm
