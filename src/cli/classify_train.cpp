// sgm classify-train: labelled images become a classifier that knows noise.

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "cli/commands.h"
#include "cli/memory.h"
#include "sgm/data/dataset.h"
#include "sgm/train/classifier_trainer.h"
#include "sgm/train/run.h"

namespace sgm::cli {
namespace {

struct ClassifyOptions {
  std::string config, workdir, test;
  std::vector<std::string> overrides;
  std::int64_t steps = -1;
  bool resume = false, no_graph = false;
  DeviceOptions device;
};

/// The images on which a classifier is judged: some that it was not trained on, where there are such.
struct TestImages {
  std::shared_ptr<const Dataset> set;
  std::int64_t first, count;
  std::string name;
};

TestImages test_images(const Config& config, const std::string& test) {
  constexpr std::int64_t kMost = 1000;
  const DataConfig& d = config.data;
  const std::string& path = test.empty() ? d.path : test;
  const std::shared_ptr<const Dataset> set = open_dataset(path, d.image_size, d.num_channels);
  check(set->num_classes() > 0, path, ": the images have no classes; accuracy needs labels");
  const bool held_out = test.empty() && d.count > 0 && d.count < set->size();
  const std::int64_t first = held_out ? d.count : 0, count = std::min(kMost, set->size() - first);
  const char* kind = held_out       ? " images after the first data.count"
                     : test.empty() ? " training images"
                                    : " images of ";
  return {set, first, count, std::to_string(count) + kind + test};
}

/// One line for each part of the noise levels.
void print_accuracy(const std::vector<NoiseAccuracy>& parts, const std::string& of) {
  std::cout << "accuracy on " << of << "\n       t            noise in [0, 1]     right\n";
  for (const NoiseAccuracy& part : parts) {
    char line[96];
    std::snprintf(line, sizeof line, "%4.2f - %4.2f   %9.4g - %-9.4g %6.1f%%\n", part.t0, part.t1,
                  part.sigma0, part.sigma1, 100.0 * part.accuracy);
    std::cout << line;
  }
}

int classify_train_command(const ClassifyOptions& options) {
  Config config = load_config(options.config, options.overrides);
  if (options.steps >= 0) config.training.n_iters = options.steps;
  validate(config);
  check(!options.workdir.empty(),
        "classify-train: --workdir DIR is missing: the folder for checkpoints and metrics");
  check(!config.data.path.empty(), options.config,
        ": data.path is empty; set it, or give --set data.path=FOLDER");
  const TestImages test = test_images(config, options.test);
  const auto context = options.device.open();
  const auto dataset = open_dataset(config.data);
  std::cerr << "data: " << dataset->describe() << '\n';
  const auto make = [&](const Config& candidate, Context& device) {
    return std::make_unique<ClassifierTrainer>(candidate, *dataset, device);
  };
  config = with_memory_plan(config, options.device, make);
  ClassifierTrainer trainer(config, *dataset, *context, !options.no_graph);
  watch_signals();
  RunOptions run;
  run.workdir = options.workdir;
  run.resume = options.resume;
  run.should_stop = stop_requested;
  if (train(trainer, run) == RunEnd::interrupted) return kInterrupted;
  trainer.optimizer().swap_ema();
  trainer.module().set_requires_grad(false);
  print_accuracy(
      accuracy_by_noise(trainer.classifier(), trainer.config(), *test.set, *context, test.first, test.count),
      test.name);
  return kDone;
}

}  // namespace

void add_classify_train(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<ClassifyOptions>();
  CLI::App* command = app.add_subcommand("classify-train", "Train a noise-conditional classifier");
  command->add_option("config", options->config, "TOML file; [classifier] describes the network")->required();
  command->add_option("--workdir", options->workdir, "Folder for checkpoints and metrics");
  command->add_option("--set", options->overrides, "Override, e.g. --set classifier.blocks=2")
      ->take_all()
      ->allow_extra_args(false);
  command
      ->add_option("--steps", options->steps, "Train until this many steps are complete (training.n_iters)")
      ->check(positive());
  command->add_option(
      "--test", options->test,
      "Labelled images for the accuracy at the end; default: those after the first data.count");
  command->add_flag("--resume", options->resume, "Continue the run in the folder, if it holds one");
  command->add_flag("--no-graph", options->no_graph, "Launch every step call by call, also on a GPU");
  options->device.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { return classify_train_command(*options); }; });
}

}  // namespace sgm::cli
