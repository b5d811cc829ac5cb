// sgm likelihood: log-likelihoods of a data set through the probability-flow ODE.

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <numeric>

#include "cli/flow.h"
#include "cli/likelihood_file.h"
#include "sgm/data/loader.h"
#include "sgm/plot/figure.h"
#include "sgm/sampling/likelihood.h"

namespace sgm::cli {
namespace {

struct LikelihoodOptions {
  std::string out, plot, probe = "rademacher";
  int draws = 1, probes = 1;
  bool exact = false, resume = false;
  std::uint64_t seed = 0;
  ModelOptions model;
  DataOptions data;
  FlowSettings flow;
};

/// All that the numbers of an image depend on besides its pixels.
Json settings_of(const LikelihoodOptions& o, const Model& model, const FlowOptions& flow) {
  Json json;
  json["model"] = o.model.model;
  json["step"] = model.loaded.info.step;
  json["weights"] = o.model.raw ? "raw" : "average";
  json["precision"] = o.model.precision.empty() ? model.config().training.precision : o.model.precision;
  json["data"] = o.data.path;
  json["first"] = o.data.first;
  json["resize"] = o.data.resize;
  json["seed"] = o.seed;
  json["draws"] = o.draws;
  json["trace"] = o.exact ? "exact" : o.probe;
  json["probes"] = o.probes;
  json["solver"] = flow.ode.solver;
  json["steps"] = flow.ode.fixed_steps;
  json["rtol"] = flow.ode.rtol;
  json["atol"] = flow.ode.atol;
  json["eps"] = flow.eps;
  json["batch_mean_norms"] = flow.ode.shared_steps;
  json["batch"] = o.flow.batch;
  return json;
}

struct Statistics {
  double mean, error;  // standard error of the mean; 0 of a single value
};
Statistics statistics(const std::vector<double>& values) {
  const double n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0.0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, n > 1.0 ? std::sqrt(squares / (n - 1.0) / n) : 0.0};
}

/// Likelihoods of a batch, one draw of noise and probes after the other; fewer than asked for when stopped.
std::vector<Likelihood> draw_likelihoods(const LikelihoodOptions& o, const Model& model,
                                         const ScoreProductFn& score, const Dataset& dataset,
                                         FlowOptions flow, std::int64_t first, std::int64_t n,
                                         const OnTheWay& on_the_way) {
  Context& context = *model.context;
  const auto sample = static_cast<std::uint32_t>(first);
  std::vector<Likelihood> results;
  for (int draw = 0; draw < o.draws; ++draw) {
    const auto step = static_cast<std::uint32_t>(draw);
    flow.ode.progress = [&](double fraction) { return on_the_way((draw + fraction) / o.draws); };
    const Tensor x = read_images(dataset, first, n, model.config().data.centered, context,
                                 NoiseKey{o.seed, Purpose::dequantise, step, sample});
    const Probes probes = o.exact ? unit_probes(context, x.shape())
                                  : random_probes(o.probe, context, x.shape(), o.probes,
                                                  {o.seed, Purpose::probe, step, sample});
    Likelihood result = log_likelihood(*model.sde, score, x, probes, flow);
    if (!result.complete) break;
    results.push_back(std::move(result));
  }
  return results;
}

/// The line of image number `image`, which is entry i of its batch.
Json line_of(const std::vector<Likelihood>& draws, std::size_t i, std::int64_t image, std::int64_t dim,
             double range) {
  std::vector<double> nats, bits;
  double log_prior = 0.0, delta = 0.0, nfe = 0.0;
  const double count = static_cast<double>(draws.size());
  for (const Likelihood& draw : draws) {
    nats.push_back(draw.log_likelihood(i));
    bits.push_back(bits_per_dim(nats.back(), dim, range));
    log_prior += draw.log_prior[i] / count;
    delta += draw.delta[i] / count;
    nfe += static_cast<double>(draw.nfe[i]) / count;
  }
  Json line;
  line["image"] = image;
  line["bits_per_dim"] = statistics(bits).mean;
  if (draws.size() > 1) line["standard_error"] = statistics(bits).error;
  line["draws"] = draws.size();
  line["nats"] = statistics(nats).mean;
  line["log_prior"] = log_prior;
  line["delta"] = delta;
  line["nfe"] = nfe;
  return line;
}

void print_summary(const std::vector<Json>& lines) {
  std::vector<double> bits, nats, nfe;
  for (const Json& line : lines) {
    bits.push_back(line["bits_per_dim"].get<double>());
    nats.push_back(line["nats"].get<double>());
    nfe.push_back(line["nfe"].get<double>());
  }
  if (lines.empty()) return;
  std::cout << std::fixed << std::setprecision(4) << statistics(bits).mean << " +- " << statistics(bits).error
            << " bits/dim, " << std::setprecision(2) << statistics(nats).mean << " +- "
            << statistics(nats).error << " nats, NFE " << std::setprecision(1) << statistics(nfe).mean
            << "; mean and standard error over " << lines.size() << " images\n";
}

Image plot_of(const std::vector<Json>& lines) {
  std::vector<double> bits;
  for (const Json& line : lines) bits.push_back(line["bits_per_dim"].get<double>());
  Figure figure({});
  figure.at(0).x.label = "bits/dim";
  figure.at(0).y.label = "density of images";
  const int bins = std::clamp(static_cast<int>(2.0 * std::cbrt(static_cast<double>(bits.size()))), 5, 60);
  figure.at(0).add(Histogram{.values = bits, .bins = bins});
  return figure.draw();
}

int likelihood_command(LikelihoodOptions o) {
  check_output_file("--out", o.out, ".jsonl");
  check_output_file("--plot", o.plot, ".png");
  const auto model = o.model.open();
  const auto dataset = o.data.open(*model);
  const FlowOptions flow = o.flow.of(*model);
  const Config& config = model->config();
  const std::int64_t dim = model->batch_shape(1).numel();
  if (o.exact) unit_probes(*model->context, model->batch_shape(1));  // refuses large images before any work
  const ScoreProductFn score =
      score_product_function(*model->loaded.network, *model->sde, config.training.continuous, model->compute);
  LikelihoodFile file(o.out, settings_of(o, *model, flow), {o.data.first, o.data.n, o.flow.batch}, o.resume);
  const bool done = in_batches(std::ssize(file.lines()), o.data.n, o.flow.batch,
                               [&](std::int64_t begin, std::int64_t n, const OnTheWay& on_the_way) {
                                 const std::int64_t first = o.data.first + begin;
                                 const std::vector<Likelihood> draws =
                                     draw_likelihoods(o, *model, score, *dataset, flow, first, n, on_the_way);
                                 if (std::ssize(draws) < o.draws) return false;
                                 for (std::int64_t i = 0; i < n; ++i)
                                   file.add(line_of(draws, static_cast<std::size_t>(i), first + i, dim,
                                                    config.data.centered ? 2.0 : 1.0));
                                 return !stop_requested() || begin + n == o.data.n;
                               });
  print_summary(file.lines());
  if (done && !o.plot.empty()) write_png(o.plot, plot_of(file.lines()));
  if (done) return kDone;
  std::cerr << "interrupted: " << file.lines().size() << " of " << o.data.n << " images are finished"
            << (o.out.empty() ? "" : "; continue with --resume") << '\n';
  return kInterrupted;
}

}  // namespace

void add_likelihood(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<LikelihoodOptions>();
  CLI::App* command = app.add_subcommand("likelihood", "Log-likelihoods of images, in bits per dimension");
  o->model.add_to(*command);
  o->data.add_to(*command);
  command->add_option("--draws", o->draws, "Evaluations per image, each with its own noise and probes")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  CLI::Option* probes =
      command->add_option("--probes", o->probes, "Directions averaged in each estimate of the trace")
          ->check(CLI::Range(1, 65535))
          ->capture_default_str();
  CLI::Option* probe = command->add_option("--probe", o->probe, "rademacher or gaussian")
                           ->check(CLI::IsMember(probe_names()))
                           ->capture_default_str();
  command->add_flag("--exact", o->exact, "The trace itself, of images of few values")
      ->excludes(probes)
      ->excludes(probe);
  command->add_option("--seed", o->seed, "Of noise and probes")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  CLI::Option* out = command->add_option("--out", o->out, "likelihood.jsonl: a line for every image");
  command->add_option("--plot", o->plot, "A PNG: histogram over the images");
  command->add_flag("--resume", o->resume, "Continue an interrupted --out")->needs(out);
  o->flow.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return likelihood_command(*o); }; });
}

}  // namespace sgm::cli
