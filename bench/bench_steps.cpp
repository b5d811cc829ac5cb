// Times a whole training step, or an evaluation of the network, of a configuration on random images.
//   bench_steps CONFIG.toml --mode train|forward --batch N --precision f32|bf16 [--json FILE]

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/timing.h"
#include "sgm/data/dataset.h"
#include "sgm/score/score_model.h"
#include "sgm/train/trainer.h"

namespace sgm::bench {
namespace {

struct Options {
  std::string config, mode = "train", precision = "f32", json, device = "cpu";
  int batch = 4, steps = 5, warmup = 2, threads = 0;
};

std::vector<double> time_training(const Config& config, Context& context, const Options& o) {
  const auto dataset = random_dataset(config.data.image_size, config.data.num_channels);
  Trainer trainer(config, *dataset, context);
  return seconds_of(o.warmup, o.steps, [&] { trainer.step(); });
}

std::vector<double> time_forward(const Config& config, Context& context, const Options& o) {
  const auto network = create_network(config, context);
  const auto sde = create_sde(config.sde);
  const ScoreFn score = score_function(*network, *sde, config.training.continuous,
                                       o.precision == "bf16" ? DType::bf16 : DType::f32);
  const int size = config.data.image_size;
  const Tensor x = normal(context, {o.batch, size, size, config.data.num_channels}, NoiseKey{.seed = 3});
  return seconds_of(o.warmup, o.steps, [&] {
    score_at(score, x, {.t = 0.5, .k = sde->num_scales() / 2, .num_scales = sde->num_scales()});
  });
}

int run(int argc, char** argv) {
  Options o;
  CLI::App app{"Times training steps or network evaluations"};
  app.add_option("config", o.config)->required();
  app.add_option("--mode", o.mode)->check(CLI::IsMember({"train", "forward"}));
  app.add_option("--precision", o.precision)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--batch", o.batch);
  app.add_option("--steps", o.steps);
  app.add_option("--warmup", o.warmup);
  app.add_option("--threads", o.threads);
  app.add_option("--device", o.device);
  app.add_option("--json", o.json);
  CLI11_PARSE(app, argc, argv);

  Config config = load_config(o.config);
  config.training.batch_size = o.batch;
  config.training.precision = o.precision;
  const auto context = create_context(o.device, o.threads);
  const auto seconds =
      o.mode == "train" ? time_training(config, *context, o) : time_forward(config, *context, o);
  const double middle = median(seconds);
  const MemoryStats memory = context->memory();
  const nlohmann::json result = {{"program", "sgm"},
                                 {"config", o.config},
                                 {"mode", o.mode},
                                 {"precision", o.precision},
                                 {"batch", o.batch},
                                 {"device", context->describe()},
                                 {"seconds", seconds},
                                 {"median_s", middle},
                                 {"best_s", best(seconds)},
                                 {"img_per_s", o.batch / middle},
                                 {"peak_tensor_mib", static_cast<double>(memory.peak) / 1048576.0},
                                 {"peak_rss_mib", peak_rss_mib()}};
  if (o.json.empty())
    std::cout << result.dump(2) << '\n';
  else
    std::ofstream(o.json) << result.dump(2) << '\n';
  return 0;
}

}  // namespace
}  // namespace sgm::bench

int main(int argc, char** argv) {
  try {
    return sgm::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "bench_steps: error: " << error.what() << '\n';
    return 2;
  }
}
