// sgm profile: what a training step or a network evaluation costs, launch by launch.

#include <chrono>
#include <cstdio>
#include <iostream>

#include "cli/commands.h"
#include "sgm/core/precision.h"
#include "sgm/data/dataset.h"
#include "sgm/score/score_model.h"
#include "sgm/tensor/math.h"
#include "sgm/train/trainer.h"

namespace sgm::cli {
namespace {

struct ProfileOptions {
  std::string config, mode = "train";
  std::vector<std::string> overrides;
  bool count = false, no_graph = false;
  int steps = 10;
  DeviceOptions device;
};

/// One step of what is profiled.
using Work = std::function<void()>;

Work training_step(std::shared_ptr<Trainer> trainer) {
  return [trainer] { trainer->launch(); };
}

Work evaluation(const Config& config, Context& context) {
  struct Parts {
    std::unique_ptr<ScoreNetwork> network;
    std::unique_ptr<SDE> sde;
    ScoreFn score;
    Tensor x;
  };
  auto parts = std::make_shared<Parts>();
  parts->network = create_network(config, context);
  parts->sde = create_sde(config.sde);
  parts->score = score_function(*parts->network, *parts->sde, config.training.continuous,
                                use_precision(context, config.training.precision));
  const int size = config.data.image_size;
  parts->x = normal(context, {config.training.batch_size, size, size, config.data.num_channels}, NoiseKey{});
  return [parts] {
    const int scales = parts->sde->num_scales();
    score_at(parts->score, parts->x, {.t = 0.5, .k = scales / 2, .num_scales = scales});
  };
}

void print_counts(const std::vector<LaunchCount>& counts, double images, double steps) {
  std::int64_t launches = 0, bytes[2] = {};
  std::printf("%-28s %-13s %10s %12s\n", "kernel", "bound by", "launches", "MB");
  for (const LaunchCount& count : counts) {
    const bool product = count.kind == Traffic::product;
    std::printf("%-28s %-13s %10.0f %12.2f\n", count.kernel.c_str(), product ? "products" : "memory",
                static_cast<double>(count.launches) / steps, static_cast<double>(count.bytes) / steps / 1e6);
    launches += count.launches;
    bytes[product] += count.bytes;
  }
  const auto megabytes = [&](std::int64_t b) { return static_cast<double>(b) / steps / 1e6; };
  std::printf("launches per step: %.0f\n", static_cast<double>(launches) / steps);
  std::printf("memory-bound traffic per step: %.2f MB (%.3f MB per image)\n", megabytes(bytes[0]),
              megabytes(bytes[0]) / images);
  std::printf("operands of products per step: %.2f MB (%.3f MB per image)\n", megabytes(bytes[1]),
              megabytes(bytes[1]) / images);
}

int profile_command(const ProfileOptions& options) {
  const Config config = load_config(options.config, options.overrides);
  validate(config);
  const auto context = options.count ? create_context("cuda-dry") : options.device.open();
  const auto dataset = random_dataset(config.data.image_size, config.data.num_channels);
  const Work step = options.mode == "train"
                        ? training_step(std::make_shared<Trainer>(config, *dataset, *context,
                                                                  !options.count && !options.no_graph))
                        : evaluation(config, *context);
  const auto images = static_cast<double>(config.training.batch_size);
  constexpr int kWarmUp = 4;  // tuning, allocation, capture
  for (int i = 0; i < (options.count ? 1 : kWarmUp); ++i) step();
  context->synchronize();
  context->take_launch_counts();
  if (options.count) {
    step();
    print_counts(context->take_launch_counts(), images, 1);
    return kDone;
  }
  using Clock = std::chrono::steady_clock;
  context->set_profiling(true);
  const auto start = Clock::now();
  for (int i = 0; i < options.steps; ++i) step();
  context->synchronize();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count() / options.steps;
  context->set_profiling(false);
  const MemoryStats memory = context->memory();
  std::printf("%.3f ms per step of %.0f images: %.1f img/s; peak memory of tensors %.1f MiB\n", seconds * 1e3,
              images, images / seconds, static_cast<double>(memory.peak) / 1048576.0);
  return kDone;
}

}  // namespace

void add_profile(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* command = app.add_subcommand(
      "profile", "Time a training step or a network evaluation, or count what it launches");
  command->add_option("config", options->config, "TOML file; data.path is not needed: images are random")
      ->required();
  command->add_option("--mode", options->mode, "train or forward")
      ->check(CLI::IsMember({"train", "forward"}))
      ->capture_default_str();
  command->add_option("--set", options->overrides, "Override, e.g. --set training.batch_size=64")
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag("--count", options->count,
                    "Count GPU launches and the bytes they move, by kernel; needs no GPU");
  command->add_flag("--no-graph", options->no_graph, "Launch every training step call by call");
  command->add_option("--steps", options->steps, "Steps to time")->check(positive());
  options->device.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { return profile_command(*options); }; });
}

}  // namespace sgm::cli
