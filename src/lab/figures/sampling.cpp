// Figures that set samplers side by side.

#include <cmath>

#include "lab/figures/parts.h"
#include "sgm/core/error.h"
#include "sgm/sampling/predictor_corrector.h"
#include "sgm/sampling/sampler.h"

namespace sgm::lab {
namespace {

/// Langevin steps at one noise level, x <- x + lr score / 2 + sqrt(lr) z, of points that begin anywhere in
/// the density's range. lr is a tenth of the variance that the score sees, dim / E |score|^2.
Cloud plain_langevin(const Laboratory& lab, int steps) {
  const TimePoint at{.t = lab.sde.sampling_eps()};
  const int dim = lab.density.dim();
  const Tensor data =
      sample_tensor(lab.density, lab.context, lab.n, lab.seed + 3, 0, marginal_at(lab.sde, at.t));
  double information = 0;
  for (const double value : to_cloud(score_at(lab.score, data, at)))
    information += value * value / static_cast<double>(lab.n * dim);
  const double lr = 0.1 / information;
  const Density::Range range = lab.density.range();
  Cloud start;
  for (std::int64_t i = 0; i < lab.n; ++i)
    for (int k = 0; k < dim; ++k)
      start.push_back(range.low + (range.high - range.low) *
                                      static_cast<double>(uniform_at({lab.seed, Purpose::prior, 1},
                                                                     static_cast<std::uint32_t>(i),
                                                                     static_cast<std::uint32_t>(k))));
  Tensor x = to_batch(lab, start);
  for (int step = 0; step < steps; ++step) {
    const Noise noise{{lab.seed, Purpose::corrector, static_cast<std::uint32_t>(step)}, {}};
    x = affine_step(
            {.x = x, .score = score_at(lab.score, x, at), .noise = noise, .b = lr / 2, .c = std::sqrt(lr)})
            .y;
    tell(lab, "plain Langevin", static_cast<double>(step + 1) / steps);
  }
  return to_cloud(x);
}

/// Langevin dynamics from much noise to little: of an SDE that only adds noise at thirty noise scales, forty
/// steps of 0.05 sigma^2 each; of others by its corrector on their own scales.
SamplingConfig annealed(const Laboratory& lab) {
  SamplingConfig settings = lab.sampling;
  settings.denoise = false;
  if (lab.sde.drift(1.0) == 0.0) {
    settings.method = "annealed_langevin";
    settings.steps = 30;
    settings.n_steps_each = 40;
    settings.step_lr = 0.05 * std::pow(lab.sde.discrete_marginal(0, 30).std, 2);
  } else {
    settings.method = "pc";
    settings.predictor = "none";
    settings.corrector = "ald";
    settings.steps = 100;
    settings.n_steps_each = 10;
    settings.snr = 0.16;
  }
  return settings;
}

struct Panel {
  std::string name;
  Cloud cloud;
};

}  // namespace

LabReport langevin_figure(const Laboratory& lab) {
  const int dim = lab.density.dim();
  SamplingConfig pc = lab.sampling, ode = lab.sampling;
  pc.method = "pc";
  ode.method = "ode";
  const Panel panels[] = {{"draws of the density", lab.density.sample(lab.n, lab.seed + 1)},
                          {"plain Langevin", plain_langevin(lab, 1000)},
                          {"annealed Langevin", draw_samples(lab, annealed(lab), "annealed Langevin").cloud},
                          {"predictor-corrector", draw_samples(lab, pc, "predictor-corrector").cloud},
                          {"probability-flow ODE", draw_samples(lab, ode, "probability-flow ODE").cloud}};
  Figure figure({.width = 1250, .height = 300, .columns = 5});
  LabReport report;
  report.numbers.push_back({"share of the larger side, the density's",
                            share(lab.density, lab.density.sample(200'000, lab.seed + 2))});
  for (int i = 0; i < 5; ++i) {
    const double found = share(lab.density, panels[i].cloud);
    figure.at(i).title = panels[i].name + ": " + short_text(found);
    show_cloud(figure.at(i), lab.density, panels[i].cloud, lab.density.range());
    report.numbers.push_back({"share of the larger side, " + panels[i].name, found});
    std::string name = "langevin_" + panels[i].name;
    for (char& c : name) c = c == ' ' || c == '-' ? '_' : c;
    report.arrays[name] = to_array(panels[i].cloud, dim);
  }
  report.pictures["langevin"] = figure.draw();
  return report;
}

LabReport samplers_figure(const Laboratory& lab) {
  const std::vector<std::string> predictors = predictor_names(), correctors = corrector_names();
  const int rows = static_cast<int>(correctors.size()), columns = static_cast<int>(predictors.size());
  const int dim = lab.density.dim();
  const Cloud exact = lab.density.sample(lab.n, lab.seed + 1);
  Figure figure({.width = 250 * columns, .height = 40 + 260 * rows, .rows = rows, .columns = columns});
  figure.set_title("sampler: distance to draws of the density");
  LabReport report;
  const auto add = [&](int panel, const SamplingConfig& settings, const std::string& name) {
    Axes& axes = figure.at(panel);
    try {
      create_sampler(lab.sde, settings);
    } catch (const Error&) {
      axes.is_hidden = true;  // this SDE has no such combination
      return;
    }
    const Drawn drawn = draw_samples(lab, settings, name);
    const double distance = sliced_distance(drawn.cloud, exact, dim);
    axes.title = name + ": " + short_text(distance);
    show_cloud(axes, lab.density, drawn.cloud, lab.density.range());
    report.numbers.push_back({"distance, " + name, distance});
    report.numbers.push_back({"evaluations, " + name, drawn.nfe});
  };
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      SamplingConfig settings = lab.sampling;
      settings.method = "pc";
      settings.predictor = predictors[static_cast<std::size_t>(column)];
      settings.corrector = correctors[static_cast<std::size_t>(row)];
      std::string name =
          settings.predictor + (settings.corrector == "none" ? "" : " + " + settings.corrector);
      const bool is_ode = settings.predictor == "none" && settings.corrector == "none";
      if (is_ode) {
        settings.method = "ode";
        name = "ode, " + settings.solver;
      }
      add(row * columns + column, settings, name);
    }
  report.numbers.push_back({"distance, draws of the density",
                            sliced_distance(lab.density.sample(lab.n, lab.seed + 2), exact, dim)});
  report.pictures["samplers"] = figure.draw();
  return report;
}

}  // namespace sgm::lab
