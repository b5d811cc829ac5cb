// Figures of the density, its score and its likelihood.

#include <algorithm>
#include <cmath>

#include "lab/figures/parts.h"
#include "sgm/lab/fit.h"
#include "sgm/sampling/likelihood.h"

namespace sgm::lab {
namespace {

constexpr int kArrows = 15, kErrors = 48;  // points per side of arrow fields and of error maps

/// std(t) times a score at the points of a lattice: what the noise looks like to it, of order one.
Cloud scaled_score(const Laboratory& lab, const ScoreFn& score, const Cloud& points, double t) {
  Cloud values = to_cloud(score_at(score, to_batch(lab, points), {.t = t}));
  for (double& value : values) value *= lab.sde.marginal_std(t);
  return values;
}

void show_arrows(Axes& axes, const Laboratory& lab, const ScoreFn& score, double t, Density::Range range) {
  frame(axes, lab.density, range);
  const int dim = lab.density.dim();
  if (dim == 1) {
    Cloud x;
    for (int i = 0; i < 200; ++i) x.push_back(range.low + (range.high - range.low) * i / 199);
    return axes.add(Line{.x = x, .y = scaled_score(lab, score, x, t)});
  }
  const Lattice at = lattice(lab.density, range, kArrows);
  const Cloud values = scaled_score(lab, score, at.points, t);
  Arrows arrows{.x = coordinate(at.points, dim, 0), .y = coordinate(at.points, dim, 1), .u = {}, .v = {}};
  constexpr double kLongest = 4.0;  // far away scores grow without bound
  for (std::size_t i = 0; i < arrows.x.size(); ++i) {
    const double u = values[i * static_cast<std::size_t>(dim)],
                 v = values[i * static_cast<std::size_t>(dim) + 1];
    const double shrink = std::min(1.0, kLongest / std::max(1e-12, std::hypot(u, v)));
    arrows.u.push_back(u * shrink);
    arrows.v.push_back(v * shrink);
  }
  arrows.unit = kLongest;
  axes.add(std::move(arrows));
}

/// The length of the difference between learned and true score, times std(t).
void show_errors(Axes& axes, const Laboratory& lab, const ScoreFn& exact, double t, Density::Range range) {
  frame(axes, lab.density, range);
  const auto dim = static_cast<std::size_t>(lab.density.dim());
  const Lattice at = lattice(lab.density, range, kErrors);
  const Cloud a = scaled_score(lab, lab.score, at.points, t), b = scaled_score(lab, exact, at.points, t);
  std::vector<double> errors;
  for (std::size_t i = 0; i < a.size(); i += dim) {
    double square = 0;
    for (std::size_t k = 0; k < dim; ++k) square += (a[i + k] - b[i + k]) * (a[i + k] - b[i + k]);
    errors.push_back(std::sqrt(square));
  }
  axes.add(HeatMap{.values = std::move(errors),
                   .rows = kErrors,
                   .columns = kErrors,
                   .x_low = range.low,
                   .x_high = range.high,
                   .y_low = range.low,
                   .y_high = range.high,
                   .low = 0.0});
}

/// Log densities at the points of a lattice (of a line: along it).
struct LogDensities {
  std::vector<double> x, truth, found;
  double nfe = 0;
};

LogDensities log_densities(const Laboratory& lab, const Cloud& points, double eps) {
  const Tensor x = to_batch(lab, points);
  FlowOptions options{.eps = eps, .ode = ode_options(lab.sde, lab.sampling)};
  options.ode.progress = [&](double fraction) {
    tell(lab, "likelihood", fraction);
    return true;
  };
  const Likelihood likelihood =
      log_likelihood(lab.sde, lab.score_product, x, unit_probes(lab.context, x.shape()), options);
  const auto exact = lab.density.at(marginal_at(lab.sde, eps));
  const auto dim = static_cast<std::size_t>(lab.density.dim());
  LogDensities all{coordinate(points, lab.density.dim(), 0), {}, {}, 0};
  for (std::size_t i = 0; i < points.size() / dim; ++i) {
    all.truth.push_back(exact->log_prob(std::span(points).subspan(i * dim, dim)));
    all.found.push_back(likelihood.log_likelihood(i));
    all.nfe += static_cast<double>(likelihood.nfe[i]) / static_cast<double>(points.size() / dim);
  }
  return all;
}

}  // namespace

LabReport density_figure(const Laboratory& lab) {
  const Drawn drawn = draw_samples(lab, lab.sampling, "samples");
  const Cloud exact = lab.density.sample(lab.n, lab.seed + 1),
              other = lab.density.sample(lab.n, lab.seed + 2);
  Figure figure({.width = 1080, .height = 380, .columns = 3});
  figure.at(0).title = "density";
  show_density(figure.at(0), lab.density, {1.0, 0.0}, lab.density.range());
  figure.at(1).title = "draws from it";
  show_cloud(figure.at(1), lab.density, exact, lab.density.range());
  figure.at(2).title = lab.is_learned ? "samples with the learned score" : "samples with the exact score";
  show_cloud(figure.at(2), lab.density, drawn.cloud, lab.density.range());
  LabReport report;
  report.pictures["density"] = figure.draw();
  report.arrays["density_samples"] = to_array(drawn.cloud, lab.density.dim());
  report.numbers = {{"evaluations of the score", drawn.nfe},
                    {"distance of the samples", sliced_distance(drawn.cloud, exact, lab.density.dim())},
                    {"distance of draws", sliced_distance(other, exact, lab.density.dim())}};
  return report;
}

LabReport score_figure(const Laboratory& lab) {
  const ScoreFn exact = exact_score(lab.density, lab.sde);
  const bool is_line = lab.density.dim() == 1;
  const int rows = lab.is_learned ? (is_line ? 2 : 3) : 1;
  Figure figure({.width = 960, .height = 20 + 310 * rows, .rows = rows, .columns = 3});
  LabReport report;
  int column = 0;
  for (const double noise : {0.1, 0.4, 1.2}) {
    const double t = time_of_noise(lab.sde, noise * spread(lab.density));
    const Density::Range range = range_at(lab.density, marginal_at(lab.sde, t));
    figure.at(column).title = "true, " + time_text(t);
    show_arrows(figure.at(column), lab, exact, t, range);
    if (lab.is_learned) {
      figure.at(3 + column).title = "learned";
      show_arrows(figure.at(3 + column), lab, lab.score, t, range);
      const double error = score_error(lab.score, lab.density, marginal_at(lab.sde, t), t, lab.context);
      report.numbers.push_back({"relative error of the score, " + time_text(t), error});
      if (!is_line) {
        figure.at(6 + column).title = "|learned − true| std, relative " + short_text(error);
        show_errors(figure.at(6 + column), lab, exact, t, range);
      }
    }
    tell(lab, "scores", ++column / 3.0);
  }
  report.pictures["score"] = figure.draw();
  return report;
}

LabReport likelihood_figure(const Laboratory& lab) {
  const double eps = lab.sampling.eps > 0 ? lab.sampling.eps : lab.sde.sampling_eps();
  const int dim = lab.density.dim(), side = 48;
  const Density::Range range = lab.density.range();
  Cloud points;
  if (dim == 1)
    for (int i = 0; i < 200; ++i) points.push_back(range.low + (range.high - range.low) * (i + 0.5) / 200);
  else if (dim == 2)
    points = lattice(lab.density, range, side).points;
  else
    points = lab.density.sample(512, lab.seed, 0, marginal_at(lab.sde, eps));
  const LogDensities all = log_densities(lab, points, eps);
  // Far from the data both are large and negative; nothing is drawn there.
  const double top = *std::max_element(all.truth.begin(), all.truth.end()), floor = top - 12;
  std::vector<double> errors;
  double sum = 0, weight = 0;
  for (std::size_t i = 0; i < all.truth.size(); ++i) {
    errors.push_back(all.found[i] - all.truth[i]);
    const double p = dim > 2 ? 1.0 : std::exp(all.truth[i]);
    sum += p * std::abs(errors[i]);
    weight += p;
  }
  Figure figure({.width = dim == 2 ? 1140 : 800, .height = 380, .columns = dim == 2 ? 3 : 2});
  if (dim == 2) {
    const auto map = [&](int i, const char* title, const std::vector<double>& values, double low, double high,
                         ColorMap colors) {
      figure.at(i).title = title;
      frame(figure.at(i), lab.density, range);
      figure.at(i).add(
          HeatMap{values, side, side, range.low, range.high, range.low, range.high, low, high, colors});
    };
    std::vector<double> shown = errors;
    double largest = 1e-12;
    for (std::size_t i = 0; i < shown.size(); ++i) {
      if (all.truth[i] < floor) shown[i] = 0;
      largest = std::max(largest, std::abs(shown[i]));
    }
    map(0, "log density, exact", all.truth, floor, top, ColorMap::sequential);
    map(1, "log density, by the ODE", all.found, floor, top, ColorMap::sequential);
    map(2, "difference", shown, -largest, largest, ColorMap::diverging);
  } else {
    const std::vector<double>& across = dim == 1 ? all.x : all.truth;
    figure.at(0).x.label = dim == 1 ? "x" : "exact";
    figure.at(0).y.label = "log density";
    figure.at(0).add(Scatter{.x = across, .y = all.found, .label = "by the ODE", .radius = 2.0});
    figure.at(0).add(Line{.x = dim == 1 ? across : std::vector{floor, top},
                          .y = dim == 1 ? all.truth : std::vector{floor, top},
                          .label = "exact",
                          .color = kBlack,
                          .dashed = true});
    figure.at(1).x.label = figure.at(0).x.label;
    figure.at(1).y.label = "difference";
    figure.at(1).add(Scatter{.x = across, .y = errors, .radius = 2.0});
  }
  LabReport report;
  report.pictures["likelihood"] = figure.draw();
  report.arrays["likelihood_points"] = to_array(points, dim);
  report.arrays["likelihood_exact"] = to_array(all.truth, 1);
  report.arrays["likelihood_ode"] = to_array(all.found, 1);
  report.numbers = {{"mean |difference| in nats", sum / weight}, {"evaluations per point", all.nfe}};
  return report;
}

}  // namespace sgm::lab
