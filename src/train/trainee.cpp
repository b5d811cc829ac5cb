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
  const std::int64_t batch = config.training.batch_size, micro = config.training.images_at_once();
  for (std::int64_t first = 0; first < batch; first += micro)
    images_.push_back(Tensor::empty(context, {micro, d.image_size, d.image_size, d.num_channels}));
  step_number_ = Tensor::zeros(context, {1}, DType::f64);
  loss_sum_ = Tensor::zeros(context, {options.loss_per_image ? micro : 1}, DType::f64);
  one_ = Tensor::full(context, loss_sum_.shape(), 1.0, DType::f64);
}

NoiseKey Trainee::noise_key(std::size_t part) const {
  NoiseKey key{.seed = config_.training.seed, .purpose = Purpose::noise};
  key.first_sample = static_cast<std::uint32_t>(part * static_cast<std::size_t>(micro_batch()));
  key.step_from = reinterpret_cast<const std::uint32_t*>(step_number_.data<double>());
  return key;
}

void Trainee::launch() {
  const Batch batch = loader_.next();
  const std::size_t values = batch.images.size() / parts();
  for (std::size_t part = 0; part < parts(); ++part)
    images_[part].upload(std::span(batch.images).subspan(part * values, values));
  const auto step = static_cast<std::uint32_t>(position());
  prepare(batch, step);
  context_.copy_from_host(step_number_.data<double>(), &step, sizeof step);
  context_.drop_packed_weights();  // of samples drawn since the last step: their weights are about to change
  optimizer_.begin_step();
  captured_.run([this] { work(); });
  optimizer_.end_step();
  ++unread_;
}

/// The device's part of a step: reads nothing that changes but the tensors which launch() fills.
void Trainee::work() {
  optimizer_.zero_grad();  // of a capture that was given up
  context_.set_recompute(config_.training.recompute);
  context_.set_late_gradients(config_.training.late_gradients && parts() == 1);
  for (std::size_t part = 0; part < parts(); ++part) {
    const std::size_t before = context_.memory().in_use;
    Var loss;
    {
      const Range phase(context_, "forward", RangeKind::phase);
      loss = losses(part);
    }
    // The first pass also makes copies of weights; while a step is captured, its graph counts for itself.
    if (const std::size_t now = context_.memory().in_use; now > before) activation_bytes_ = now - before;
    const Range phase(context_, "backward", RangeKind::phase);
    loss_sum_.add(loss.value());
    const auto terms = static_cast<double>(one_.numel()) * static_cast<double>(parts());
    loss.backward({.tensor = one_, .factor = 1.0 / terms, .is_one = true});
  }
  const Range phase(context_, "optimizer", RangeKind::phase);
  optimizer_.update();
}

Trainee::Step Trainee::read() {
  const std::vector<double> sums = loss_sum_.to_host_f64();
  const auto terms =
      static_cast<double>(std::max<std::int64_t>(unread_, 1) * std::ssize(images_) * std::ssize(sums));
  const double loss = std::accumulate(sums.begin(), sums.end(), 0.0) / terms;
  const StepReport report = optimizer_.report();
  const std::optional<double> accuracy = read_accuracy(unread_);
  loss_sum_.fill(0.0);
  unread_ = 0;
  return {loss, report.grad_norm, report.lr, accuracy};
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
