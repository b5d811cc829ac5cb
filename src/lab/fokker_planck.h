#pragma once
// The density of an SDE in one dimension, found without samples and without a closed form.

#include <cstdint>
#include <functional>
#include <vector>

#include "sgm/sde/sde.h"

namespace sgm {

/// Cells of equal width on [low, high] and the mean density in each.
struct GridDensity {
  double low, high;
  std::vector<double> p;

  double width() const { return (high - low) / static_cast<double>(p.size()); }
  double centre(std::size_t i) const { return low + (static_cast<double>(i) + 0.5) * width(); }
  double mass() const;
};

/// Cell means of a density on [low, high] by Gauss's rule of three points, scaled to mass 1.
GridDensity grid_density(double low, double high, int cells, const std::function<double(double)>& density);

/// Integrates the Fokker-Planck equation dp/dt = -d/dx [f(t) x p - g(t)^2 / 2 dp/dx] of the forward SDE from
/// t0 to t1 in equal steps. Finite volumes with central fluxes, none through the ends, so that mass is kept
/// to rounding; Crank-Nicolson in time: both of second order. p stays positive while |f x| width < g^2 and
/// g^2 dt < 2 width^2; beyond that, where p varies little from cell to cell. Throws Error when there are
/// fewer than three cells or no steps.
GridDensity fokker_planck(const SDE& sde, GridDensity p, double t0, double t1, int steps);

}  // namespace sgm
