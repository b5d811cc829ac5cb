#include "lab/symmetric.h"

#include <cmath>

namespace sgm {
namespace {

/// Rotates rows and columns p and q so that a[p, q] vanishes, and the vectors with them.
void rotate(std::vector<double>& a, std::vector<double>& vectors, std::size_t n, std::size_t p,
            std::size_t q) {
  const double off = a[p * n + q];
  if (off == 0.0) return;
  const double ratio = (a[q * n + q] - a[p * n + p]) / (2.0 * off);
  const double tangent = (ratio >= 0 ? 1.0 : -1.0) / (std::abs(ratio) + std::hypot(1.0, ratio));
  const double cosine = 1.0 / std::hypot(1.0, tangent), sine = tangent * cosine;
  const auto turn = [&](double& first, double& second) {
    const double x = first, y = second;
    first = cosine * x - sine * y;
    second = sine * x + cosine * y;
  };
  for (std::size_t i = 0; i < n; ++i) turn(a[i * n + p], a[i * n + q]);
  for (std::size_t i = 0; i < n; ++i) turn(a[p * n + i], a[q * n + i]);
  for (std::size_t i = 0; i < n; ++i) turn(vectors[p * n + i], vectors[q * n + i]);
}

}  // namespace

Eigensystem eigensystem(std::span<const double> matrix, int size) {
  constexpr int kMaxSweeps = 60;
  const std::size_t n = static_cast<std::size_t>(size);
  std::vector<double> a(matrix.begin(), matrix.end());
  Eigensystem result{std::vector<double>(n), std::vector<double>(n * n, 0.0)};
  for (std::size_t i = 0; i < n; ++i) result.vectors[i * n + i] = 1.0;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    double off = 0.0, diagonal = 0.0;
    for (std::size_t p = 0; p < n; ++p)
      for (std::size_t q = 0; q < n; ++q) (p == q ? diagonal : off) += a[p * n + q] * a[p * n + q];
    if (off <= 1e-34 * diagonal) break;
    for (std::size_t p = 0; p < n; ++p)
      for (std::size_t q = p + 1; q < n; ++q) rotate(a, result.vectors, n, p, q);
  }
  for (std::size_t i = 0; i < n; ++i) result.values[i] = a[i * n + i];
  return result;
}

}  // namespace sgm
