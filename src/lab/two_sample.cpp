#include "lab/two_sample.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lab/symmetric.h"
#include "sgm/core/error.h"
#include "sgm/core/random.h"

namespace sgm {
namespace {

/// P(sup |Brownian bridge| > x), Kolmogorov's series.
double kolmogorov_tail(double x) {
  if (std::isnan(x)) return 0.0;
  if (x < 0.2) return 1.0;
  double sum = 0.0;
  for (int k = 1; k <= 100; ++k) sum += (k % 2 ? 2.0 : -2.0) * std::exp(-2.0 * k * k * x * x);
  return std::clamp(sum, 0.0, 1.0);
}

/// The tail with the correction of Stephens for n points that are not many.
double ks_p_value(double distance, double n) {
  const double root = std::sqrt(n);
  return kolmogorov_tail((root + 0.12 + 0.11 / root) * distance);
}

bool all_finite(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

/// Centre and covariance of points [n, dim].
struct Moments {
  std::vector<double> mean, covariance;

  Moments(std::span<const double> points, std::size_t d) : mean(d, 0.0), covariance(d * d, 0.0) {
    const double n = static_cast<double>(points.size() / d);
    for (std::size_t at = 0; at < points.size(); at += d)
      for (std::size_t i = 0; i < d; ++i) mean[i] += points[at + i] / n;
    for (std::size_t at = 0; at < points.size(); at += d)
      for (std::size_t i = 0; i < d; ++i)
        for (std::size_t j = 0; j <= i; ++j)
          covariance[i * d + j] += (points[at + i] - mean[i]) * (points[at + j] - mean[j]) / n;
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = i + 1; j < d; ++j) covariance[i * d + j] = covariance[j * d + i];
  }
};

/// What the two-sample test compares the means of. Points are first centred and made of unit covariance.
class Features {
 public:
  Features(std::span<const double> reference, std::size_t d, std::uint64_t seed) : d_(d) {
    const Moments moments(reference, d);
    const Eigensystem system = eigensystem(moments.covariance, static_cast<int>(d));
    centre_ = moments.mean;
    for (std::size_t e = 0; e < d; ++e)
      for (std::size_t i = 0; i < d; ++i)
        whiten_.push_back(system.vectors[e * d + i] / std::sqrt(std::max(system.values[e], 1e-300)));
    for (std::uint32_t f = 0; f < kFrequencies; ++f)
      for (std::uint32_t i = 0; i < d; ++i) {
        float z[4];
        normals_of(philox({seed, Purpose::direction, 0}, f, i / 4), z);
        frequencies_.push_back(kScales[f % std::size(kScales)] * static_cast<double>(z[i % 4]));
      }
  }

  std::size_t size() const { return 2 * kFrequencies + d_ + d_ * (d_ + 1) / 2; }

  void evaluate(const double* x, std::vector<double>& out) const {
    out.clear();
    for (std::size_t e = 0; e < d_; ++e) {
      double sum = 0.0;
      for (std::size_t i = 0; i < d_; ++i) sum += whiten_[e * d_ + i] * (x[i] - centre_[i]);
      out.push_back(sum);
    }
    for (std::size_t i = 0; i < d_; ++i)
      for (std::size_t j = i; j < d_; ++j) out.push_back(out[i] * out[j]);
    for (std::size_t f = 0; f < kFrequencies; ++f) {
      double phase = 0.0;
      for (std::size_t i = 0; i < d_; ++i) phase += frequencies_[f * d_ + i] * out[i];
      out.push_back(std::sin(phase));
      out.push_back(std::cos(phase));
    }
  }

 private:
  static constexpr double kScales[] = {0.7, 1.5, 3.0, 6.0};  // of frequencies, for modes of all sizes
  static constexpr std::uint32_t kFrequencies = 20;

  std::size_t d_;
  std::vector<double> centre_, whiten_, frequencies_;
};

/// The features of all points, [n, features.size()].
std::vector<double> values_of(const Features& features, std::span<const double> points, std::size_t d) {
  const std::size_t n = points.size() / d, size = features.size();
  std::vector<double> values(n * size);
#pragma omp parallel
  {
    std::vector<double> row;
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < n; ++i) {
      features.evaluate(points.data() + i * d, row);
      std::copy(row.begin(), row.end(), values.begin() + static_cast<std::ptrdiff_t>(i * size));
    }
  }
  return values;
}

}  // namespace

