// sgm train: a configuration and a folder become a trained model.

#include <algorithm>
#include <iostream>
#include <iterator>
#include <sstream>
#include <tuple>

#include "cli/commands.h"
#include "cli/memory.h"
#include "sgm/core/precision.h"
#include "sgm/data/dataset.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/score_model.h"
#include "sgm/train/trainer.h"

namespace sgm::cli {
namespace {

struct TrainOptions {
  std::string config, workdir;
  std::vector<std::string> overrides;
  std::int64_t steps = -1;
  bool resume = false, dry_run = false, no_graph = false;
  std::string profile_steps;
  DeviceOptions device;
};

/// Images of a snapshot that are drawn at once: as many as a step has memory for, unless they depend on each
/// other.
int images_at_once(const Config& config) {
  const int all = config.sampling.snapshot_count;
  return config.sampling.batch_mean_norms ? all : std::min(all, config.training.images_at_once());
}

/// Draws a grid with the current moving averages: samples/step_<n>.png, and to TensorBoard.
void draw_snapshot(Trainer& trainer, MetricsWriter& metrics, Context& context, const std::string& workdir) {
  const Config& config = trainer.config();
  SamplingConfig sampling = config.sampling;
  if (sampling.snapshot_steps > 0) sampling.steps = sampling.snapshot_steps;
  const auto sampler = create_sampler(trainer.sde(), sampling);
  const DType compute = use_precision(context, config.training.precision);
  const ScoreFn score = score_function(trainer.network(), trainer.sde(), config.training.continuous, compute);
  const int size = config.data.image_size;
  std::vector<Image> images;
  for (int first = 0, n = images_at_once(config); first < sampling.snapshot_count; first += n) {
    SampleRequest request;
    request.shape = {std::min(n, sampling.snapshot_count - first), size, size, config.data.num_channels};
    request.seed = config.training.seed;
    request.first_sample = static_cast<std::uint32_t>(first);
    request.progress = [](std::int64_t, std::int64_t) { return !stop_requested(); };
    const SampleResult result = sampler->sample(context, score, request);
    if (!result.complete) return;
    std::ranges::move(to_images(result.x, config.data.centered, PixelRule::round),
                      std::back_inserter(images));
  }
  const Image grid = make_grid(images);
  const std::filesystem::path folder = std::filesystem::path(workdir) / "samples";
  std::filesystem::create_directories(folder);
  const std::string digits = std::to_string(trainer.position());
  write_png(
      folder / ("step_" + std::string(digits.size() < 8 ? 8 - digits.size() : 0, '0') + digits + ".png"),
      grid);
  const Bytes png = encode_png(grid);
  const std::string_view view(reinterpret_cast<const char*>(png.data()), png.size());
  metrics.image("samples", trainer.position(), {view, grid.width, grid.height, grid.channels});
}

Config with_plan(const Config& config, const TrainOptions& options) {
  const auto images = random_dataset(config.data.image_size, config.data.num_channels);
  const auto make = [&](const Config& candidate, Context& context) {
    return std::make_unique<Trainer>(candidate, *images, context);
  };
  // A snapshot's network evaluation, which packs weights.
  const auto between = [](Trainee& trainee) {
    auto& trainer = static_cast<Trainer&>(trainee);
    const Config& c = trainer.config();
    if (!c.training.snapshot_sampling) return;
    const DType compute = use_precision(trainer.context(), c.training.precision);
    const ScoreFn score = score_function(trainer.network(), trainer.sde(), c.training.continuous, compute);
    const int scales = trainer.sde().num_scales(), size = c.data.image_size;
    const Tensor x = Tensor::empty(trainer.context(), {images_at_once(c), size, size, c.data.num_channels});
    score_at(score, x, {.t = 0.5, .k = scales / 2, .num_scales = scales});
    trainer.network().set_requires_grad(true);
  };
  return with_memory_plan(config, options.device, make, between);
}

/// "A:B" as numbers; steps A to B - 1 are recorded.
std::pair<std::int64_t, std::int64_t> steps_of(const std::string& range) {
  std::int64_t first = 0, end = 0;
  char colon = 0;
  std::istringstream text(range);
  check(bool(text >> first >> colon >> end) && colon == ':' && text.eof() && first >= 0 && end > first,
        "--profile-steps '", range, "' is not a range A:B of steps with A < B, e.g. 20:25");
  return {first, end};
}

int train_command(const TrainOptions& options) {
  Config config = load_config(options.config, options.overrides);
  if (options.steps >= 0) config.training.n_iters = options.steps;
  validate(config);
  if (options.dry_run) {
    std::cout << to_text(with_plan(config, options));
    return kDone;
  }
  check(!options.workdir.empty(),
        "train: --workdir DIR is missing: the folder for checkpoints, samples and metrics");
  check(!config.data.path.empty(), options.config,
        ": data.path is empty; set it, or give --set data.path=FOLDER");
  const auto context = options.device.open();
  config = with_plan(config, options);
  const auto dataset = open_dataset(config.data);
  std::cerr << "data: " << dataset->describe() << '\n';
  watch_signals();
  Trainer trainer(config, *dataset, *context, !options.no_graph);
  RunOptions run;
  run.workdir = options.workdir;
  run.resume = options.resume;
  if (!options.profile_steps.empty())
    std::tie(run.profile_first, run.profile_end) = steps_of(options.profile_steps);
  run.should_stop = stop_requested;
  run.snapshot = [&](MetricsWriter& metrics) { draw_snapshot(trainer, metrics, *context, options.workdir); };
  return train(trainer, run) == RunEnd::finished ? kDone : kInterrupted;
}

}  // namespace

void add_train(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "Train a score model");
  command->add_option("config", options->config, "TOML file; configs/default.toml lists every key")
      ->required();
  command->add_option("--workdir", options->workdir, "Folder for checkpoints, samples and metrics");
  command->add_option("--set", options->overrides, "Override, e.g. --set training.batch_size=64")
      ->take_all()
      ->allow_extra_args(false);
  command
      ->add_option("--steps", options->steps, "Train until this many steps are complete (training.n_iters)")
      ->check(positive());
  command->add_flag("--resume", options->resume, "Continue the run in the folder, if it holds one");
  command->add_flag("--no-graph", options->no_graph, "Launch every step call by call, also on a GPU");
  command->add_option("--profile-steps", options->profile_steps,
                      "A:B: record steps A to B - 1 for nsys or ncu (cudaProfilerStart and Stop)");
  command->add_flag("--dry-run", options->dry_run, "Print the resolved configuration and stop");
  options->device.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { return train_command(*options); }; });
}

}  // namespace sgm::cli
