#include "sgm/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <sstream>
#include <utility>

#include "sgm/core/precision.h"
#include "sgm/io/atomic_file.h"
#include "sgm/io/file_lock.h"
#include "sgm/tensor/math.h"
#include "sgm/train/checkpoint.h"
#include "sgm/train/metrics.h"
#include "sgm/train/progress.h"

namespace sgm {
namespace {

LoaderOptions loader_options(const Config& config) {
  return {.batch_size = config.training.batch_size,
          .seed = config.training.seed,
          .shuffle = true,
          .random_flip = config.data.random_flip,
          .uniform_dequantization = config.data.uniform_dequantization,
          .centered = config.data.centered};
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

bool Trainer::Step::is_finite() const { return std::isfinite(loss) && std::isfinite(grad_norm); }

Trainer::Trainer(const Config& config, const Dataset& dataset, Context& context, bool capture)
    : config_(config),
      context_(context),
      sde_(create_sde(config.sde)),
      network_(create_network(config, context)),
      optimizer_(*network_, config.optim, config.model.ema_rate),
      loss_(create_loss(*sde_, config.training, *network_)),
      loader_(dataset, loader_options(config)),
      compute_(use_precision(context, config.training.precision)),
      captured_(context, capture) {
  const DataConfig& d = config.data;
  check(dataset.height() == d.image_size && dataset.width() == d.image_size &&
            dataset.channels() == d.num_channels,
        "data: images are ", dataset.height(), " x ", dataset.width(), " x ", dataset.channels(),
        ", the model wants ", d.image_size, " x ", d.image_size, " x ", d.num_channels);
  x0_ = Tensor::empty(context, {config.training.batch_size, d.image_size, d.image_size, d.num_channels});
  inputs_ = loss_->create_inputs(context, x0_.shape());
  step_number_ = Tensor::zeros(context, {1}, DType::f64);
  loss_sum_ = Tensor::zeros(context, {1}, DType::f64);
  norm_sum_ = Tensor::zeros(context, {1}, DType::f64);
}

void Trainer::launch() {
  const Batch batch = loader_.next();
  x0_.upload(std::span<const float>(batch.images));
  const auto step = static_cast<std::uint32_t>(position());
  loss_->fill(inputs_, Loss::draw({.seed = config_.training.seed, .step = step}, x0_.shape()[0]));
  context_.copy_from_host(step_number_.data<double>(), &step, sizeof step);
  optimizer_.begin_step();
  captured_.run([this] { work(); });
  optimizer_.end_step();
  ++unread_;
}

/// The device's part of a step: reads nothing that changes but the tensors which launch() fills.
void Trainer::work() {
  optimizer_.zero_grad();  // of a capture that was given up
  NoiseKey key{.seed = config_.training.seed, .purpose = Purpose::noise};
  key.step_from = reinterpret_cast<const std::uint32_t*>(step_number_.data<double>());
  const ForwardMode mode{compute_, true, key};
  const LossResult loss = loss_->evaluate(LossNetwork(*network_, mode), x0_, inputs_, key);
  loss.mean.backward(Tensor::full(context_, {1}, 1.0, DType::f64));
  optimizer_.update();
  loss_sum_.add(loss.mean.value());
  norm_sum_.add(optimizer_.squared_norm());
}

Trainer::Step Trainer::read() {
  const double loss = loss_sum_.item() / static_cast<double>(std::max<std::int64_t>(unread_, 1));
  const double norms = norm_sum_.item();
  const StepReport report = optimizer_.report();
  loss_sum_.fill(0.0);
  norm_sum_.fill(0.0);
  unread_ = 0;
  return {loss, std::isfinite(norms) ? report.grad_norm : norms, report.lr};
}

Trainer::Step Trainer::step() {
  launch();
  return read();
}

void Trainer::load(const std::filesystem::path& checkpoint) {
  load_checkpoint(checkpoint, *network_, optimizer_);
  loader_.set_position(position());
}

namespace {

/// A run's files and what it shows while it goes on.
class Run {
 public:
  Run(const Config& config, const Dataset& dataset, Context& context, const RunOptions& options)
      : options_(options), context_(context), trainer_(config, dataset, context, options.capture) {
    prepare_workdir();
    const std::int64_t total = config.training.n_iters;
    metrics_ = std::make_unique<MetricsWriter>(options.workdir, trainer_.position());
    progress_ = std::make_unique<Progress>(std::cerr, is_terminal(2), trainer_.position(), total);
  }

  RunEnd operator()() {
    const TrainingConfig& t = trainer_.config().training;
    std::int64_t saved = trainer_.position() > 0 ? trainer_.position() : -1;
    start_interval();
    while (trainer_.position() < t.n_iters) {
      if (trainer_.position() == options_.profile_first) context_.set_profiling(true);
      trainer_.launch();
      if (trainer_.position() == options_.profile_end) context_.set_profiling(false);
      const std::int64_t now = trainer_.position();
      const bool stop = options_.should_stop && options_.should_stop(), last = now == t.n_iters;
      const bool log = now % t.log_freq == 0 || last, keep = now % t.snapshot_freq == 0 || last || stop;
      if (log || keep || seconds_now() - last_read_ > kSecondsBetweenReads) read(log);
      if (keep) {
        const double before = seconds_now();
        save();
        saved = now;
        if (!stop) snapshot();
        interval_.began += seconds_now() - before;
      }
      if (stop && !last) {
        progress_->note("interrupted: saved " + checkpoint_path(options_.workdir, now).string());
        return RunEnd::interrupted;
      }
    }
    if (saved < 0) save();
    return RunEnd::finished;
  }

 private:
  // Reading waits for the device, which should always have a step to work on.
  static constexpr double kSecondsBetweenReads = 0.2;

  void start_interval() { interval_ = {trainer_.position(), trainer_.position(), seconds_now(), 0.0}; }

  /// Waits for the steps so far, shows them and, with `log`, writes the interval that ends here to the
  /// metrics.
  void read(bool log) {
    const Trainer::Step step = trainer_.read();
    const std::int64_t now = trainer_.position();
    check(step.is_finite(), "training: loss ", step.loss, " and gradient norm ", step.grad_norm, " by step ",
          now,
          " are not finite; lower optim.lr or raise optim.warmup, and go back to a checkpoint from before");
    interval_.loss_sum += step.loss * static_cast<double>(now - std::exchange(interval_.read, now));
    last_read_ = seconds_now();
    const double seconds = last_read_ - interval_.began;
    const double rate = images(now - interval_.first) / std::max(seconds, 1e-9);
    progress_->update(now, step.loss, rate);
    if (!log) return;
    metrics_->write(now, {{"loss", interval_.loss_sum / static_cast<double>(now - interval_.first)},
                          {"grad_norm", step.grad_norm},
                          {"lr", step.lr},
                          {"img_per_s", rate},
                          {"peak_memory_mib", static_cast<double>(context_.memory().peak) / 1048576.0}});
    start_interval();
    if (const std::string& reason = trainer_.why_not_captured();
        !context_.is_cpu() && !reason.empty() && !told_) {
      progress_->note("steps are launched call by call: " + reason);
      told_ = true;
    }
  }

  double images(std::int64_t steps) const {
    return static_cast<double>(steps * trainer_.config().training.batch_size);
  }

  void prepare_workdir() {
    std::error_code error;
    std::filesystem::create_directories(options_.workdir / "checkpoints", error);
    check(!error, options_.workdir.string(), ": cannot be created: ", error.message(),
          "; choose another --workdir");
    lock_ = std::make_unique<FolderLock>(options_.workdir);
    const auto latest = latest_checkpoint(options_.workdir);
    check(options_.resume || !latest, options_.workdir.string(),
          ": already holds a run; continue it with --resume, or choose another --workdir");
    if (latest) {
      check_same_model(*latest);
      trainer_.load(*latest);
    }
    AtomicFile text(options_.workdir / "config.toml");
    text.write(to_text(trainer_.config()));
    text.commit();
  }

  void check_same_model(const std::filesystem::path& checkpoint) const {
    const Config old = read_checkpoint_info(checkpoint).config, &now = trainer_.config();
    Config expected = old;
    expected.training.n_iters = now.training.n_iters;
    Config given = now;
    given.data.path = expected.data.path;  // a data set may move
    given.sampling = expected.sampling;
    given.training.log_freq = expected.training.log_freq;
    given.training.snapshot_freq = expected.training.snapshot_freq;
    given.training.snapshot_sampling = expected.training.snapshot_sampling;
    given.training.keep_checkpoints = expected.training.keep_checkpoints;
    check(to_text(given) == to_text(expected), checkpoint.string(),
          ": was trained with another configuration (", first_difference(to_text(expected), to_text(given)),
          "); --resume needs the same");
  }

  static std::string first_difference(const std::string& a, const std::string& b) {
    std::istringstream as(a), bs(b);
    std::string x, y, table;
    while (std::getline(as, x) && std::getline(bs, y)) {
      if (x != y) return table + " '" + x + "' then, '" + y + "' now";
      if (x.starts_with('[')) table = x;
    }
    return "different keys";
  }

  void save() {
    save_checkpoint(checkpoint_path(options_.workdir, trainer_.position()), trainer_.config(),
                    trainer_.network(), trainer_.optimizer());
    prune_checkpoints(options_.workdir, trainer_.config().training.keep_checkpoints);
  }

  void snapshot() {
    if (!options_.snapshot || !trainer_.config().training.snapshot_sampling) return;
    trainer_.optimizer().swap_ema();
    trainer_.network().set_requires_grad(false);
    options_.snapshot(trainer_, *metrics_);
    trainer_.network().set_requires_grad(true);
    trainer_.optimizer().swap_ema();
  }

  const RunOptions& options_;
  Context& context_;
  Trainer trainer_;
  std::unique_ptr<FolderLock> lock_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<Progress> progress_;

  /// Between two entries of the metrics.
  struct Interval {
    std::int64_t first, read;  // steps done at its beginning, and when they were last read
    double began;              // seconds
    double loss_sum;
  };
  Interval interval_{};
  double last_read_ = 0;
  bool told_ = false;  // why steps are not captured
};

}  // namespace

RunEnd train(const Config& config, const Dataset& dataset, Context& context, const RunOptions& options) {
  return Run(config, dataset, context, options)();
}

}  // namespace sgm
