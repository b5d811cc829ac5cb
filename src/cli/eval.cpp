// sgm eval: the loss of a model on images, noise level by noise level.

#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/flow.h"
#include "sgm/core/error.h"
#include "sgm/data/loader.h"
#include "sgm/io/atomic_file.h"
#include "sgm/plot/figure.h"
#include "sgm/score/level_loss.h"

namespace sgm::cli {
namespace {

struct EvalOptions {
  ModelOptions model;
  DataOptions data = {.n = 256};
  std::string out, plot;
  std::uint64_t seed = 0;
  int levels = 20, batch = 64;
};

/// Gives every level all images. Returns false when a signal came first.
bool evaluate(const EvalOptions& o, const Model& model, const Dataset& images, LevelLosses& losses) {
  const DataConfig& data = model.config().data;
  ScoreNetwork& network = *model.loaded.network;
  network.set_requires_grad(false);
  const LossNetwork predict(network, {model.compute, false, {}});
  watch_signals();
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  Progress progress(std::cerr, is_terminal(2), 0, o.data.n * losses.levels());
  for (std::int64_t done = 0; done < o.data.n; done += o.batch) {
    const std::int64_t first = o.data.first + done, count = std::min<std::int64_t>(o.batch, o.data.n - done);
    std::optional<NoiseKey> dequantise;
    if (data.uniform_dequantization)
      dequantise = NoiseKey{o.seed, Purpose::dequantise, 0, static_cast<std::uint32_t>(first)};
    const Tensor x0 = read_images(images, first, count, data.centered, *model.context, dequantise);
    for (int level = 0; level < losses.levels(); ++level) {
      losses.add(predict, x0, first, level);
      const std::int64_t evaluated = done * losses.levels() + count * (level + 1);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      progress.update(evaluated, {}, static_cast<double>(evaluated) / seconds);
      if (stop_requested()) {
        progress.note("interrupted: nothing was written");
        return false;
      }
    }
  }
  return true;
}

void print(const LevelLosses& losses) {
  std::printf("%9s %10s %12s %11s %12s %13s\n", "t", "std/mean", "loss", "+-", "noise error", "denoising");
  for (const LevelLoss& level : losses.results())
    std::printf("%9.5f %10.4g %12.5g %11.2g %12.4g %13.4g\n", level.at.t,
                level.marginal.std / level.marginal.mean_coeff, level.loss.mean, level.loss.standard_error,
                level.noise_error, level.denoising_error);
  const MeanAndError total = losses.total();
  std::printf("loss: %.6g +- %.2g\n", total.mean, total.standard_error);
}

/// Numbers that are none are null in JSON.
void write_json(const std::string& path, const EvalOptions& o, const Model& model,
                const LevelLosses& losses) {
  nlohmann::ordered_json json;
  json["model"] = o.model.model;
  json["step"] = model.loaded.info.step;
  json["data"] = o.data.path;
  json["first"] = o.data.first;
  json["images"] = o.data.n;
  json["seed"] = o.seed;
  json["loss"] = losses.total().mean;
  json["loss_standard_error"] = losses.total().standard_error;
  for (const LevelLoss& level : losses.results()) {
    nlohmann::ordered_json row;
    row["t"] = level.at.t;
    if (level.at.on_grid()) row["scale"] = level.at.k;
    row["mean_coeff"] = level.marginal.mean_coeff;
    row["std"] = level.marginal.std;
    row["loss"] = level.loss.mean;
    row["loss_standard_error"] = level.loss.standard_error;
    row["noise_error"] = level.noise_error;
    row["denoising_error"] = level.denoising_error;
    json["levels"].push_back(row);
  }
  AtomicFile file(path);
  file.write(json.dump(2) + "\n");
  file.commit();
}

/// Loss and denoising error over the noise level.
Image draw(const LevelLosses& losses) {
  std::vector<double> t, sigma, loss, low, high, denoising;
  for (const LevelLoss& level : losses.results()) {
    t.push_back(level.at.t);
    sigma.push_back(level.marginal.std / level.marginal.mean_coeff);
    loss.push_back(level.loss.mean);
    low.push_back(level.loss.mean - 2 * level.loss.standard_error);
    high.push_back(level.loss.mean + 2 * level.loss.standard_error);
    denoising.push_back(level.denoising_error);
  }
  Figure figure({.width = 900, .height = 360, .columns = 2});
  Axes& left = figure.at(0);
  left.x = {.label = "t", .low = 0.0, .high = 1.0};
  left.y.label = "loss";
  left.add(Band{.x = t, .low = low, .high = high, .label = "± 2 standard errors", .color = series_color(0)});
  left.add(Line{.x = t, .y = loss, .label = "mean over images", .color = series_color(0), .marker = 2.0});
  Axes& right = figure.at(1);
  right.x = {.label = "noise per signal, std / mean", .is_log = true};
  right.y = {.label = "error of the denoised image", .is_log = true};
  right.add(Line{.x = sigma, .y = denoising, .label = "root mean square", .marker = 2.0});
  right.add(Line{.x = sigma, .y = sigma, .label = "of the noisy image", .color = kGrey, .dashed = true});
  return figure.draw();
}

int eval_command(EvalOptions o) {
  resolve_checkpoint(o.model.model);
  check_output_file("--out", o.out, ".json");
  check_output_file("--plot", o.plot, ".png");
  const auto model = o.model.open();
  const auto images = o.data.open(*model);
  std::cerr << "data: " << images->describe() << '\n';
  LevelLosses losses(*model->sde, model->config().training, o.levels, o.seed);
  if (!evaluate(o, *model, *images, losses)) return kInterrupted;
  print(losses);
  if (!o.out.empty()) write_json(o.out, o, *model, losses);
  if (!o.plot.empty()) write_png(o.plot, draw(losses));
  return kDone;
}

}  // namespace

void add_eval(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand("eval", "Measure a model's loss on images, per noise level");
  o->model.add_to(*command);
  o->data.add_to(*command);
  command->add_option("--levels", o->levels, "Noise levels")->check(positive())->capture_default_str();
  command->add_option("--seed", o->seed, "Of the noise, which is the same for every model")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--batch", o->batch, "Images at a time; changes speed, not results")
      ->check(positive())
      ->capture_default_str();
  command->add_option("--out", o->out, "JSON file of the numbers");
  command->add_option("--plot", o->plot, "PNG file of a plot");
  command->callback([o, &chosen] { chosen = [o] { return eval_command(*o); }; });
}

}  // namespace sgm::cli
