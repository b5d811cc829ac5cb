#include "lab/fokker_planck.h"

#include <cmath>

#include "sgm/core/error.h"

namespace sgm {
namespace {

/// dp_i/dt = lower_i p_{i-1} + diagonal_i p_i + upper_i p_{i+1}.
struct Tridiagonal {
  std::vector<double> lower, diagonal, upper;
};

/// The flux through the face between two cells is f x (p_left + p_right) / 2 - g^2 / 2 (p_right - p_left) /
/// width; what leaves one cell enters the other, so that columns add up to zero.
Tridiagonal rates(const SDE& sde, const GridDensity& grid, double t) {
  const std::size_t n = grid.p.size();
  const double width = grid.width(), g = sde.diffusion(t), f = sde.drift(t);
  const double spread = 0.5 * g * g / (width * width);
  Tridiagonal result{std::vector<double>(n, 0.0), std::vector<double>(n, 0.0), std::vector<double>(n, 0.0)};
  for (std::size_t i = 0; i + 1 < n; ++i) {
    const double carried = 0.5 * f * (grid.low + static_cast<double>(i + 1) * width) / width;
    const double from_left = spread + carried, from_right = spread - carried;
    result.diagonal[i] -= from_left;
    result.lower[i + 1] += from_left;
    result.diagonal[i + 1] -= from_right;
    result.upper[i] += from_right;
  }
  return result;
}

/// One Crank-Nicolson step with the rates at the middle of the step: (1 - h A / 2) change = h A p, by
/// elimination. Solving for the change keeps rounding, and with it the mass, relative to the change.
void step(const Tridiagonal& a, double h, std::vector<double>& p) {
  const std::size_t n = p.size();
  std::vector<double> change(n, 0.0), ratio(n);
  for (std::size_t i = 0; i + 1 < n; ++i) {
    const double flow = h * (a.lower[i + 1] * p[i] - a.upper[i] * p[i + 1]);  // from cell i to the next
    change[i] -= flow;
    change[i + 1] += flow;
  }
  for (std::size_t i = 0; i < n; ++i) {
    const double below = -0.5 * h * a.lower[i];
    double pivot = 1.0 - 0.5 * h * a.diagonal[i];
    if (i > 0) {
      pivot -= below * ratio[i - 1];
      change[i] -= below * change[i - 1];
    }
    ratio[i] = -0.5 * h * a.upper[i] / pivot;
    change[i] /= pivot;
  }
  for (std::size_t i = n; i-- > 0;) {
    if (i + 1 < n) change[i] -= ratio[i] * change[i + 1];
    p[i] += change[i];
  }
}

}  // namespace

double GridDensity::mass() const {
  double sum = 0.0;
  for (const double value : p) sum += value;
  return sum * width();
}

GridDensity grid_density(double low, double high, int cells, const std::function<double(double)>& density) {
  check(cells >= 3 && low < high, "fokker_planck: expected at least 3 cells between low and high, got ",
        cells, " between ", low, " and ", high);
  GridDensity grid{low, high, std::vector<double>(static_cast<std::size_t>(cells))};
  const double offset = 0.5 * grid.width() * std::sqrt(0.6);
  for (std::size_t i = 0; i < grid.p.size(); ++i) {
    const double x = grid.centre(i);
    grid.p[i] = (5.0 * density(x - offset) + 8.0 * density(x) + 5.0 * density(x + offset)) / 18.0;
  }
  const double mass = grid.mass();
  check(mass > 0 && std::isfinite(mass), "fokker_planck: the density has no mass between ", low, " and ",
        high);
  for (double& value : grid.p) value /= mass;
  return grid;
}

GridDensity fokker_planck(const SDE& sde, GridDensity p, double t0, double t1, int steps) {
  check(p.p.size() >= 3 && steps >= 1, "fokker_planck: expected at least 3 cells and 1 step, got ",
        p.p.size(), " and ", steps);
  const double h = (t1 - t0) / steps;
  for (int i = 0; i < steps; ++i) step(rates(sde, p, t0 + (i + 0.5) * h), h, p.p);
  return p;
}

}  // namespace sgm
