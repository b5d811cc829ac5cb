// The Fokker-Planck equation against the marginals in closed form.

#include <algorithm>
#include <cmath>

#include "lab/fokker_planck.h"
#include "lab/proof/parts.h"

namespace sgm::lab {
namespace {

/// The exact density at time t, averaged over cells of [-half, half].
GridDensity exact_on_grid(const SDE& sde, const Density& density, double half, int cells, double t) {
  const auto p = density.at(marginal_at(sde, t));
  return grid_density(-half, half, cells,
                      [&](double x) { return std::exp(p->log_prob(std::span<const double>(&x, 1))); });
}

struct FokkerPlanckError {
  double largest;   // difference of densities, over the largest density
  double mass_off;  // 1 - mass
};
FokkerPlanckError fokker_planck_error(const SDE& sde, const Density& density, int cells, int steps) {
  constexpr double kStart = 0.1, kEnd = 0.6;
  const double half = 8.0 * std::max(1.0, sde.marginal_std(kEnd));
  const GridDensity end =
      fokker_planck(sde, exact_on_grid(sde, density, half, cells, kStart), kStart, kEnd, steps);
  const GridDensity truth = exact_on_grid(sde, density, half, cells, kEnd);
  double worst = 0.0;
  for (std::size_t i = 0; i < end.p.size(); ++i) worst = std::max(worst, std::abs(end.p[i] - truth.p[i]));
  return {worst / *std::max_element(truth.p.begin(), truth.p.end()), std::abs(end.mass() - 1.0)};
}

/// A range of noise that one grid can hold.
std::unique_ptr<SDE> sde_for_grids(const std::string& name) {
  return proof_sde(name, 1000, [](SDEConfig& config) { config.sigma_min = 0.2, config.sigma_max = 5.0; });
}

}  // namespace

void prove_fokker_planck(ProofRun& run) {
  const auto density = line_mixture();
  for (const std::string& name : sde_names()) {
    const auto sde = sde_for_grids(name);
    const auto error = [&](int cells, int steps) {
      return fokker_planck_error(*sde, *density, cells, steps);
    };
    const std::string row = "Fokker-Planck: " + short_name(name);
    ErrorCurve curve{"Fokker-Planck", short_name(name) + ", cells", {}, {}};
    for (const int cells : {250, 500, 1000}) {
      curve.steps.push_back(cells);
      curve.errors.push_back(error(cells, 2000).largest);
    }
    run.near(row, "order in the cells' width", std::log2(curve.errors[1] / curve.errors[2]), 2.0, 0.2);
    run.near(row, "order in the time step", std::log2(error(8000, 20).largest / error(8000, 40).largest), 2.0,
             0.2);
    const FokkerPlanckError fine = error(4000, 1000);
    run.at_most(row, "largest error / largest density, 4000 cells", fine.largest, 1e-4);
    run.at_most(row, "change of mass", fine.mass_off, 1e-12);
    run.curve(std::move(curve));
  }
}

}  // namespace sgm::lab
