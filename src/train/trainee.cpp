#include "sgm/train/trainee.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "sgm/core/precision.h"
#include "sgm/train/checkpoint.h"

namespace sgm {

LoaderOptions loader_options(const Config& config) {
  return {.batch_size = config.training.batch_size,
          .seed = config.training.seed,
          .shuffle = true,
          .random_flip = config.data.random_flip,
          .uniform_dequantization = config.data.uniform_dequantization,
          .centered = config.data.centered};
}

bool Trainee::Step::is_finite() const { return std::isfinite(loss) && std::isfinite(grad_norm); }

Trainee::Trainee(const Config& config, const Dataset& dataset, Context& context,
                 std::unique_ptr<Module> module, const Options& options)
    : config_(config),
      context_(context),
      module_(std::move(module)),
      optimizer_(*module_, config.optim, config.model.ema_rate),
      loader_(dataset, options.images),
      compute_(use_precision(context, config.training.precision)),
      captured_(context, options.capture) {
  const DataConfig& d = config.data;
  check(dataset.height() == d.image_size && dataset.width() == d.image_size &&
            dataset.channels() == d.num_channels,
        "data: images are ", dataset.height(), " x ", dataset.width(), " x ", dataset.channels(),
        ", the model wants ", d.image_size, " x ", d.image_size, " x ", d.num_channels);
  images_ = Tensor::empty(context, {config.training.batch_size, d.image_size, d.image_size, d.num_channels});
  step_number_ = Tensor::zeros(context, {1}, DType::f64);
  loss_sum_ = Tensor::zeros(context, {options.losses}, DType::f64);
  norm_sum_ = Tensor::zeros(context, {1}, DType::f64);
  one_ = Tensor::full(context, {options.losses}, 1.0, DType::f64);
}

NoiseKey Trainee::noise_key() const {
  NoiseKey key{.seed = config_.training.seed, .purpose = Purpose::noise};
  key.step_from = reinterpret_cast<const std::uint32_t*>(step_number_.data<double>());
  return key;
}

void Trainee::launch() {
  const Batch batch = loader_.next();
  images_.upload(std::span<const float>(batch.images));
  const auto step = static_cast<std::uint32_t>(position());
  prepare(batch, step);
  context_.copy_from_host(step_number_.data<double>(), &step, sizeof step);
  optimizer_.begin_step();
  captured_.run([this] { work(); });
  optimizer_.end_step();
  ++unread_;
}

/// The device's part of a step: reads nothing that changes but the tensors which launch() fills.
void Trainee::work() {
  optimizer_.zero_grad();  // of a capture that was given up
  Var loss;
  {
    const Range phase(context_, "forward", RangeKind::phase);
    loss = losses();
  }
  {
    const Range phase(context_, "backward", RangeKind::phase);
    loss.backward({.tensor = one_, .factor = 1.0 / static_cast<double>(one_.numel()), .is_one = true});
  }
  const Range phase(context_, "optimizer", RangeKind::phase);
  optimizer_.update();
  loss_sum_.add(loss.value());
  norm_sum_.add(optimizer_.squared_norm());
}

Trainee::Step Trainee::read() {
  const std::vector<double> sums = loss_sum_.to_host_f64();
  const auto losses = static_cast<double>(std::max<std::int64_t>(unread_, 1) * std::ssize(sums));
  const double loss = std::accumulate(sums.begin(), sums.end(), 0.0) / losses;
  const double norms = norm_sum_.item();
  const StepReport report = optimizer_.report();
  const std::optional<double> accuracy = read_accuracy(unread_);
  loss_sum_.fill(0.0);
  norm_sum_.fill(0.0);
  unread_ = 0;
  return {loss, std::isfinite(norms) ? report.grad_norm : norms, report.lr, accuracy};
}

Trainee::Step Trainee::step() {
  launch();
  return read();
}

void Trainee::load(const std::filesystem::path& checkpoint) {
  load_checkpoint(checkpoint, *module_, optimizer_);
  loader_.set_position(position());
}

}  // namespace sgm
