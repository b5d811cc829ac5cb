// sgm profile: where the time of a training step, a network evaluation or a sampler's update goes.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <optional>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/roofline.h"
#include "score/random_model.h"
#include "sgm/core/precision.h"
#include "sgm/data/dataset.h"
#include "sgm/io/atomic_file.h"
#include "sgm/profile/profile.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/score_model.h"
#include "sgm/tensor/math.h"
#include "sgm/train/trainer.h"

namespace sgm::cli {
namespace {

struct ProfileOptions {
  std::string config, mode = "train", json, trace, plot;
  std::vector<std::string> overrides;
  bool count = false, no_graph = false;
  int batch = 0, steps = 0;
  TableOptions table;
  DeviceOptions device;
};

/// What is profiled: calls after_step between its steps until that returns false.
using Steps = std::function<void(const std::function<bool()>& after_step)>;

Steps training_steps(const Config& config, Context& context, bool capture) {
  struct Parts {
    std::unique_ptr<Dataset> dataset;
    std::unique_ptr<Trainer> trainer;
  };
  auto parts = std::make_shared<Parts>();
  parts->dataset = random_dataset(config.data.image_size, config.data.num_channels);
  parts->trainer = std::make_unique<Trainer>(config, *parts->dataset, context, capture);
  return [parts](const std::function<bool()>& after_step) {
    do parts->trainer->launch();
    while (after_step());
  };
}

Steps evaluations(const Config& config, Context& context) {
  auto model = std::make_shared<RandomModel>(config, context);
  const Tensor x = normal(context, model->batch, NoiseKey{});
  return [model, x](const std::function<bool()>& after_step) {
    const int scales = model->sde->num_scales();
    do score_at(model->score, x, {.t = 0.5, .k = scales / 2, .num_scales = scales});
    while (after_step());
  };
}

Steps sampler_updates(const Config& config, Context& context, bool capture) {
  auto model = std::make_shared<RandomModel>(config, context);
  std::shared_ptr<Sampler> sampler = create_sampler(*model->sde, config.sampling);
  return [model, sampler, capture, &context](const std::function<bool()>& after_step) {
    SampleRequest request;
    request.shape = model->batch;
    request.capture = capture;
    bool go_on = true;
    request.progress = [&](std::int64_t, std::int64_t) { return go_on = after_step(); };
    while (go_on) sampler->sample(context, model->score, request);
  };
}

Steps steps_of(const ProfileOptions& options, const Config& config, Context& context) {
  const bool capture = !options.count && !options.no_graph;
  if (options.mode == "train") return training_steps(config, context, capture);
  return options.mode == "forward" ? evaluations(config, context) : sampler_updates(config, context, capture);
}

void print_counts(const std::vector<LaunchCount>& counts, double images) {
  std::int64_t launches = 0, bytes[2] = {};
  double flop = 0;
  std::printf("%-28s %-13s %10s %10s %12s\n", "kernel", "bound by", "GFLOP", "launches", "MB");
  for (const LaunchCount& count : counts) {
    const bool product = count.kind == Traffic::product;
    std::printf("%-28s %-13s %10.3f %10lld %12.2f\n", count.kernel.c_str(), product ? "products" : "memory",
                1e-9 * count.flop, static_cast<long long>(count.launches),
                static_cast<double>(count.bytes) / 1e6);
    launches += count.launches;
    bytes[product] += count.bytes;
    flop += count.flop;
  }
  const auto print = [images](const char* what, double value, const char* unit) {
    std::printf("%s per step: %.2f %s (%.3f %s per image)\n", what, value, unit, value / images, unit);
  };
  std::printf("launches per step: %lld\n", static_cast<long long>(launches));
  print("arithmetic of products", 1e-9 * flop, "GFLOP");
  print("memory-bound traffic", static_cast<double>(bytes[0]) / 1e6, "MB");
  print("operands of products", static_cast<double>(bytes[1]) / 1e6, "MB");
}

/// Share of the time in which none of the launches was at work.
double idle_share(const std::vector<Activity>& launches) {
  double busy = 0, until = launches.front().start;
  for (const Activity& launch : launches) {
    busy += std::max(0.0, launch.end - std::max(until, launch.start));
    until = std::max(until, launch.end);
  }
  return 1.0 - busy / (until - launches.front().start);
}

/// Follows steps: lets the first ones settle, times some as they are, asks the device what it did in some
/// more, and records the last op by op. On a CPU, which recording costs nothing, those are the timed ones.
class Session {
 public:
  Session(Context& context, int steps, bool is_varying, ProfileReport& report)
      : context_(context),
        report_(report),
        left_(context.is_dry()   ? 1
              : context.is_cpu() ? 1
                                 : 4) {
    report_.steps = context_.is_dry() ? 1 : steps;
    records_wanted_ = is_varying ? 1 : context_.is_cpu() ? steps : std::min(report_.steps, kMostRecords);
  }

