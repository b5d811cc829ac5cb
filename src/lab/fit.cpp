#include "sgm/lab/fit.h"

#include <chrono>
#include <cmath>
#include <utility>
#include <vector>

#include "sgm/core/captured_step.h"
#include "sgm/core/error.h"
#include "sgm/optim/optimizer.h"
#include "sgm/score/loss.h"
#include "sgm/score/score_model.h"

namespace sgm {
namespace {

Config checked(Config config, const Density& density, const FitOptions& options) {
  check(config.model.name == "mlp", "model.name must be mlp for points of a density, got ",
        config.model.name);
  config.data.image_size = 1;
  config.data.num_channels = density.dim();
  if (options.noise) {
    check(*options.noise >= 0 && std::isfinite(*options.noise),
          "the noise of plain score matching must be finite and not negative, got ", *options.noise);
    check(*options.noise > 0 || config.training.loss != "dsm",
          "training.loss 'dsm' needs noise to remove; choose a positive noise level, or another loss");
    config.model.conditional = config.model.scale_by_sigma = false;
  }
  validate(config);
  return config;
}

/// The score of a network that knows one noise level.
ScoreFn plain_score(ScoreNetwork& network) {
  network.set_requires_grad(false);
  return ScoreFn(
      [](const ImageTime&) {
        return ScoreFn::Numbers{1.0, 1.0};
      },
      [&network](const Tensor& x, const Tensor& label, const Tensor&) {
        return network.forward(Var(x), label, {}).value();
      });
}

/// One training step after another.
class Fit {
 public:
  Fit(const Config& config, const SDE& sde, ScoreNetwork& network, const Density& density, Context& context,
      std::optional<double> noise)
      : config_(config),
        network_(network),
        density_(density),
        context_(context),
        noise_(noise),
        loss_(create_loss(sde, config.training, network)),
        optimizer_(network, config.optim, config.model.ema_rate),
        captured_(context, true) {
    const Shape batch{config.training.batch_size, 1, 1, density.dim()};
    x0_ = Tensor::empty(context, batch);
    inputs_ = loss_->create_inputs(context, batch);
    step_number_ = Tensor::zeros(context, {1}, DType::f64);
    sum_ = Tensor::zeros(context, {1}, DType::f64);
  }

  void step() {
    const std::int64_t n = config_.training.batch_size, at = optimizer_.completed_steps();
    const std::uint64_t seed = config_.training.seed;
    const auto number = static_cast<std::uint32_t>(at);
    const std::vector<double> drawn = density_.sample(n, seed, at * n);
    x0_.upload(std::span<const float>(std::vector<float>(drawn.begin(), drawn.end())));
    if (noise_)
      loss_->fill(inputs_, std::vector<LossTerms>(static_cast<std::size_t>(n), plain_terms(*noise_)));
    else
      loss_->fill(inputs_, Loss::draw({.seed = seed, .step = number}, n));
    context_.copy_from_host(step_number_.data<double>(), &number, sizeof number);
    optimizer_.begin_step();
    captured_.run([this] { work(); });
    optimizer_.end_step();
  }
  /// The mean loss of the `steps` since the last call.
  double read(std::int64_t steps) {
    const double mean = sum_.item() / static_cast<double>(steps);
    sum_.fill(0.0);
    check(std::isfinite(mean), "training: the loss is not finite by step ", optimizer_.completed_steps(),
          "; lower optim.lr or raise optim.warmup");
    return mean;
  }
  Optimizer& optimizer() { return optimizer_; }

 private:
  void work() {
    optimizer_.zero_grad();
    NoiseKey key{.seed = config_.training.seed};
    key.step_from = reinterpret_cast<const std::uint32_t*>(step_number_.data<double>());
    const LossResult loss =
        loss_->evaluate(LossNetwork(network_, {DType::f32, true, key}), x0_, inputs_, key);
    loss.mean.backward(Tensor::full(context_, {1}, 1.0, DType::f64));
    optimizer_.update();
    sum_.add(loss.mean.value());
  }

  const Config& config_;
  ScoreNetwork& network_;
  const Density& density_;
  Context& context_;
  std::optional<double> noise_;
  std::unique_ptr<Loss> loss_;
  Optimizer optimizer_;
  CapturedStep captured_;
  Tensor x0_, step_number_, sum_;
  LossInputs inputs_;
};

}  // namespace

FittedScore fit_score(Config config, const Density& density, Context& context, const FitOptions& options) {
  FittedScore result;
  result.config = checked(std::move(config), density, options);
  const TrainingConfig& training = result.config.training;
  result.sde = create_sde(result.config.sde);
  result.network = create_network(result.config, context);
  Fit fit(result.config, *result.sde, *result.network, density, context, options.noise);

  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  std::int64_t done = 0, read = 0;
  while (done < training.n_iters) {
    fit.step();
    if (++done % training.log_freq != 0 && done != training.n_iters) continue;
    result.losses.push_back(fit.read(done - std::exchange(read, done)));
    if (options.progress) options.progress(done, result.losses.back());
    if (options.should_stop && options.should_stop()) break;
  }
  result.seconds_per_step =
      std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(done);
  fit.optimizer().swap_ema();
  result.score = options.noise ? plain_score(*result.network)
                               : score_function(*result.network, *result.sde, training.continuous);
  return result;
}

double score_error(const ScoreFn& score, const Density& density, const Marginal& marginal, double t,
                   Context& context, std::int64_t n, std::uint64_t seed) {
  const Tensor x = sample_tensor(density, context, n, seed, 0, marginal);
  const std::vector<double> points = x.to_host_f64(), fitted = score_at(score, x, {.t = t}).to_host_f64();
  const auto perturbed = density.at(marginal);
  const auto d = static_cast<std::size_t>(density.dim());
  std::vector<double> exact(d);
  double error = 0.0, square = 0.0;
  for (std::size_t i = 0; i < points.size(); i += d) {
    perturbed->score(std::span(points).subspan(i, d), exact);
    for (std::size_t k = 0; k < d; ++k) {
      error += (fitted[i + k] - exact[k]) * (fitted[i + k] - exact[k]);
      square += exact[k] * exact[k];
    }
  }
  return std::sqrt(error / square);
}

}  // namespace sgm
