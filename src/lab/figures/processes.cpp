// Figures of the SDE forward and backward in time.

#include <algorithm>
#include <cmath>

#include "lab/figures/parts.h"
#include "lab/fokker_planck.h"

namespace sgm::lab {
namespace {

constexpr int kPaths = 12;

double eps_of(const Laboratory& lab) {
  return lab.sampling.eps > 0 ? lab.sampling.eps : lab.sde.sampling_eps();
}

/// Mean and standard deviation of the first coordinate at t.
struct Moments {
  double mean, std;
};
Moments moments(const Laboratory& lab, double t) {
  const Marginal at = marginal_at(lab.sde, t);
  const double variance = at.mean_coeff * at.mean_coeff * lab.density.covariance()[0] + at.std * at.std;
  return {at.mean_coeff * lab.density.mean()[0], std::sqrt(variance)};
}
Moments measured(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, variance = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) variance += (value - mean) * (value - mean) / n;
  return {mean, std::sqrt(variance)};
}

/// The first coordinates of the first few paths of a film.
void show_paths(Axes& axes, const Laboratory& lab, const Film& film) {
  const auto dim = static_cast<std::size_t>(lab.density.dim());
  const std::size_t paths = std::min<std::size_t>(kPaths, film.frames[0].size() / dim);
  for (std::size_t path = 0; path < paths; ++path) {
    std::vector<double> x;
    for (const Cloud& frame : film.frames) x.push_back(frame[path * dim]);
    axes.add(Line{
        .x = film.times, .y = std::move(x), .color = series_color(static_cast<int>(path)), .width = 0.8});
  }
}

void show_band(Axes& axes, const Laboratory& lab) {
  std::vector<double> times, low, high, mean;
  for (int i = 0; i <= 100; ++i) {
    const Moments at = moments(lab, i / 100.0);
    times.push_back(i / 100.0);
    mean.push_back(at.mean);
    low.push_back(at.mean - 2 * at.std);
    high.push_back(at.mean + 2 * at.std);
  }
  axes.x.label = "t";
  axes.y.label = "first coordinate";
  axes.add(Band{.x = times, .low = low, .high = high, .label = "mean ± 2 std", .color = kGrey});
  axes.add(Line{.x = times, .y = mean, .color = kBlack, .width = 1.0, .dashed = true});
}

/// Paths as an array [times, points, dim].
Array to_array(const Film& film, std::size_t points, int dim) {
  std::vector<float> values;
  for (const Cloud& frame : film.frames)
    for (std::size_t i = 0; i < points * static_cast<std::size_t>(dim); ++i)
      values.push_back(static_cast<float>(frame[i]));
  return make_array({static_cast<std::int64_t>(film.frames.size()), static_cast<std::int64_t>(points), dim},
                    std::span<const float>(values));
}

/// Times from 1 to eps, dense where the noise is small compared with the data.
std::vector<double> falling_times(const Laboratory& lab, int count) {
  std::vector<double> times{1.0};
  const double eps = eps_of(lab);
  for (int i = 1; i < count; ++i) {
    const double left = 1.0 - static_cast<double>(i) / (count - 1);
    times.push_back(eps + (1.0 - eps) * left * left);
  }
  return times;
}

}  // namespace

LabReport forward_figure(const Laboratory& lab) {
  const int steps = lab.sampling.steps > 0 ? lab.sampling.steps : 500;
  Figure figure({.width = 1000, .height = 380, .columns = 2});
  LabReport report;
  for (const bool exact : {false, true}) {
    const std::string what = exact ? "exact transitions" : "Euler-Maruyama";
    const std::int64_t few = std::min<std::int64_t>(kPaths, lab.n);
    const Film film = forward_film(lab, lab.n, steps, exact, [&](int m) { return m == steps ? lab.n : few; });
    Axes& axes = figure.at(exact ? 1 : 0);
    axes.title = what + ", " + std::to_string(steps) + " steps";
    show_band(axes, lab);
    show_paths(axes, lab, film);
    const Moments at_end = measured(coordinate(film.frames.back(), lab.density.dim(), 0));
    report.numbers.push_back({"std at t = 1, " + what, at_end.std});
    report.arrays[exact ? "forward_exact_paths" : "forward_paths"] =
        to_array(film, static_cast<std::size_t>(few), lab.density.dim());
    report.arrays["forward_times"] = lab::to_array(film.times, 1);
  }
  report.numbers.push_back({"std at t = 1, formula", moments(lab, 1.0).std});
  report.pictures["forward"] = figure.draw();
  return report;
}