TestResult ks_test(std::vector<double> sample, const std::function<double(double)>& cdf) {
  check(!sample.empty(), "ks_test: no points");
  if (!all_finite(sample)) return {1.0, 0.0};
  std::sort(sample.begin(), sample.end());
  const double n = static_cast<double>(sample.size());
  double distance = 0.0;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    const double expected = cdf(sample[i]), below = static_cast<double>(i) / n;
    distance = std::max({distance, expected - below, below + 1.0 / n - expected});
  }
  return {distance, ks_p_value(distance, n)};
}

TestResult ks_test(std::vector<double> a, std::vector<double> b) {
  check(!a.empty() && !b.empty(), "ks_test: no points");
  if (!all_finite(a) || !all_finite(b)) return {1.0, 0.0};
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  const double n = static_cast<double>(a.size()), m = static_cast<double>(b.size());
  double distance = 0.0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const double x = std::min(a[i], b[j]);
    while (i < a.size() && a[i] == x) ++i;
    while (j < b.size() && b[j] == x) ++j;
    distance = std::max(distance, std::abs(static_cast<double>(i) / n - static_cast<double>(j) / m));
  }
  return {distance, ks_p_value(distance, n * m / (n + m))};
}

TestResult two_sample_test(std::span<const double> a, std::span<const double> b, int dim,
                           std::uint64_t seed) {
  const std::size_t d = static_cast<std::size_t>(dim);
  check(dim >= 1 && a.size() % d == 0 && b.size() % d == 0 && a.size() >= 100 * d && b.size() >= 100 * d,
        "two_sample_test: expected at least 100 points of ", dim, " coordinates in each sample, got ",
        a.size() / d, " and ", b.size() / d);
  if (!all_finite(a) || !all_finite(b)) return {std::numeric_limits<double>::infinity(), 0.0};
  const Features features(b, d, seed);
  const std::size_t size = features.size();
  const Moments of_a(values_of(features, a, d), size), of_b(values_of(features, b, d), size);
  const double n = static_cast<double>(a.size() / d), m = static_cast<double>(b.size() / d);
  std::vector<double> covariance(size * size);  // of the difference of the means
  for (std::size_t i = 0; i < covariance.size(); ++i)
    covariance[i] = of_a.covariance[i] / n + of_b.covariance[i] / m;
  const Eigensystem system = eigensystem(covariance, static_cast<int>(size));
  const double largest = *std::max_element(system.values.begin(), system.values.end());
  double statistic = 0.0, degrees = 0.0;
  for (std::size_t e = 0; e < size; ++e) {
    if (!(system.values[e] > 1e-10 * largest)) continue;
    double along = 0.0;
    for (std::size_t i = 0; i < size; ++i)
      along += system.vectors[e * size + i] * (of_a.mean[i] - of_b.mean[i]);
    statistic += along * along / system.values[e];
    degrees += 1.0;
  }
  return {statistic, chi_squared_tail(statistic, degrees)};
}

/// The upper incomplete gamma function: by the series of the lower one below the mean, by Lentz's continued
/// fraction above.
double chi_squared_tail(double x, double k) {
  if (!(x > 0)) return x <= 0 ? 1.0 : 0.0;
  const double a = 0.5 * k, y = 0.5 * x;
  const double front = std::exp(a * std::log(y) - y - std::lgamma(a));
  constexpr int kMostTerms = 10'000;
  if (y < a + 1.0) {
    double term = 1.0 / a, sum = term;
    for (int i = 1; i < kMostTerms && term > 1e-17 * sum; ++i) sum += term *= y / (a + i);
    return 1.0 - front * sum;
  }
  double b = y + 1.0 - a, c = 1e300, d = 1.0 / b, fraction = d;
  for (int i = 1; i < kMostTerms; ++i) {
    const double factor = -i * (i - a);
    b += 2.0;
    d = 1.0 / (factor * d + b);
    c = b + factor / c;
    const double change = c * d;
    fraction *= change;
    if (std::abs(change - 1.0) < 1e-15) break;
  }
  return front * fraction;
}

}  // namespace sgm
