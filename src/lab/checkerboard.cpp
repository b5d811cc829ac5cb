#include "lab/checkerboard.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "lab/mixture.h"

namespace sgm {
namespace {

constexpr std::size_t kAxes = 2;

/// ln(erfc(z / sqrt 2) / 2) for z >= 0: the probability that a standard normal number exceeds z.
double log_tail(double z) {
  constexpr double kFar = 36.0;  // erfc underflows at 38
  if (z < kFar) return std::log(0.5 * std::erfc(z * std::numbers::sqrt2 / 2.0));
  if (std::isinf(z)) return -z;
  const double u = 1.0 / (z * z);  // asymptotic series, to 1e-12 from kFar on
  return -0.5 * z * z - 0.5 * std::log(2.0 * std::numbers::pi) - std::log(z) +
         std::log1p(u * (-1.0 + u * (3.0 + u * (-15.0 + u * 105.0))));
}

double log_normal(double z) { return -0.5 * z * z - 0.5 * std::log(2.0 * std::numbers::pi); }

/// The logarithm of an interval's share of a Gaussian, and its derivatives by the Gaussian's mean.
struct Interval {
  double log, slope, curvature;
};

/// For the interval from u to v > u, in standard deviations from the mean. Both in one tail: the difference
/// of the tails, relative to the larger.
Interval interval(double u, double v) {
  if (u + v < 0) {
    const Interval mirrored = interval(-v, -u);
    return {mirrored.log, -mirrored.slope, mirrored.curvature};
  }
  const double near = log_tail(std::abs(u)), far = log_tail(v);
  if (std::isinf(near) && u >= 0) return {near, 0.0, 0.0};
  const double log =
      u < 0 ? std::log1p(-std::exp(near) - std::exp(far)) : near + std::log1p(-std::exp(far - near));
  const double at_u = std::exp(log_normal(u) - log), at_v = std::exp(log_normal(v) - log);
  const double slope = at_u - at_v;
  const double bent = (at_u > 0 ? u * at_u : 0.0) - (at_v > 0 ? v * at_v : 0.0);
  return {log, slope, bent - slope * slope};
}

/// The squares as components: each is a product of intervals, which a row or column shares.
class Squares {
 public:
  /// Of one point: the intervals of both axes.
  using Board = std::array<std::array<Interval, kMaxCells>, kAxes>;

  Squares(int cells, double size, const Marginal& at)
      : cells_(static_cast<std::size_t>(cells)),
        width_(at.mean_coeff * size / cells),
        low_(-0.5 * at.mean_coeff * size),
        std_(at.std),
        log_(-std::log(0.5 * static_cast<double>(cells_ * cells_ + cells_ % 2)) -
             static_cast<double>(kAxes) * std::log(width_)),
        precision_(at.std > 0 ? 1.0 / at.std : 0.0) {}

  std::size_t dim() const { return kAxes; }
  std::size_t count() const { return (cells_ * cells_ + 1) / 2; }

  template <std::size_t Lanes>
  std::array<Board, Lanes> prepare(const Block<Lanes>& x) const {
    std::array<Board, Lanes> boards;
    for (std::size_t lane = 0; lane < Lanes; ++lane)
      for (std::size_t axis = 0; axis < kAxes; ++axis)
        for (std::size_t j = 0; j < cells_; ++j) {
          const double low = low_ + width_ * static_cast<double>(j) - x[axis][lane], high = low + width_;
          boards[lane][axis][j] = std_ > 0 ? interval(low / std_, high / std_) : without_noise(low, high);
        }
    return boards;
  }

  template <std::size_t Lanes>
  void log_density(std::size_t k, const std::array<Board, Lanes>& boards, std::array<double, Lanes>& l,
                   Block<Lanes>& gradient) const {
    const auto [i, j] = square(k);
    for (std::size_t lane = 0; lane < Lanes; ++lane) {
      const Interval &first = boards[lane][0][i], &second = boards[lane][1][j];
      l[lane] = log_ + first.log + second.log;
      gradient[0][lane] = first.slope * precision_;
      gradient[1][lane] = second.slope * precision_;
    }
  }