  /// A step has ended; whether there is to be another.
  bool operator()() {
    if (--left_ > 0) return true;
    switch (stage_) {
      case Stage::settle: return context_.is_cpu() || context_.is_dry() ? prepare() : start_timing();
      case Stage::time: return stop_timing();
      case Stage::watch: return stop_watching();
      case Stage::prepare: return start_recording();
      default: return record();
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int kMostRecords = 3;
  /// settle: tuning, allocation, capture. prepare: the first step call by call allocates its memory.
  enum class Stage { settle, time, watch, prepare, record };

  bool go_on(Stage stage, int steps) {
    stage_ = stage, left_ = steps;
    return true;
  }

  bool start_timing() {
    context_.synchronize();
    context_.set_profiling(true);
    start_ = Clock::now();
    return go_on(Stage::time, report_.steps);
  }

  bool stop_timing() {
    context_.synchronize();
    report_.step_seconds = std::chrono::duration<double>(Clock::now() - start_).count() / report_.steps;
    context_.set_profiling(false);
    report_.peak_memory = context_.memory().peak;
    log_ = context_.create_activity_log(&report_.why_no_activity);
    return log_ ? go_on(Stage::watch, report_.steps) : prepare();
  }

  bool stop_watching() {
    const std::vector<Activity> launches = log_->take();
    if (!launches.empty()) report_.idle = idle_share(launches);
    log_.reset();
    return prepare();
  }

  bool prepare() {
    profiler_ = std::make_unique<Profiler>(context_);
    return go_on(Stage::prepare, 1);
  }

  bool start_recording() {
    context_.take_launch_counts();
    profiler_->begin();
    return go_on(Stage::record, 1);
  }

  bool record() {
    records_.push_back(profiler_->end());
    if (std::ssize(records_) < records_wanted_) return start_recording();
    report_.step = mean_of(records_);
    if (!context_.is_cpu()) return false;
    report_.step_seconds = report_.step.seconds;
    report_.peak_memory = context_.memory().peak;
    return false;
  }

  Context& context_;
  ProfileReport& report_;
  Stage stage_ = Stage::settle;
  int left_;  // steps of this stage
  std::ptrdiff_t records_wanted_;
  Clock::time_point start_;
  std::unique_ptr<ActivityLog> log_;
  std::unique_ptr<Profiler> profiler_;
  std::vector<StepRecord> records_;
};

/// A file for what a run will find; nothing without a path. Opened before the run, which may take long.
class ReportFile {
 public:
  explicit ReportFile(const std::string& path) : path_(path) {
    if (!path.empty()) file_.emplace(path);
  }
  void write(std::string (*text_of)(const ProfileReport&), const ProfileReport& report) {
    if (!file_) return;
    file_->write(text_of(report));
    file_->commit();
    std::cerr << "wrote " << path_ << '\n';
  }

 private:
  std::string path_;
  std::optional<AtomicFile> file_;
};

int profile_command(const ProfileOptions& options) {
  Config config = load_config(options.config, options.overrides);
  if (options.batch > 0) config.training.batch_size = options.batch;
  validate(config);
  check(!options.count || options.trace.empty(), "--trace shows times, and --count takes none");
  check(!options.count || options.plot.empty(), "--plot shows times, and --count takes none");
  check_output_file("--plot", options.plot, ".png");
  ReportFile json(options.json), trace(options.trace);
  const auto context = options.count ? create_context("cuda-dry") : options.device.open();
  ProfileReport report;
  report.config = options.config;
  report.mode = options.mode;
  report.precision = config.training.precision;
  report.device = context->describe();
  report.libraries = context->is_cpu() ? std::string() : cuda_library_versions();
  report.images = static_cast<double>(config.training.batch_size);
  report.captured = !context->is_cpu() && options.mode != "forward" && !options.no_graph;
  const DType type = use_precision(*context, config.training.precision);
  report.ceilings = measure_ceilings(*context, type);
  context->reset_peak();
  const int timed = options.steps > 0 ? options.steps : context->is_cpu() ? 3 : 10;
  const bool is_varying = options.mode == "sample" && config.sampling.method == "ode";
  {
    const Steps steps = steps_of(options, config, *context);
    Session session(*context, timed, is_varying, report);
    steps([&session] { return session(); });
  }
  if (options.count)
    print_counts(context->take_launch_counts(), report.images);
  else
    write_table(std::cout, report, options.table);
  json.write(profile_json, report);
  trace.write(profile_trace, report);
  if (!options.plot.empty()) write_png(options.plot, draw_roofline(report));
  return kDone;
}

}  // namespace

void add_profile(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* command = app.add_subcommand(
      "profile", "Show where the time of a step goes, op by op, or count what it launches");
  command->add_option("config", options->config, "TOML file; data.path is not needed: images are random")
      ->required();
  command
      ->add_option("--mode", options->mode,
                   "train (a training step), forward (a network evaluation) or sample (a sampler's update)")
      ->check(CLI::IsMember({"train", "forward", "sample"}))
      ->capture_default_str();
  command->add_option("--set", options->overrides, "Override, e.g. --set training.precision=bf16")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--batch", options->batch, "Images per step; default: training.batch_size")
      ->check(positive());
  command->add_flag("--count", options->count,
                    "Count GPU launches, the bytes they move and their arithmetic, by kernel; needs no GPU");
  command->add_flag("--no-graph", options->no_graph, "Launch every step call by call");
  command->add_option("--steps", options->steps, "Steps to time; default: 10, on a CPU 3")->check(positive());
  command->add_flag("--all", options->table.all, "Every layer instead of the slowest 20");
  command->add_flag("--plans", options->table.plans, "How libraries execute each product, and why so");
  command->add_option("--json", options->json, "File for everything that is known");
  command->add_option("--trace", options->trace, "File of trace events for ui.perfetto.dev");
  command->add_option("--plot", options->plot, "PNG file of the roofline: every product below the ceilings");
  options->device.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { return profile_command(*options); }; });
}

}  // namespace sgm::cli
