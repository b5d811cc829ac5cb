// Whole networks on every device: training steps and samples are the CPU's, and captured steps are the same
// as uncaptured ones.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "check.h"
#include "devices.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/score_model.h"
#include "sgm/train/trainer.h"
#include "tiny_training.h"

namespace sgm {
namespace {

/// Between them every layer there is.
std::vector<Config> networks() {
  Config plain = tiny_config();
  plain.model.resblock_type = "ddpm";
  plain.model.skip_rescale = false;

  Config rich = tiny_config();
  rich.data.num_channels = 3;
  rich.sde.name = "vesde";
  rich.training.continuous = true;
  rich.training.reduce_mean = false;
  rich.model.nf = 20;  // odd numbers of packs and of groups
  rich.model.fir = true;
  rich.model.progressive = "output_skip";
  rich.model.progressive_input = "residual";
  rich.model.embedding_type = "fourier";
  rich.model.scale_by_sigma = true;

  std::vector<Config> all = {plain, rich};
  for (Config& config : all) config.model.init_scale = 1.0;  // no layer is dumb at the start
  return all;
}

struct TinyRun {
  BarImages images;
  Trainer trainer;
  TinyRun(const Config& config, Context& context, bool capture = true)
      : images(5, config.data.image_size, config.data.num_channels),
        trainer(config, images, context, capture) {}
  RunState state() { return state_of(trainer.network(), trainer.optimizer()); }
};

double relative_l2(const std::vector<double>& actual, const std::vector<double>& expected) {
  double error = 0.0, square = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    square += expected[i] * expected[i];
  }
  return std::sqrt(error / square);
}

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

/// After one step the first moments are the gradients, up to a factor.
void expect_close_gradients(const RunState& actual, const RunState& expected, double tolerance) {
  double squares = 0.0;
  for (const auto& [name, values] : expected)
    if (name.starts_with("adam.m."))
      for (const float value : values) squares += static_cast<double>(value) * static_cast<double>(value);
  ASSERT_GT(squares, 0.0);
  for (const auto& [name, values] : expected) {
    if (!name.starts_with("adam.m.")) continue;
    // Some gradients vanish but for rounding: of a bias before a norm, say.
    const double floor = 0.01 * std::sqrt(squares);
    expect_close(doubles(actual.at(name)), doubles(values), {tolerance, 10 * tolerance, floor}, name);
  }
}

using Devices = DeviceTest;
INSTANTIATE_TEST_SUITE_P(Devices, Devices, testing::ValuesIn(test_devices()), device_name);

TEST_P(Devices, ATrainingStepIsTheCpusInF32) {
  const auto cpu = create_context("cpu", 2);
  for (Config config : networks())
    for (const int batch_size : {1, 3}) {
      SCOPED_TRACE(config.sde.name + ", batch " + std::to_string(batch_size));
      config.training.batch_size = batch_size;
      TinyRun exact(config, *cpu), run(config, context());
      const Trainer::Step expected = exact.trainer.step(), actual = run.trainer.step();
      EXPECT_NEAR(actual.loss, expected.loss, 1e-5 * expected.loss);
      EXPECT_NEAR(actual.grad_norm, expected.grad_norm, 2e-5 * expected.grad_norm);
      expect_close_gradients(run.state(), exact.state(), 2e-5);
    }
}

TEST_P(Devices, ATrainingStepInBf16IsCloseToTheCpusInF32) {
  if (context().is_cpu()) GTEST_SKIP() << "test_train compares the CPU with itself";
  const auto cpu = create_context("cpu", 2);
  for (Config config : networks()) {
    SCOPED_TRACE(config.sde.name);
    TinyRun exact(config, *cpu);
    config.training.precision = "bf16";
    TinyRun run(config, context());
    const Trainer::Step expected = exact.trainer.step(), actual = run.trainer.step();
    EXPECT_NEAR(actual.loss, expected.loss, 8e-3 * expected.loss);
    EXPECT_NEAR(actual.grad_norm, expected.grad_norm, 2e-2 * expected.grad_norm);
    expect_close_gradients(run.state(), exact.state(), 4e-2);
  }
}

TEST_P(Devices, CapturedStepsAreTheSame) {
  for (Config config : networks())
    for (const char* precision : {"f32", "bf16"}) {
      if (context().is_cpu() && std::string(precision) == "bf16") continue;
      SCOPED_TRACE(config.sde.name + ' ' + precision);
      config.training.precision = precision;
      TinyRun captured(config, context()), plain(config, context(), false);
      for (int step = 0; step < 4; ++step) captured.trainer.launch(), plain.trainer.launch();
      EXPECT_EQ(captured.trainer.read().loss, plain.trainer.read().loss);
      expect_same_bits(captured.state(), plain.state());
      EXPECT_EQ(captured.trainer.why_not_captured().empty(), !context().is_cpu())
          << captured.trainer.why_not_captured();
    }
}

TEST_P(Devices, CapturedMicroBatchesWithRecomputationAreTheSame) {
  for (Config config : networks())
    for (const char* precision : {"f32", "bf16"}) {
      if (context().is_cpu() && std::string(precision) == "bf16") continue;
      SCOPED_TRACE(config.sde.name + ' ' + precision);
      config.training.precision = precision;
      config.training.batch_size = 4;
      config.training.micro_batch = 0;
      config.training.recompute = false;
      TinyRun whole(config, context(), false);
      config.training.micro_batch = 2;
      TinyRun plain(config, context(), false);
      config.training.recompute = true;
      TinyRun captured(config, context());
      whole.trainer.launch(), plain.trainer.launch(), captured.trainer.launch();
      // Another batch may be convolved by another engine, whose bf16 results are rounded elsewhere.
      expect_close_gradients(plain.state(), whole.state(), config.training.precision == "f32" ? 1e-5 : 4e-2);
      for (int step = 1; step < 3; ++step) plain.trainer.launch(), captured.trainer.launch();
      EXPECT_EQ(captured.trainer.read().loss, plain.trainer.read().loss);
      expect_same_bits(captured.state(), plain.state());
      EXPECT_EQ(captured.trainer.why_not_captured().empty(), !context().is_cpu())
          << captured.trainer.why_not_captured();
      EXPECT_LT(captured.trainer.activation_bytes(), plain.trainer.activation_bytes());
    }
}

TEST_P(Devices, CapturedStepsWithLateGradientsAreTheSame) {
  for (Config config : networks()) {
    SCOPED_TRACE(config.sde.name);
    config.training.late_gradients = false;
    TinyRun plain(config, context(), false);
    config.training.late_gradients = true;
    TinyRun captured(config, context());
    for (int step = 0; step < 4; ++step) plain.trainer.launch(), captured.trainer.launch();
    EXPECT_EQ(captured.trainer.read().grad_norm, plain.trainer.read().grad_norm);
    expect_same_bits(captured.state(), plain.state());
    EXPECT_EQ(captured.trainer.why_not_captured().empty(), !context().is_cpu())
        << captured.trainer.why_not_captured();
  }
}

TEST_P(Devices, SamplesAreTheCpus) {
  const auto cpu = create_context("cpu", 2);
  for (const Config& config : networks())
    for (const char* method : {"pc", "ode"}) {
      SCOPED_TRACE(config.sde.name + ' ' + method);
      SamplingConfig sampling = config.sampling;
      sampling.method = method;
      sampling.predictor = "reverse_diffusion";
      sampling.corrector = "langevin";
      sampling.steps = 25;
      sampling.rtol = sampling.atol = 1e-3;
      // Networks differ by a rounding or two at every evaluation, and samplers amplify what differs. By how
      // much is what starts that differ as little show: several, for where a solver chooses its steps by its
      // errors, one says little.
      constexpr double kRoundings = 1e-6;
      const auto sample = [&](Context& device, double start = 1.0) {
        TinyRun run(config, device);
        const auto sampler = create_sampler(run.trainer.sde(), sampling);
        const ScoreFn score =
            score_function(run.trainer.network(), run.trainer.sde(), config.training.continuous);
        const Shape shape{2, 8, 8, config.data.num_channels};
        const Tensor latent =
            normal(device, shape, NoiseKey{.seed = 5}, start * run.trainer.sde().prior_std());
        return sampler->sample(device, score, {.shape = shape, .seed = 3, .latent = latent}).x.to_host_f64();
      };
      const std::vector<double> expected = sample(*cpu);
      double amplified = 0.0;
      if (!context().is_cpu())
        for (const double part : {1.0, -1.0, 0.5, -0.5})
          amplified = std::max(amplified, relative_l2(sample(*cpu, 1.0 + part * kRoundings), expected));
      EXPECT_LT(amplified, 1e-3);
      expect_close(sample(context()), expected, {std::max(1e-5, 3.0 * amplified)});
    }
}

/// [8, 8], every second pixel 1.
Tensor checkerboard(Context& context) {
  std::vector<float> mask(64);
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = (i + i / 8) % 2 == 0 ? 1.0f : 0.0f;
  return Tensor::from_host(context, std::span<const float>(mask), {8, 8});
}

TEST_P(Devices, CapturedUpdatesGiveTheSameSamples) {
  for (Config config : networks())
    for (const char* corrector : {"langevin", "ald", "none"}) {
      SCOPED_TRACE(config.sde.name + ' ' + corrector);
      config.sde.beta_max = 8.0;  // fewer steps than that would add more than unit variance
      SamplingConfig sampling = config.sampling;
      sampling.method = "pc";
      sampling.predictor = "euler_maruyama";
      sampling.corrector = corrector;
      sampling.n_steps_each = corrector[0] == 'l' ? 2 : 1;
      sampling.steps = 10;
      TinyRun run(config, context());
      const auto sampler = create_sampler(run.trainer.sde(), sampling);
      const ScoreFn score =
          score_function(run.trainer.network(), run.trainer.sde(), config.training.continuous);
      const auto sample = [&](bool capture) {
        SampleRequest request{.shape = {2, 8, 8, config.data.num_channels}, .seed = 3};
        request.capture = capture;
        if (corrector[0] == 'a')  // constraints are captured with the updates
          request.constraint = inpainting(run.trainer.sde(), Tensor::full(context(), request.shape, 0.3),
                                          checkerboard(context()));
        const SampleResult result = sampler->sample(context(), score, request);
        const std::int64_t each = corrector[0] == 'n' ? 1 : 1 + sampling.n_steps_each;
        EXPECT_EQ(result.nfe, std::vector<std::int64_t>(2, 10 * each));
        return result.x.to_host();
      };
      const auto launches = [&] {
        std::int64_t sum = 0;
        for (const LaunchCount& count : context().take_launch_counts()) sum += count.launches;
        return sum;
      };
      launches();
      const std::vector<float> plain = sample(false);
      const std::int64_t launches_plain = launches();
      EXPECT_EQ(sample(true), plain);
      if (!context().is_cpu()) {
        EXPECT_LT(launches(), launches_plain / 2);  // most updates were replayed
      }
    }
}

}  // namespace
}  // namespace sgm
