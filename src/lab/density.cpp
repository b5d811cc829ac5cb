#include "sgm/lab/density.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "lab/mixture.h"
#include "lab/symmetric.h"
#include "sgm/core/error.h"

namespace sgm {
namespace {

const double kLogTwoPi = std::log(2.0 * std::numbers::pi);

/// Gaussian components with any covariance.
class Gaussians {
 public:
  explicit Gaussians(int dim) : dim_(static_cast<std::size_t>(dim)) {}

  void add(double weight, std::span<const double> mean, const Eigensystem& covariance, const Marginal& at) {
    double log_det = 0.0;
    const std::size_t start = precisions_.size();
    precisions_.resize(start + dim_ * dim_, 0.0);
    for (std::size_t e = 0; e < dim_; ++e) {
      const double variance = at.mean_coeff * at.mean_coeff * covariance.values[e] + at.std * at.std;
      log_det += std::log(variance);
      const double* v = covariance.vectors.data() + e * dim_;
      for (std::size_t i = 0; i < dim_; ++i)
        for (std::size_t j = 0; j < dim_; ++j) precisions_[start + i * dim_ + j] += v[i] * v[j] / variance;
    }
    for (const double m : mean) means_.push_back(at.mean_coeff * m);
    logs_.push_back(std::log(weight) - 0.5 * (static_cast<double>(dim_) * kLogTwoPi + log_det));
  }

  std::size_t dim() const { return dim_; }
  std::size_t count() const { return logs_.size(); }
  template <std::size_t Lanes>
  const Block<Lanes>& prepare(const Block<Lanes>& x) const {
    return x;
  }
  template <std::size_t Lanes>
  void log_density(std::size_t k, const Block<Lanes>& x, std::array<double, Lanes>& l,
                   Block<Lanes>& gradient) const {
    const double* mean = means_.data() + k * dim_;
    const double* row = precisions_.data() + k * dim_ * dim_;
    l.fill(logs_[k]);
    for (std::size_t i = 0; i < dim_; ++i, row += dim_) {
      gradient[i].fill(0.0);
      for (std::size_t j = 0; j < dim_; ++j)
        for (std::size_t lane = 0; lane < Lanes; ++lane) gradient[i][lane] += row[j] * (mean[j] - x[j][lane]);
      for (std::size_t lane = 0; lane < Lanes; ++lane)
        l[lane] -= 0.5 * gradient[i][lane] * (mean[i] - x[i][lane]);
    }
  }
  void curvature(std::size_t k, const Block<1>&, const double* v, double* out) const {
    const double* row = precisions_.data() + k * dim_ * dim_;
    for (std::size_t i = 0; i < dim_; ++i, row += dim_) {
      out[i] = 0.0;
      for (std::size_t j = 0; j < dim_; ++j) out[i] -= row[j] * v[j];
    }
  }

 private:
  std::size_t dim_;
  std::vector<double> means_, precisions_, logs_;
};

/// Isotropic Gaussian components of one width and one weight.
class Kernels {
 public:
  Kernels(int dim, std::span<const double> centres, double std, const Marginal& at)
      : dim_(static_cast<std::size_t>(dim)), count_(centres.size() / dim_) {
    const double variance = at.mean_coeff * at.mean_coeff * std * std + at.std * at.std;
    precision_ = 1.0 / variance;
    log_ = -std::log(static_cast<double>(count_)) -
           0.5 * static_cast<double>(dim_) * (kLogTwoPi + std::log(variance));
    for (const double c : centres) centres_.push_back(at.mean_coeff * c);
  }

  std::size_t dim() const { return dim_; }
  std::size_t count() const { return count_; }
  template <std::size_t Lanes>
  const Block<Lanes>& prepare(const Block<Lanes>& x) const {
    return x;
  }
  template <std::size_t Lanes>
  void log_density(std::size_t k, const Block<Lanes>& x, std::array<double, Lanes>& l,
                   Block<Lanes>& gradient) const {
    const double* centre = centres_.data() + k * dim_;
    l.fill(log_);
    for (std::size_t i = 0; i < dim_; ++i)
      for (std::size_t lane = 0; lane < Lanes; ++lane) {
        const double difference = centre[i] - x[i][lane];
        gradient[i][lane] = precision_ * difference;
        l[lane] -= 0.5 * gradient[i][lane] * difference;
      }
  }
  void curvature(std::size_t, const Block<1>&, const double* v, double* out) const {
    for (std::size_t i = 0; i < dim_; ++i) out[i] = -precision_ * v[i];
  }

 private:
  std::size_t dim_, count_;
  double precision_, log_;
  std::vector<double> centres_;
};

/// Of the component's means: their mean, and their covariance around it.
struct Moments {
  std::vector<double> mean, covariance;

