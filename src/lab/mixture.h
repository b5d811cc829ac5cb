#pragma once
// What all closed-form densities have in common: sums of components, taken in logarithms.

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "sgm/core/random.h"
#include "sgm/lab/density.h"

namespace sgm {

/// Of densities; points are kept on the stack.
inline constexpr int kMaxDim = 64;

/// sum_k exp(l_k(x)) from its components' l_k. Components has
///   int dim() const; std::size_t count() const;
///   Point prepare(const double* x) const;                     what all components need of x
///   double log_density(k, const Point&, double* gradient);    l_k and its gradient
///   void curvature(k, const Point&, v, double* out);          the Hessian of l_k times v
template <class Components>
class Mixture final : public PerturbedDensity {
 public:
  explicit Mixture(Components components) : components_(std::move(components)) {}

  double log_prob(std::span<const double> x) const override {
    std::array<double, kMaxDim> unused;
    return score(x, std::span(unused).first(x.size()));
  }

  /// One pass; sums are relative to the largest component so far, so that nothing over- or underflows.
  double score(std::span<const double> x, std::span<double> out) const override {
    const auto point = components_.prepare(x.data());
    const std::size_t d = x.size();
    std::array<double, kMaxDim> gradient;
    double top = -std::numeric_limits<double>::infinity(), sum = 0.0;
    for (double& value : out) value = 0.0;
    for (std::size_t k = 0; k < components_.count(); ++k) {
      const double l = components_.log_density(k, point, gradient.data());
      if (l <= top - kNegligible) continue;
      double weight = 1.0;
      if (l > top) {
        const double shrunk = std::exp(top - l);
        sum *= shrunk;
        for (double& value : out) value *= shrunk;
        top = l;
      } else {
        weight = std::exp(l - top);
      }
      sum += weight;
      for (std::size_t i = 0; i < d; ++i) out[i] += weight * gradient[i];
    }
    if (sum == 0.0) return top;
    for (double& value : out) value /= sum;
    return top + std::log(sum);
  }

  /// The Hessian of a mixture's logarithm: the components' Hessians and the covariance of their gradients,
  /// both weighted by the components' shares at x.
  void score_product(std::span<const double> x, std::span<const double> direction, std::span<double> score,
                     std::span<double> product) const override {
    const double log_prob = this->score(x, score);
    const auto point = components_.prepare(x.data());
    const std::size_t d = x.size();
    std::array<double, kMaxDim> gradient, curved;
    for (double& value : product) value = 0.0;
    for (std::size_t k = 0; k < components_.count(); ++k) {
      const double l = components_.log_density(k, point, gradient.data());
      if (l <= log_prob - kNegligible) continue;
      components_.curvature(k, point, direction.data(), curved.data());
      double along = 0.0;
      for (std::size_t i = 0; i < d; ++i) along += (gradient[i] - score[i]) * direction[i];
      const double share = std::exp(l - log_prob);
      for (std::size_t i = 0; i < d; ++i)
        product[i] += share * (curved[i] + along * (gradient[i] - score[i]));
    }
  }

 private:
  static constexpr double kNegligible = 50.0;  // exp(-50) is far below rounding

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

/// The first k at which `cumulative`, which ends at its largest value, exceeds u times that value.
std::size_t chosen(std::span<const double> cumulative, double u);
/// Running sums of weights.
std::vector<double> cumulative_sums(std::span<const double> weights);

/// A mixture of K isotropic Gaussians of one standard deviation, with equal weights; centres [K, dim].
std::unique_ptr<Density> kernel_mixture(std::string name, int dim, std::vector<double> centres, double std,
                                        std::optional<Density::Range> range);

}  // namespace sgm