LabReport reverse_figure(const Laboratory& lab) {
  const int dim = lab.density.dim();
  const std::vector<double> times = falling_times(lab, 193);
  const std::int64_t n = std::min<std::int64_t>(lab.n, 1200);
  const Cloud start = prior_cloud(lab, n);
  const Film sde = reverse_film(lab, start, times), ode = flow_film(lab, start, times);
  const auto panels = [&](Figure& figure, bool is_plane) {
    for (const bool is_ode : {false, true}) {
      Axes& axes = figure.at(is_ode ? 1 : 0);
      axes.title = is_ode ? "probability-flow ODE" : "reverse SDE";
      if (is_plane) continue;
      show_band(axes, lab);
      show_paths(axes, lab, is_ode ? ode : sde);
    }
  };
  LabReport report;
  Figure paths({.width = 1000, .height = 380, .columns = 2});
  panels(paths, false);
  report.pictures["reverse"] = paths.draw();
  std::vector<Image> frames;
  for (std::size_t f = 0; f < times.size(); f += 8) {
    Figure figure({.width = 620, .height = 340, .columns = 2});
    panels(figure, true);
    figure.set_title(time_text(times[f]));
    const Density::Range range = range_at(lab.density, marginal_at(lab.sde, times[f]));
    show_cloud(figure.at(0), lab.density, sde.frames[f], range);
    show_cloud(figure.at(1), lab.density, ode.frames[f], range);
    frames.push_back(figure.draw());
  }
  frames.insert(frames.end(), 10, frames.back());  // the result stays a while
  report.animations["reverse"] = std::move(frames);
  report.arrays["reverse_times"] = lab::to_array(times, 1);
  report.arrays["reverse_sde"] = to_array(sde, static_cast<std::size_t>(n), dim);
  report.arrays["reverse_ode"] = to_array(ode, static_cast<std::size_t>(n), dim);
  const Cloud exact = lab.density.sample(n, lab.seed + 1);
  report.numbers = {{"distance of the SDE's cloud", sliced_distance(sde.frames.back(), exact, dim)},
                    {"distance of the ODE's cloud", sliced_distance(ode.frames.back(), exact, dim)}};
  return report;
}

LabReport marginals_figure(const Laboratory& lab) {
  const int dim = lab.density.dim(), steps = 1000;
  std::vector<double> times{1.0};
  for (const double noise : {1.5, 0.6, 0.2})
    times.push_back(time_of_noise(lab.sde, noise * spread(lab.density)));
  for (double& t : times) t = std::round(t * steps) / steps;  // frames of the forward film
  const auto frame_of = [&](double t) { return static_cast<int>(std::lround(t * steps)); };
  const Film forward = forward_film(lab, lab.n, steps, false, [&](int m) {
    return std::ranges::any_of(times, [&](double t) { return frame_of(t) == m; }) ? lab.n : 0;
  });
  const Film reverse = reverse_film(lab, prior_cloud(lab, lab.n), times);
  Figure figure({.width = 1000, .height = 620, .rows = 2, .columns = 2});
  LabReport report;
  for (std::size_t k = 0; k < times.size(); ++k) {
    const double t = times[k];
    const Moments at = moments(lab, t);
    const double low = at.mean - 4 * at.std, high = at.mean + 4 * at.std;
    Axes& axes = figure.at(3 - static_cast<int>(k));
    axes.title = time_text(t);
    axes.x = {.label = "first coordinate", .low = low, .high = high};
    const auto frame = static_cast<std::size_t>(std::ranges::lower_bound(forward.times, t - 0.5 / steps) -
                                                forward.times.begin());
    axes.add(Histogram{.values = coordinate(forward.frames[frame], dim, 0),
                       .label = "forward SDE",
                       .low = low,
                       .high = high});
    axes.add(Histogram{.values = coordinate(reverse.frames[k], dim, 0),
                       .label = "reverse SDE",
                       .low = low,
                       .high = high,
                       .alpha = 0.0});
    if (dim > 2) continue;
    // On a grid wide enough for all times up to t.
    double reach = 0;
    for (const double s : {0.0, t})
      reach = std::max(reach, std::abs(moments(lab, s).mean) + 7 * moments(lab, s).std);
    const double start = 1e-3 * t;
    GridDensity p = grid_density(-reach, reach, 2000, [&](double x) {
      return first_marginal(lab.density, marginal_at(lab.sde, start), std::span(&x, 1))[0];
    });
    p = fokker_planck(lab.sde, p, start, t, 2000);
    std::vector<double> x;
    for (std::size_t i = 0; i < p.p.size(); ++i) x.push_back(p.centre(i));
    const std::vector<double> exact = first_marginal(lab.density, marginal_at(lab.sde, t), x);
    axes.add(Line{.x = x, .y = exact, .label = "exact", .color = kBlack});
    axes.add(Line{.x = x, .y = p.p, .label = "Fokker-Planck", .color = series_color(3), .dashed = true});
    double difference = 0;
    for (std::size_t i = 0; i < x.size(); ++i) difference += std::abs(p.p[i] - exact[i]) * p.width();
    report.numbers.push_back({"integral |Fokker-Planck - exact|, " + time_text(t), difference});
    tell(lab, "Fokker-Planck equation", static_cast<double>(k + 1) / static_cast<double>(times.size()));
  }
  report.pictures["marginals"] = figure.draw();
  report.arrays["marginals_times"] = lab::to_array(times, 1);
  report.arrays["marginals_reverse"] = to_array(reverse, static_cast<std::size_t>(lab.n), dim);
  return report;
}

}  // namespace sgm::lab