  Moments(int dim, std::span<const double> weights, std::span<const double> means)
      : mean(static_cast<std::size_t>(dim), 0.0), covariance(mean.size() * mean.size(), 0.0) {
    const std::size_t d = mean.size();
    for (std::size_t k = 0; k < weights.size(); ++k)
      for (std::size_t i = 0; i < d; ++i) mean[i] += weights[k] * means[k * d + i];
    for (std::size_t k = 0; k < weights.size(); ++k)
      for (std::size_t i = 0; i < d; ++i)
        for (std::size_t j = 0; j < d; ++j)
          covariance[i * d + j] += weights[k] * (means[k * d + i] - mean[i]) * (means[k * d + j] - mean[j]);
  }
};

/// Running sums of weights.
std::vector<double> cumulative_sums(std::span<const double> weights) {
  std::vector<double> sums(weights.size());
  std::partial_sum(weights.begin(), weights.end(), sums.begin());
  return sums;
}

/// The first k whose running sum reaches the share u of the whole.
std::size_t chosen(std::span<const double> cumulative, double u) {
  const auto at = std::lower_bound(cumulative.begin(), cumulative.end(), u * cumulative.back());
  return std::min(static_cast<std::size_t>(at - cumulative.begin()), cumulative.size() - 1);
}

class GaussianMixture final : public Density {
 public:
  GaussianMixture(std::string name, int dim, Range range, std::vector<double> weights,
                  std::vector<double> means, std::vector<Eigensystem> covariances)
      : Density(std::move(name), dim, range),
        weights_(std::move(weights)),
        means_(std::move(means)),
        covariances_(std::move(covariances)),
        cumulative_(cumulative_sums(weights_)) {}

  std::unique_ptr<PerturbedDensity> at(const Marginal& marginal) const override {
    Gaussians components(dim());
    for (std::size_t k = 0; k < weights_.size(); ++k)
      if (weights_[k] > 0) components.add(weights_[k], mean_of(k), covariances_[k], marginal);
    return std::make_unique<Mixture<Gaussians>>(std::move(components));
  }

  /// A point of component k is its mean and sum_e sqrt(variance_e) z_e v_e.
  std::vector<double> sample(std::int64_t n, std::uint64_t seed, std::int64_t first,
                             const Marginal& marginal) const override {
    const std::size_t d = static_cast<std::size_t>(dim());
    std::vector<double> points(static_cast<std::size_t>(n) * d);
    for (std::int64_t s = 0; s < n; ++s) {
      const DensityDraws draws(seed, first + s);
      const std::size_t k = chosen(cumulative_, draws.uniform(0));
      double* x = points.data() + static_cast<std::size_t>(s) * d;
      for (std::size_t i = 0; i < d; ++i) x[i] = marginal.mean_coeff * mean_of(k)[i];
      for (std::size_t e = 0; e < d; ++e) {
        const double variance = marginal.mean_coeff * marginal.mean_coeff * covariances_[k].values[e] +
                                marginal.std * marginal.std;
        const double along = std::sqrt(variance) * draws.normal(static_cast<std::uint32_t>(e));
        for (std::size_t i = 0; i < d; ++i) x[i] += along * covariances_[k].vectors[e * d + i];
      }
    }
    return points;
  }

  std::vector<double> mean() const override { return Moments(dim(), weights_, means_).mean; }
  std::vector<double> covariance() const override {
    const std::size_t d = static_cast<std::size_t>(dim());
    std::vector<double> sum = Moments(dim(), weights_, means_).covariance;
    for (std::size_t k = 0; k < weights_.size(); ++k)
      for (std::size_t e = 0; e < d; ++e)
        for (std::size_t i = 0; i < d; ++i)
          for (std::size_t j = 0; j < d; ++j)
            sum[i * d + j] += weights_[k] * covariances_[k].values[e] * covariances_[k].vectors[e * d + i] *
                              covariances_[k].vectors[e * d + j];
    return sum;
  }

 private:
  std::span<const double> mean_of(std::size_t k) const {
    const std::size_t d = static_cast<std::size_t>(dim());
    return std::span(means_).subspan(k * d, d);
  }

  std::vector<double> weights_, means_;
  std::vector<Eigensystem> covariances_;
  std::vector<double> cumulative_;
};

class KernelMixture final : public Density {
 public:
  KernelMixture(std::string name, int dim, Range range, std::vector<double> centres, double std)
      : Density(std::move(name), dim, range), centres_(std::move(centres)), std_(std) {}

  std::unique_ptr<PerturbedDensity> at(const Marginal& marginal) const override {
    return std::make_unique<Mixture<Kernels>>(Kernels(dim(), centres_, std_, marginal));
  }

