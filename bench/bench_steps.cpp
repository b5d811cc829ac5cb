// Times a whole training step, an evaluation of the network, or an update of the sampler (predictor and
// corrector), of a configuration on random images.
//   bench_steps CONFIG.toml --mode train|forward|sample --batch N --precision f32|tf32|bf16 [--device cuda]
//   [--json FILE]
// A timing is of --group steps, after which the device is waited for, as training does now and then.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/timing.h"
#include "core/settle_process.h"
#include "score/random_model.h"
#include "sgm/core/captured_step.h"
#include "sgm/core/error.h"
#include "sgm/core/precision.h"
#include "sgm/data/dataset.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/score_model.h"
#include "sgm/tensor/math.h"
#include "sgm/train/trainer.h"

namespace sgm::bench {
namespace {

struct Options {
  std::string config, mode = "train", precision = "f32", json, device = "cpu";
  int batch = 4, steps = 5, group = 1, warmup = 2, threads = 0;
  double seconds = 0;
  bool recompute = false, late_gradients = false, no_graph = false;
};

struct Timing {
  double warm_up = 0;           // seconds; the first use of a shape on a GPU tries convolution plans
  std::vector<double> seconds;  // of one step, a mean over each group
  double result = 0;            // mean loss or output: a number that must be finite
  std::string why_not_captured;
};

/// `launch` leaves a step to the device, `wait` waits for all of them and returns the result.
Timing time_steps(const Options& o, const std::function<void()>& launch,
                  const std::function<double()>& wait) {
  Timing timing;
  const auto run = [&](int steps) {
    return seconds_of(0, 1, [&] {
      for (int i = 0; i < steps; ++i) launch();
      timing.result = wait();
    })[0];
  };
  if (o.warmup > 0) timing.warm_up = run(o.warmup);
  double spent = 0;
  for (int i = 0; i < o.steps && (o.seconds <= 0 || spent < o.seconds || i < 3); ++i) {
    const double seconds = run(o.group);
    spent += seconds;
    timing.seconds.push_back(seconds / o.group);
  }
  return timing;
}

Timing time_training(const Config& config, Context& context, const Options& o) {
  const auto dataset = random_dataset(config.data.image_size, config.data.num_channels);
  Trainer trainer(config, *dataset, context, !o.no_graph);
  Timing timing = time_steps(
      o, [&] { trainer.launch(); }, [&] { return trainer.read().loss; });
  timing.why_not_captured = trainer.why_not_captured();
  return timing;
}

Timing time_forward(const Config& config, Context& context, const Options& o) {
  const RandomModel model(config, context);
  const Tensor x = normal(context, model.batch, NoiseKey{.seed = 3});
  const int scales = model.sde->num_scales();
  const auto evaluate = [&] {
    return score_at(model.score, x, {.t = 0.5, .k = scales / 2, .num_scales = scales});
  };
  CapturedStep captured(context, !o.no_graph);
  Timing timing = time_steps(
      o, [&] { captured.run([&] { evaluate(); }); },
      [&] {
        context.synchronize();
        return 0.0;
      });
  timing.why_not_captured = captured.why_not();
  double sum = 0;
  for (const float value : evaluate().to_host()) sum += value;
  timing.result = sum / static_cast<double>(x.numel());
  return timing;
}

/// A timing is of a run of --group updates, two at the least: the fewest that a sampler takes.
Timing time_sampling(const Config& config, Context& context, const Options& o) {
  const RandomModel model(config, context);
  SamplingConfig settings = config.sampling;
  settings.steps = std::max(2, o.group);
  settings.denoise = false;
  const auto sampler = create_sampler(*model.sde, settings);
  SampleRequest request;
  request.shape = model.batch;
  request.capture = !o.no_graph;
  Timing timing;
  const auto run = [&] { sampler->sample(context, model.score, request).x.to_host(); };
  timing.warm_up = seconds_of(0, 1, run)[0];
  for (const double seconds : seconds_of(0, o.steps, run)) timing.seconds.push_back(seconds / settings.steps);
  return timing;
}

nlohmann::json record(const Options& o, const Context& context, const Timing& timing) {
  const double middle = median(timing.seconds);
  const MemoryStats memory = context.memory();
  const auto mib = [](std::size_t bytes) { return static_cast<double>(bytes) / 1048576.0; };
  return {{"program", "sgm"},
          {"config", o.config},
          {"mode", o.mode},
          {"precision", o.precision},
          {"recompute", o.recompute},
          {"late_gradients", o.late_gradients},
          {"batch", o.batch},
          {"device", context.describe()},
          {"graph", !o.no_graph && timing.why_not_captured.empty()},
          {"why_not_graph", timing.why_not_captured},
          {"group", o.group},
          {"warm_up_s", timing.warm_up},
          {"seconds", timing.seconds},
          {"median_s", middle},
          {"best_s", best(timing.seconds)},
          {"img_per_s", o.batch / middle},
          {"result", timing.result},
          {"peak_tensor_mib", mib(memory.peak)},
          {"reserved_mib", mib(memory.reserved)},
          {"peak_rss_mib", peak_rss_mib()}};
}

int run(int argc, char** argv) {
  Options o;
  CLI::App app{"Times training steps or network evaluations"};
  app.add_option("config", o.config)->required();
  app.add_option("--mode", o.mode)->check(CLI::IsMember({"train", "forward", "sample"}));
  app.add_option("--precision", o.precision)->check(CLI::IsMember({"f32", "tf32", "bf16"}));
  app.add_option("--batch", o.batch)->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "Timings")->check(CLI::PositiveNumber);
  app.add_option("--seconds", o.seconds, "No more timings after so long, but three at least; 0: all");
  app.add_option("--group", o.group, "Steps in each timing")->check(CLI::PositiveNumber);
  app.add_option("--warmup", o.warmup, "Steps before them")->check(CLI::NonNegativeNumber);
  app.add_option("--threads", o.threads);
  app.add_option("--device", o.device);
  app.add_flag("--recompute", o.recompute, "With training.recompute");
  app.add_flag("--late-gradients", o.late_gradients, "With training.late_gradients");
  app.add_flag("--no-graph", o.no_graph, "Launch every step call by call, also on a GPU");
  app.add_option("--json", o.json);
  CLI11_PARSE(app, argc, argv);

  Config config = load_config(o.config);
  config.training.batch_size = o.batch;
  config.training.precision = o.precision;
  config.training.recompute = o.recompute;
  config.training.late_gradients = o.late_gradients;
  const auto context = create_context(o.device, o.threads);
  const Timing timing = o.mode == "train"    ? time_training(config, *context, o)
                        : o.mode == "sample" ? time_sampling(config, *context, o)
                                             : time_forward(config, *context, o);
  check(std::isfinite(timing.result), "the result of ", o.config, " is not finite: ", timing.result);
  const nlohmann::json result = record(o, *context, timing);
  if (o.json.empty())
    std::cout << result.dump(2) << '\n';
  else
    std::ofstream(o.json) << result.dump(2) << '\n';
  return 0;
}

}  // namespace
}  // namespace sgm::bench

int main(int argc, char** argv) {
  sgm::settle_process(argv);
  try {
    return sgm::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "bench_steps: error: " << error.what() << '\n';
    return 2;
  }
}
