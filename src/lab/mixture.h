#pragma once
// What all closed-form densities have in common: sums of components, taken in logarithms.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "sgm/core/random.h"
#include "sgm/lab/density.h"

namespace sgm {

/// Of densities; points are kept on the stack.
inline constexpr std::size_t kMaxDim = 32;

/// exp(x) for x <= 0 to two units in the last place; 0 below -708, where exp is about to underflow. Without a
/// call or a branch, so that loops over it are vectorised.
inline double exp_of_negative(double x) {
  constexpr double kShift = 0x1.8p52;  // adding it rounds to integers, which are then the low bits
  const double clamped = x < -708.0 ? -708.0 : x;
  const double shifted = clamped * 1.4426950408889634 + kShift, n = shifted - kShift;
  const double r = (clamped - n * 0x1.62e42fefa3800p-1) - n * 0x1.ef35793c76730p-45;
  double p = 1.0 / 6227020800.0;  // Taylor's series; |r| <= ln(2) / 2
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const double power = std::bit_cast<double>((std::bit_cast<std::uint64_t>(shifted) + 1023u) << 52);
  return x < -708.0 ? 0.0 : p * power;
}

/// Coordinates or gradients of Lanes points, coordinate by coordinate.
template <std::size_t Lanes>
using Block = std::array<std::array<double, Lanes>, kMaxDim>;

/// sum_k exp(l_k(x)) from its components' l_k. Components has
///   std::size_t dim() const; std::size_t count() const;
///   auto prepare(const Block<Lanes>& x) const;                   what all components need of the points
///   void log_density(k, prepared, l, gradient)                   l_k [Lanes] and its gradient [dim][Lanes]
///   void curvature(k, prepared, v, out);                         the Hessian of l_k at one point, times v
template <class Components>
class Mixture final : public PerturbedDensity {
 public:
  explicit Mixture(Components components) : components_(std::move(components)) {}

  double log_prob(std::span<const double> x) const override {
    std::array<double, kMaxDim> unused;
    return score(x, std::span(unused).first(x.size()));
  }

  double score(std::span<const double> x, std::span<double> out) const override {
    return evaluate<1>(x.data(), out.data(), 1);
  }

  void scores(std::span<const double> x, std::span<double> out) const override {
    const std::size_t n = x.size() / components_.dim();
    for (std::size_t first = 0; first < n; first += kLanes) {
      const std::size_t at = first * components_.dim();
      evaluate<kLanes>(x.data() + at, out.data() + at, std::min(kLanes, n - first));
    }
  }

  /// The Hessian of a mixture's logarithm: the components' Hessians and the covariance of their gradients,
  /// both weighted by the components' shares at x.
  void score_product(std::span<const double> x, std::span<const double> direction, std::span<double> score,
                     std::span<double> product) const override {
    const double log_prob = this->score(x, score);
    const std::size_t d = components_.dim();
    Block<1> point{}, gradient;
    for (std::size_t i = 0; i < d; ++i) point[i][0] = x[i];
    const auto prepared = components_.prepare(point);
    std::array<double, kMaxDim> curved;
    std::fill(product.begin(), product.end(), 0.0);
    for (std::size_t k = 0; k < components_.count(); ++k) {
      std::array<double, 1> l;
      components_.log_density(k, prepared, l, gradient);
      if (l[0] <= log_prob - kNegligible) continue;
      components_.curvature(k, prepared, direction.data(), curved.data());
      double along = 0.0;
      for (std::size_t i = 0; i < d; ++i) along += (gradient[i][0] - score[i]) * direction[i];
      const double share = std::exp(l[0] - log_prob);
      for (std::size_t i = 0; i < d; ++i)
        product[i] += share * (curved[i] + along * (gradient[i][0] - score[i]));
    }
  }

 private:
  static constexpr std::size_t kLanes = 16;
  static constexpr double kNegligible = 50.0;  // exp(-50) is far below rounding
  static constexpr double kLowest = -1e300;

  /// Scores of up to Lanes points [n, dim]; returns the first one's log density. One pass over the
  /// components, relative to the largest so far, so that nothing over- or underflows.
  template <std::size_t Lanes>
  double evaluate(const double* x, double* out, std::size_t n) const {
    const std::size_t d = components_.dim();
    Block<Lanes> point{}, gradient, weighted;
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t lane = 0; lane < Lanes; ++lane) point[i][lane] = x[std::min(lane, n - 1) * d + i];
    const auto prepared = components_.prepare(point);
    std::array<double, Lanes> top, sum, l, weight, shrunk;
    top.fill(kLowest), sum.fill(0.0);
    for (std::size_t i = 0; i < d; ++i) weighted[i].fill(0.0);
    for (std::size_t k = 0; k < components_.count(); ++k) {
      components_.log_density(k, prepared, l, gradient);
      if (none_counts(l, top)) continue;
      for (std::size_t lane = 0; lane < Lanes; ++lane) {
        const double higher = l[lane] > top[lane] ? l[lane] : top[lane];
        shrunk[lane] = exp_of_negative(top[lane] - higher);
        weight[lane] = exp_of_negative(l[lane] - higher);
        sum[lane] = sum[lane] * shrunk[lane] + weight[lane];
        top[lane] = higher;
      }
      for (std::size_t i = 0; i < d; ++i)
        for (std::size_t lane = 0; lane < Lanes; ++lane)
          weighted[i][lane] = weighted[i][lane] * shrunk[lane] + weight[lane] * gradient[i][lane];
    }
    for (std::size_t lane = 0; lane < n; ++lane)
      for (std::size_t i = 0; i < d; ++i)
        out[lane * d + i] = sum[lane] == 0.0 ? 0.0 : weighted[i][lane] / sum[lane];
    return top[0] + std::log(sum[0]);
  }

  /// Whether all of l lie so far below the largest components that they change nothing; not for NaN.
  template <std::size_t Lanes>
  static bool none_counts(const std::array<double, Lanes>& l, const std::array<double, Lanes>& top) {
    bool none = true;
    for (std::size_t lane = 0; lane < Lanes; ++lane) none &= l[lane] <= top[lane] - kNegligible;
    return none;
  }

  Components components_;
};

/// Uniform and normal draws of one sample of a density, as many as needed.
class DensityDraws {
 public:
  DensityDraws(std::uint64_t seed, std::int64_t sample)
      : seed_(seed), sample_(static_cast<std::uint32_t>(sample)) {}

  double uniform(std::uint32_t element) const {
    return static_cast<double>(uniform_at({seed_, Purpose::density, 0}, sample_, element));
  }
  double normal(std::uint32_t element) const {
    float z[4];
    normals_of(philox({seed_, Purpose::density, 1}, sample_, element / 4), z);
    return static_cast<double>(z[element % 4]);
  }

 private:
  std::uint64_t seed_;
  std::uint32_t sample_;
};

/// A mixture of K isotropic Gaussians of one standard deviation, with equal weights; centres [K, dim].
std::unique_ptr<Density> kernel_mixture(std::string name, int dim, std::vector<double> centres, double std,
                                        std::optional<Density::Range> range);

}  // namespace sgm