  std::vector<double> sample(std::int64_t n, std::uint64_t seed, std::int64_t first,
                             const Marginal& marginal) const override {
    const std::size_t d = static_cast<std::size_t>(dim());
    const double width = std::hypot(marginal.mean_coeff * std_, marginal.std);
    std::vector<double> points(static_cast<std::size_t>(n) * d);
    for (std::int64_t s = 0; s < n; ++s) {
      const DensityDraws draws(seed, first + s);
      const double place = draws.uniform(0) * static_cast<double>(count());
      const std::size_t k = std::min(static_cast<std::size_t>(place), count() - 1);
      for (std::size_t i = 0; i < d; ++i)
        points[static_cast<std::size_t>(s) * d + i] =
            marginal.mean_coeff * centres_[k * d + i] + width * draws.normal(static_cast<std::uint32_t>(i));
    }
    return points;
  }

  std::vector<double> mean() const override { return Moments(dim(), equal_weights(), centres_).mean; }
  std::vector<double> covariance() const override {
    std::vector<double> sum = Moments(dim(), equal_weights(), centres_).covariance;
    for (std::size_t i = 0; i < sum.size(); i += static_cast<std::size_t>(dim()) + 1) sum[i] += std_ * std_;
    return sum;
  }

 private:
  std::size_t count() const { return centres_.size() / static_cast<std::size_t>(dim()); }
  std::vector<double> equal_weights() const {
    return std::vector<double>(count(), 1.0 / static_cast<double>(count()));
  }

  std::vector<double> centres_;
  double std_;
};

void check_weights(std::span<const double> weights) {
  double sum = 0.0;
  for (const double w : weights) {
    check(w >= 0 && std::isfinite(w), "weights must not be negative, got ", w);
    sum += w;
  }
  check(std::abs(sum - 1.0) <= 1e-6, "weights must sum to 1, got ", sum, "; divide each by ", sum);
}

/// The eigensystem of component k's covariance.
Eigensystem decomposed(std::span<const double> covariance, std::size_t d, std::size_t k) {
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t j = 0; j < d; ++j) {
      const double a = covariance[i * d + j], b = covariance[j * d + i];
      check(std::isfinite(a), "covariances: that of component ", k + 1, " is not finite");
      check(std::abs(a - b) <= 1e-9 * (std::abs(a) + std::abs(b)), "covariances: that of component ", k + 1,
            " is not symmetric: ", a, " in row ", i + 1, ", column ", j + 1, ", but ", b, " across");
    }
  Eigensystem result = eigensystem(covariance, static_cast<int>(d));
  const auto [least, most] = std::minmax_element(result.values.begin(), result.values.end());
  check(*least > 1e-12 * *most, "covariances: that of component ", k + 1,
        " is not positive definite; its least eigenvalue is ", *least);
  return result;
}

/// Where the points are and `margin` around, in the largest of all coordinates.
Density::Range range_around(std::span<const double> points, double margin) {
  const auto [low, high] = std::minmax_element(points.begin(), points.end());
  return {*low - margin, *high + margin};
}

}  // namespace

std::unique_ptr<Density> gaussian_mixture(std::string name, std::vector<double> weights,
                                          std::vector<double> means, std::vector<double> covariances,
                                          std::optional<Density::Range> range) {
  check(!weights.empty(), "weights: a mixture needs at least one component");
  const std::size_t d = means.size() / weights.size();
  check(d >= 1 && d <= kMaxDim && means.size() == weights.size() * d, "means: expected one point of 1 to ",
        kMaxDim, " coordinates for each of ", weights.size(), " weights");
  check(covariances.size() == weights.size() * d * d, "covariances: expected one of ", d, " x ", d,
        " numbers for each of ", weights.size(), " components");
  check_weights(weights);
  std::vector<Eigensystem> systems;
  double widest = 0.0;
  for (std::size_t k = 0; k < weights.size(); ++k) {
    systems.push_back(decomposed(std::span(covariances).subspan(k * d * d, d * d), d, k));
    for (const double variance : systems.back().values) widest = std::max(widest, variance);
  }
  const Density::Range shown = range ? *range : range_around(means, 3.0 * std::sqrt(widest));
  return std::make_unique<GaussianMixture>(std::move(name), static_cast<int>(d), shown, std::move(weights),
                                           std::move(means), std::move(systems));
}

std::unique_ptr<Density> kernel_mixture(std::string name, int dim, std::vector<double> centres, double std,
                                        std::optional<Density::Range> range) {
  const Density::Range shown = range ? *range : range_around(centres, 4.0 * std);
  return std::make_unique<KernelMixture>(std::move(name), dim, shown, std::move(centres), std);
}

}  // namespace sgm
