#pragma once
// Do two sets of points come from one distribution? Tests with known significance and no tuning.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace sgm {

/// p is the probability of a statistic at least this large when the distributions are the same.
struct TestResult {
  double statistic, p;
};

/// Kolmogorov-Smirnov: the largest distance between the empirical distribution and `cdf`.
TestResult ks_test(std::vector<double> sample, const std::function<double(double)>& cdf);
/// The same between two samples.
TestResult ks_test(std::vector<double> a, std::vector<double> b);

/// Samples [n, dim] and [m, dim], for n and m of thousands: Hotelling's T^2 of the difference of the means of
/// bounded features (sines and cosines at random frequencies on four scales: Chwialkowski et al. 2015) and of
/// first and second moments, chi-squared where the distributions are the same. Linear in n. Points that are
/// not finite give p = 0. `seed` chooses the frequencies.
TestResult two_sample_test(std::span<const double> a, std::span<const double> b, int dim,
                           std::uint64_t seed = 0);

/// The probability that a chi-squared number of k degrees of freedom exceeds x.
double chi_squared_tail(double x, double k);

}  // namespace sgm
