#include "sgm/train/trainer.h"

#include <chrono>
#include <cmath>
#include <iostream>
#include <sstream>

#include "sgm/io/atomic_file.h"
#include "sgm/io/file_lock.h"
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

DType compute_type(const Config& config) {
  return config.training.precision == "bf16" ? DType::bf16 : DType::f32;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

bool Trainer::Step::is_finite() const { return std::isfinite(loss) && std::isfinite(grad_norm); }

Trainer::Trainer(const Config& config, const Dataset& dataset, Context& context)
    : config_(config),
      context_(context),
      sde_(create_sde(config.sde)),
      network_(create_network(config, context)),
      optimizer_(*network_, config.optim, config.model.ema_rate),
      loss_(*sde_, config.training),
      loader_(dataset, loader_options(config)) {
  const DataConfig& d = config.data;
  check(dataset.height() == d.image_size && dataset.width() == d.image_size &&
            dataset.channels() == d.num_channels,
        "data: images are ", dataset.height(), " x ", dataset.width(), " x ", dataset.channels(),
        ", the model wants ", d.image_size, " x ", d.image_size, " x ", d.num_channels);
}

Trainer::Step Trainer::step() {
  const Batch batch = loader_.next();
  const Tensor x0 = Tensor::from_host(context_, std::span<const float>(batch.images), batch.shape);
  const NoiseKey key{config_.training.seed, Purpose::noise, static_cast<std::uint32_t>(position())};
  const ForwardMode mode{compute_type(config_), true, key};
  const LossResult loss = loss_.evaluate(
      [&](const Tensor& x, const Tensor& label) { return network_->forward(Var(x), label, mode); }, x0, key);
  loss.mean.backward(Tensor::full(context_, {1}, 1.0, DType::f64));
  const StepReport report = optimizer_.step();
  return {loss.mean.value().item(), report.grad_norm, report.lr};
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
      : options_(options), context_(context), trainer_(config, dataset, context) {
    prepare_workdir();
    const std::int64_t total = config.training.n_iters;
    metrics_ = std::make_unique<MetricsWriter>(options.workdir, trainer_.position());
    progress_ = std::make_unique<Progress>(std::cerr, is_terminal(2), trainer_.position(), total);
  }

  RunEnd operator()() {
    const TrainingConfig& t = trainer_.config().training;
    std::int64_t saved = trainer_.position() > 0 ? trainer_.position() : -1, logged = trainer_.position();
    double since = seconds_now(), loss_sum = 0;
    while (trainer_.position() < t.n_iters) {
      const Trainer::Step step = trainer_.step();
      const std::int64_t now = trainer_.position();
      check(step.is_finite(), "training: loss ", step.loss, " and gradient norm ", step.grad_norm,
            " at step ", now,
            " are not finite; lower optim.lr or raise optim.warmup, and go back to a checkpoint from before");
      loss_sum += step.loss;
      const double seconds = seconds_now() - since, rate = images(now - logged) / std::max(seconds, 1e-9);
      progress_->update(now, step.loss, rate);
      if (now % t.log_freq == 0 || now == t.n_iters) {
        metrics_->write(now, {{"loss", loss_sum / static_cast<double>(now - logged)},
                              {"grad_norm", step.grad_norm},
                              {"lr", step.lr},
                              {"img_per_s", rate},
                              {"peak_memory_mib", static_cast<double>(context_.memory().peak) / 1048576.0}});
        logged = now;
        loss_sum = 0;
        since = seconds_now();
      }
      const bool stop = options_.should_stop && options_.should_stop();
      if (now % t.snapshot_freq == 0 || now == t.n_iters || stop) {
        const double before = seconds_now();
        save();
        saved = now;
        if (!stop) snapshot();
        since += seconds_now() - before;
      }
      if (stop && now < t.n_iters) {
        progress_->note("interrupted: saved " + checkpoint_path(options_.workdir, now).string());
        return RunEnd::interrupted;
      }
    }
    if (saved < 0) save();
    return RunEnd::finished;
  }

 private:
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
};

}  // namespace

RunEnd train(const Config& config, const Dataset& dataset, Context& context, const RunOptions& options) {
  return Run(config, dataset, context, options)();
}

}  // namespace sgm
