// What the figures' axes show, and the times at which they show it.

#include <cmath>
#include <cstdio>

#include "lab/figures/parts.h"

namespace sgm::lab {
namespace {

constexpr int kSide = 160;               // cells of heat maps
constexpr std::int64_t kMany = 400'000;  // draws where a density is counted

Cloud perturbed_draws(const Density& density, const Marginal& marginal, std::int64_t n) {
  return density.sample(n, 0x5eed, 0, marginal);
}

std::vector<double> spaced(Density::Range range, int count) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) values.push_back(range.low + (range.high - range.low) * (i + 0.5) / count);
  return values;
}

/// Cells of a heat map from draws of more than two coordinates.
std::vector<double> counted(const Density& density, const Marginal& marginal, Density::Range range,
                            int side) {
  std::vector<double> cells(static_cast<std::size_t>(side) * side);
  const Cloud cloud = perturbed_draws(density, marginal, kMany);
  const double width = (range.high - range.low) / side;
  for (std::size_t at = 0; at < cloud.size(); at += static_cast<std::size_t>(density.dim())) {
    const double column = std::floor((cloud[at] - range.low) / width),
                 row = std::floor((cloud[at + 1] - range.low) / width);
    if (column >= 0 && column < side && row >= 0 && row < side)
      cells[static_cast<std::size_t>(row) * side + static_cast<std::size_t>(column)] +=
          1 / (kMany * width * width);
  }
  return cells;
}

}  // namespace

double spread(const Density& density) {
  const std::vector<double> covariance = density.covariance();
  const auto dim = static_cast<std::size_t>(density.dim());
  double trace = 0;
  for (std::size_t i = 0; i < dim; ++i) trace += covariance[i * dim + i];
  return std::sqrt(trace / static_cast<double>(dim));
}

double time_of_noise(const SDE& sde, double ratio) {
  double low = sde.sampling_eps(), high = 1.0;
  for (int i = 0; i < 60; ++i) {
    const double t = (low + high) / 2;
    (sde.marginal_std(t) < ratio * sde.mean_coeff(t) ? low : high) = t;
  }
  return (low + high) / 2;
}

std::string short_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

std::string time_text(double t) { return "t = " + short_text(t); }

Density::Range range_at(const Density& density, const Marginal& marginal) {
  const Density::Range range = density.range();
  return {marginal.mean_coeff * range.low - 2 * marginal.std,
          marginal.mean_coeff * range.high + 2 * marginal.std};
}

Lattice lattice(const Density& density, Density::Range range, int side) {
  Lattice out{spaced(range, side), spaced(range, side), {}};
  const std::vector<double> mean = density.mean();
  for (const double y : out.y)
    for (const double x : out.x) {
      std::vector<double> point = mean;
      point[0] = x;
      point[1] = y;
      out.points.insert(out.points.end(), point.begin(), point.end());
    }
  return out;
}

void frame(Axes& axes, const Density& density, Density::Range range) {
  axes.x.low = range.low;
  axes.x.high = range.high;
  if (density.dim() == 1) return;
  axes.y.low = range.low;
  axes.y.high = range.high;
  axes.has_equal_scales = true;
}

void show_density(Axes& axes, const Density& density, const Marginal& marginal, Density::Range range) {
  frame(axes, density, range);
  if (density.dim() == 1) {
    const std::vector<double> x = spaced(range, 400);
    return axes.add(
        Line{.x = x, .y = first_marginal(density, marginal, x), .label = "exact", .color = kBlack});
  }
  std::vector<double> values;
  if (density.dim() == 2) {
    const Cloud points = lattice(density, range, kSide).points;
    const auto at = density.at(marginal);
    for (std::size_t i = 0; i < points.size(); i += 2)
      values.push_back(std::exp(at->log_prob(std::span(points).subspan(i, 2))));
  } else {
    values = counted(density, marginal, range, kSide / 2);
  }
  const int side = static_cast<int>(std::lround(std::sqrt(static_cast<double>(values.size()))));
  axes.add(HeatMap{.values = std::move(values),
                   .rows = side,
                   .columns = side,
                   .x_low = range.low,
                   .x_high = range.high,
                   .y_low = range.low,
                   .y_high = range.high,
                   .low = 0.0,
                   .has_bar = false});
}

void show_cloud(Axes& axes, const Density& density, std::span<const double> cloud, Density::Range range) {
  frame(axes, density, range);
  const int dim = density.dim();
  if (dim == 1)
    return axes.add(Histogram{
        .values = {cloud.begin(), cloud.end()}, .label = "samples", .low = range.low, .high = range.high});
  axes.add(Scatter{.x = coordinate(cloud, dim, 0),
                   .y = coordinate(cloud, dim, 1),
                   .color = series_color(0),
                   .radius = 0.9,
                   .alpha = 0.5});
}

std::vector<double> first_marginal(const Density& density, const Marginal& marginal,
                                   std::span<const double> at) {
  const int dim = density.dim();
  if (dim > 2) return {};
  const auto perturbed = density.at(marginal);
  const Density::Range range = range_at(density, marginal);
  const std::vector<double> across =
      dim == 2 ? spaced({range.low - 2 * marginal.std, range.high + 2 * marginal.std}, 400)
               : std::vector<double>{0};
  const double width = dim == 2 ? across[1] - across[0] : 1.0;
  std::vector<double> density_at;
  for (const double x : at) {
    double sum = 0;
    for (const double y : across) {
      const double point[] = {x, y};
      sum += width * std::exp(perturbed->log_prob(std::span(point).first(static_cast<std::size_t>(dim))));
    }
    density_at.push_back(sum);
  }
  return density_at;
}

}  // namespace sgm::lab
