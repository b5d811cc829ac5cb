#include "sgm/train/run.h"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <sstream>
#include <utility>

#include "sgm/io/atomic_file.h"
#include "sgm/io/file_lock.h"
#include "sgm/train/checkpoint.h"
#include "sgm/train/progress.h"

namespace sgm {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A run's files and what it shows while it goes on.
class Run {
 public:
  Run(Trainee& trainee, const RunOptions& options) : options_(options), trainee_(trainee) {
    prepare_workdir();
    const std::int64_t total = trainee.config().training.n_iters;
    metrics_ = std::make_unique<MetricsWriter>(options.workdir, trainee_.position());
    progress_ = std::make_unique<Progress>(std::cerr, is_terminal(2), trainee_.position(), total);
  }

  RunEnd operator()() {
    const TrainingConfig& t = trainee_.config().training;
    std::int64_t saved = trainee_.position() > 0 ? trainee_.position() : -1;
    start_interval();
    while (trainee_.position() < t.n_iters) {
      if (trainee_.position() == options_.profile_first) trainee_.context().set_profiling(true);
      trainee_.launch();
      if (trainee_.position() == options_.profile_end) trainee_.context().set_profiling(false);
      const std::int64_t now = trainee_.position();
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

  void start_interval() { interval_ = {trainee_.position(), trainee_.position(), seconds_now(), 0.0, 0.0}; }

  /// Waits for the steps so far, shows them and, with `log`, writes the interval that ends here to the
  /// metrics.
  void read(bool log) {
    const Trainee::Step step = trainee_.read();
    const std::int64_t now = trainee_.position();
    check(step.is_finite(), "training: loss ", step.loss, " and gradient norm ", step.grad_norm, " by step ",
          now,
          " are not finite; lower optim.lr or raise optim.warmup, and go back to a checkpoint from before");
    const auto steps = static_cast<double>(now - std::exchange(interval_.read, now));
    interval_.loss_sum += steps * step.loss;
    interval_.accuracy_sum += steps * step.accuracy.value_or(0.0);
    last_read_ = seconds_now();
    const double seconds = last_read_ - interval_.began;
    const double rate = images(now - interval_.first) / std::max(seconds, 1e-9);
    progress_->update(now, step.loss, rate, step.accuracy);
    if (!log) return;
    const auto logged = static_cast<double>(now - interval_.first);
    std::vector<Metric> metrics = {{"loss", interval_.loss_sum / logged},
                                   {"grad_norm", step.grad_norm},
                                   {"lr", step.lr},
                                   {"img_per_s", rate},
                                   {"peak_memory_mib", mebibytes(trainee_.context().memory().peak)}};
    if (step.accuracy) metrics.push_back({"accuracy", interval_.accuracy_sum / logged});
    metrics_->write(now, metrics);
    start_interval();
    if (const std::string& reason = trainee_.why_not_captured();
        !trainee_.context().is_cpu() && !reason.empty() && !told_) {
      progress_->note("steps are launched call by call: " + reason);
      told_ = true;
    }
  }

  static double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / 1048576.0; }

  double images(std::int64_t steps) const {
    return static_cast<double>(steps * trainee_.config().training.batch_size);
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
      trainee_.load(*latest);
    }
    AtomicFile text(options_.workdir / "config.toml");
    text.write(to_text(trainee_.config()));
    text.commit();
  }

  void check_same_model(const std::filesystem::path& checkpoint) const {
    const CheckpointInfo info = read_checkpoint_info(checkpoint);
    check(info.kind == trainee_.kind(), checkpoint.string(), ": is of a ", info.kind, ", not of a ",
          trainee_.kind(), "; choose another --workdir");
    const Config &old = info.config, &now = trainee_.config();
    Config expected = old;
    expected.training.n_iters = now.training.n_iters;
    Config given = now;
    given.data.path = expected.data.path;  // a data set may move
    given.sampling = expected.sampling;
    given.training.log_freq = expected.training.log_freq;
    given.training.snapshot_freq = expected.training.snapshot_freq;
    given.training.snapshot_sampling = expected.training.snapshot_sampling;
    given.training.micro_batch = expected.training.micro_batch;  // another machine may have less memory
    given.training.recompute = expected.training.recompute;
    given.training.late_gradients = expected.training.late_gradients;
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
    save_checkpoint(checkpoint_path(options_.workdir, trainee_.position()), trainee_.config(),
                    trainee_.module(), trainee_.optimizer(), trainee_.kind());
    prune_checkpoints(options_.workdir, trainee_.config().training.keep_checkpoints);
  }

  void snapshot() {
    if (!options_.snapshot || !trainee_.config().training.snapshot_sampling) return;
    trainee_.optimizer().swap_ema();
    trainee_.module().set_requires_grad(false);
    options_.snapshot(*metrics_);
    trainee_.module().set_requires_grad(true);
    trainee_.optimizer().swap_ema();
  }

  const RunOptions& options_;
  Trainee& trainee_;
  std::unique_ptr<FolderLock> lock_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<Progress> progress_;

  /// Between two entries of the metrics.
  struct Interval {
    std::int64_t first, read;  // steps done at its beginning, and when they were last read
    double began;              // seconds
    double loss_sum, accuracy_sum;
  };
  Interval interval_{};
  double last_read_ = 0;
  bool told_ = false;  // why steps are not captured
};

}  // namespace

RunEnd train(Trainee& trainee, const RunOptions& options) { return Run(trainee, options)(); }

}  // namespace sgm