  void curvature(std::size_t k, const std::array<Board, 1>& boards, const double* v, double* out) const {
    const auto [i, j] = square(k);
    out[0] = boards[0][0][i].curvature * precision_ * precision_ * v[0];
    out[1] = boards[0][1][j].curvature * precision_ * precision_ * v[1];
  }

  /// Row and column of the k-th square that is occupied.
  std::pair<std::size_t, std::size_t> square(std::size_t k) const {
    if (cells_ % 2 == 1) return {2 * k / cells_, 2 * k % cells_};
    const std::size_t row = k / (cells_ / 2);
    return {row, 2 * (k % (cells_ / 2)) + row % 2};
  }

 private:
  static Interval without_noise(double low, double high) {
    const bool inside = low <= 0 && 0 < high;
    return {inside ? 0.0 : -std::numeric_limits<double>::infinity(), 0.0, 0.0};
  }

  std::size_t cells_;
  double width_, low_, std_, log_;
  double precision_;  // 1 / std
};

class Checkerboard final : public Density {
 public:
  Checkerboard(std::string name, int cells, double size, Range range)
      : Density(std::move(name), kAxes, range), cells_(cells), size_(size) {}

  std::unique_ptr<PerturbedDensity> at(const Marginal& marginal) const override {
    return std::make_unique<Mixture<Squares>>(Squares(cells_, size_, marginal));
  }

  std::vector<double> sample(std::int64_t n, std::uint64_t seed, std::int64_t first,
                             const Marginal& marginal) const override {
    const Squares squares(cells_, size_, {1.0, 0.0});
    const double width = size_ / cells_;
    std::vector<double> points;
    for (std::int64_t s = first; s < first + n; ++s) {
      const DensityDraws draws(seed, s);
      const auto k = static_cast<std::size_t>(draws.uniform(0) * static_cast<double>(squares.count()));
      const auto [i, j] = squares.square(std::min(k, squares.count() - 1));
      const std::array cell = {static_cast<double>(i), static_cast<double>(j)};
      for (std::uint32_t axis = 0; axis < kAxes; ++axis)
        points.push_back(marginal.mean_coeff *
                             (width * (cell[axis] + draws.uniform(axis + 1)) - 0.5 * size_) +
                         marginal.std * draws.normal(axis));
    }
    return points;
  }

  std::vector<double> mean() const override { return first_moment(); }
  std::vector<double> covariance() const override {
    const std::vector<double> mean = first_moment();
    const double width = size_ / cells_;
    std::vector<double> sum(kAxes * kAxes, 0.0);
    over_squares([&](double weight, const std::array<double, kAxes>& middle) {
      for (std::size_t i = 0; i < kAxes; ++i)
        for (std::size_t j = 0; j < kAxes; ++j)
          sum[i * kAxes + j] += weight * ((middle[i] - mean[i]) * (middle[j] - mean[j]) +
                                          (i == j ? width * width / 12.0 : 0.0));
    });
    return sum;
  }

 private:
  template <class F>
  void over_squares(const F& f) const {
    const Squares squares(cells_, size_, {1.0, 0.0});
    const double width = size_ / cells_;
    for (std::size_t k = 0; k < squares.count(); ++k) {
      const auto [i, j] = squares.square(k);
      f(1.0 / static_cast<double>(squares.count()),
        std::array{width * (static_cast<double>(i) + 0.5) - 0.5 * size_,
                   width * (static_cast<double>(j) + 0.5) - 0.5 * size_});
    }
  }
  std::vector<double> first_moment() const {
    std::vector<double> sum(kAxes, 0.0);
    over_squares([&](double weight, const std::array<double, kAxes>& middle) {
      for (std::size_t i = 0; i < kAxes; ++i) sum[i] += weight * middle[i];
    });
    return sum;
  }

  int cells_;
  double size_;
};

}  // namespace

std::unique_ptr<Density> checkerboard(std::string name, int cells, double size,
                                      std::optional<Density::Range> range) {
  const Density::Range shown = range ? *range : Density::Range{-0.625 * size, 0.625 * size};
  return std::make_unique<Checkerboard>(std::move(name), cells, size, shown);
}

}  // namespace sgm
