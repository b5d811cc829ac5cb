// Score matching in all its forms: what the losses have in common, their gradients, and networks of any kind.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numbers>
#include <string>
#include <vector>

#include "check.h"
#include "closed_form.h"
#include "expect_error.h"
#include "sgm/lab/density.h"
#include "sgm/train/trainer.h"
#include "small_mlp.h"
#include "tiny_training.h"

namespace sgm {
namespace {

class ScoreMatching : public testing::Test {
 protected:
  const std::unique_ptr<Context> context_ = create_context("cpu", 1);
};

// ---- what the losses have in common -----------------------------------------------------------------------

const std::vector<double> kTimes = {0.2, 0.55, 0.9, 0.4};

/// Per image, of given directions.
std::vector<double> values_of(const Model& model, const std::string& name, const Tensor& x0, const Tensor& z,
                              const Tensor& v, double fd_step = 0.1) {
  return model.loss(name, fd_step)
      ->evaluate(LossNetwork(*model.network, {}), x0, kTimes, {z, v})
      .per_image.to_host_f64();
}

TEST_F(ScoreMatching, SlicedOverAllSignsIsExplicit) {
  const std::int64_t n = std::ssize(kTimes);
  for (const bool energy : {false, true})
    for (const std::string sde : {"vesde", "vpsde", "subvpsde"}) {
      SCOPED_TRACE(sde + (energy ? " energy" : ""));
      const Model model(mlp_config(energy, sde), *context_);
      const Tensor x0 = points(*context_, n, 1), z = points(*context_, n, 2);
      const std::vector<double> expected = values_of(model, "esm", x0, z, {});
      for (const std::string name : {"ssm", "ssm_vr"}) {
        std::vector<double> mean(kTimes.size());
        for (int signs = 0; signs < 1 << kDim; ++signs) {
          std::vector<double> v;
          for (std::int64_t i = 0; i < n * kDim; ++i) v.push_back(signs >> i % kDim & 1 ? 1.0 : -1.0);
          const Tensor directions = tensor_of(*context_, v, x0.shape(), DType::f64);
          const std::vector<double> each = values_of(model, name, x0, z, directions);
          for (std::size_t i = 0; i < each.size(); ++i) mean[i] += each[i] / (1 << kDim);
        }
        expect_close(mean, expected, {1e-13}, name);
      }
    }
}

TEST_F(ScoreMatching, DifferencesTendToDerivativesWithTheSquareOfTheStep) {
  const std::int64_t n = std::ssize(kTimes);
  for (const bool energy : {false, true}) {
    const Model model(mlp_config(energy), *context_);
    const Tensor x0 = points(*context_, n, 1), z = points(*context_, n, 2), v = points(*context_, n, 3);
    const std::vector<double> limit = values_of(model, "ssm_vr", x0, z, v);
    const auto error = [&](double step) {
      const std::vector<double> values = values_of(model, "fd_ssm", x0, z, v, step);
      double sum = 0;
      for (std::size_t i = 0; i < values.size(); ++i) sum += std::abs(values[i] - limit[i]);
      return sum;
    };
    const double coarse = error(0.02), fine = error(0.01);
    EXPECT_GT(fine, 1e-9);
    EXPECT_NEAR(coarse / fine, 4.0, 0.05);
  }
}

/// With s(x) = -A x + b everything is a closed form.
TEST_F(ScoreMatching, LinearScoresHaveClosedForms) {
  const double a[2][2] = {{1.3, 0.4}, {-0.2, 0.8}}, b[2] = {0.3, -0.6};
  const auto apply = [&](const Tensor& x, bool offset) {
    const std::vector<double> in = x.to_host_f64();
    std::vector<double> out(in.size());
    for (std::size_t i = 0; i < in.size(); i += 2)
      for (std::size_t k = 0; k < 2; ++k)
        out[i + k] = -a[k][0] * in[i] - a[k][1] * in[i + 1] + (offset ? b[k] : 0.0);
    return Var(tensor_of(*context_, out, x.shape(), DType::f64));
  };
  const LossNetwork network([&](const Tensor& x, const Tensor&) { return apply(x, true); },
                            [&](const Tensor& x, const Tensor& v, const Tensor&) {
                              return TangentNetwork::Tangent{apply(x, true), apply(v, false)};
                            });
  const Model ve(mlp_config(false, "vesde", 2), *context_);  // whose networks return the score itself
  const std::vector<double> x = {0.7, -1.1}, v = {1.0, -1.0};
  const Tensor x0 = tensor_of(*context_, x, {1, 1, 1, 2}, DType::f64);
  const Tensor direction = tensor_of(*context_, v, {1, 1, 1, 2}, DType::f64);
  for (const double noise : {0.0, 0.5}) {
    const Tensor z = points(*context_, 1, 5, 2);
    const std::vector<double> drawn = z.to_host_f64();
    double s[2], square = 0, projection = 0, along = 0, denoising = 0;
    for (int k = 0; k < 2; ++k) {
      s[k] = b[k] - a[k][0] * (x[0] + noise * drawn[0]) - a[k][1] * (x[1] + noise * drawn[1]);
      square += s[k] * s[k];
      projection += v[k] * s[k];
      along -= v[k] * (a[k][0] * v[0] + a[k][1] * v[1]);
      denoising += 0.5 * std::pow(noise * s[k] + drawn[k], 2);
    }
    const double weight = noise > 0 ? noise * noise : 1.0;
    const double trace = -(a[0][0] + a[1][1]);
    const std::pair<std::string, double> rows[] = {{"esm", weight * (trace + 0.5 * square)},
                                                   {"ssm", weight * (along + 0.5 * projection * projection)},
                                                   {"ssm_vr", weight * (along + 0.5 * square)},
                                                   {"fd_ssm", weight * (along + 0.5 * square)},
                                                   {"dsm", denoising}};
    for (const auto& [name, expected] : rows) {
      if (name == "dsm" && noise == 0.0) continue;
      const auto loss = ve.loss(name);
      LossInputs inputs = loss->create_inputs(*context_, x0.shape(), DType::f64);
      loss->fill(inputs, std::vector<LossTerms>{plain_terms(noise)});
      EXPECT_NEAR(loss->evaluate(network, x0, inputs, {z, direction}).mean.value().item(), expected, 1e-12)
          << name << " at " << noise;
    }
  }
}

/// Weighting by g(t)^2 multiplies the loss of an image by g^2 / std^2.
TEST_F(ScoreMatching, LikelihoodWeightingIsAFactor) {
  const std::int64_t n = std::ssize(kTimes);
  for (const std::string sde : {"vesde", "vpsde"}) {
    const Model model(mlp_config(false, sde), *context_);
    const Tensor x0 = points(*context_, n, 1), z = points(*context_, n, 2), v = points(*context_, n, 3);
    for (const std::string name : {"esm", "ssm", "ssm_vr", "fd_ssm"}) {
      const auto evaluate = [&](bool likelihood) {
        return model.loss(name, 0.1, likelihood)
            ->evaluate(LossNetwork(*model.network, {}), x0, kTimes, {z, v})
            .per_image.to_host_f64();
      };
      std::vector<double> expected = evaluate(false);
      for (std::size_t i = 0; i < kTimes.size(); ++i) {
        const double t = 1e-5 + kTimes[i] * (1.0 - 1e-5);
        expected[i] *= std::pow(model.sde->diffusion(t) / model.sde->marginal_std(t), 2);
      }
      expect_close(evaluate(true), expected, {1e-12}, name);
    }
  }
}

// ---- gradients --------------------------------------------------------------------------------------------

/// The gradient by all parameters, in their order.
std::vector<double> gradient_of(const Model& model, const Var& mean, Context& context) {
  for (const Parameter& p : model.network->parameters())
    if (p.trainable) p.var->zero_grad();
  mean.backward(Tensor::full(context, {1}, 1.0, DType::f64));
  std::vector<double> all;
  for (const Parameter& p : model.network->parameters()) {
    if (!p.trainable) continue;
    EXPECT_TRUE(p.var->grad().defined()) << p.name;
    const std::vector<double> each = p.var->gradient().value().to_host_f64();
    all.insert(all.end(), each.begin(), each.end());
  }
  return all;
}

/// Adds factor times direction to all parameters.
void move_parameters(const Model& model, const std::vector<double>& direction, double factor) {
  std::size_t at = 0;
  for (const Parameter& p : model.network->parameters()) {
    if (!p.trainable) continue;
    std::vector<double> values = p.var->value().to_host_f64();
    for (double& value : values) value += factor * direction[at++];
    p.var->value().upload(std::span<const double>(values));
    p.var->value().mark_modified();
  }
}

TEST_F(ScoreMatching, GradientsAreThoseOfTheLosses) {
  const std::int64_t n = std::ssize(kTimes);
  for (const bool energy : {false, true})
    for (const std::string sde : {"vesde", "vpsde"}) {
      const Model model(mlp_config(energy, sde), *context_);
      const Tensor x0 = points(*context_, n, 1), z = points(*context_, n, 2), v = points(*context_, n, 3);
      for (const std::string& name : loss_names()) {
        SCOPED_TRACE(name + ' ' + sde + (energy ? " energy" : ""));
        const auto loss = model.loss(name);
        const auto mean = [&] {
          return loss->evaluate(LossNetwork(*model.network, {}), x0, kTimes, {z, v}).mean;
        };
        const std::vector<double> gradient = gradient_of(model, mean(), *context_);
        for (const std::uint32_t stream : {50u, 51u}) {
          const std::vector<double> d = random_values(std::ssize(gradient), stream);
          constexpr double kStep = 1e-5;
          move_parameters(model, d, kStep);
          const double above = mean().value().item();
          move_parameters(model, d, -2 * kStep);
          const double below = mean().value().item();
          move_parameters(model, d, kStep);
          const double size = std::sqrt(dot(gradient, gradient));
          EXPECT_NEAR(dot(gradient, d), (above - below) / (2 * kStep), 1e-7 * size + 1e-10 * std::abs(above));
        }
      }
    }
}

/// The gradient of denoising score matching is, on average over noise, that of explicit score matching: their
/// difference averages to zero within five of its standard errors, while either gradient lies far from zero.
TEST_F(ScoreMatching, DenoisingHasTheGradientOfExplicitScoreMatching) {
  constexpr std::int64_t kPoints = 512;
  constexpr int kBatches = 48;
  Config config = mlp_config(false, "vesde", 2);
  config.model.hidden = {6};
  const Model model(config, *context_);
  const auto density =
      gaussian_mixture("two", {0.7, 0.3}, {1.5, 1.0, -1.0, -0.5}, {0.5, 0, 0, 0.3, 0.4, 0, 0, 0.4});
  const auto denoising = model.loss("dsm"), explicit_loss = model.loss("esm");
  const std::vector<LossTerms> terms(kPoints, [] {
    LossTerms at = plain_terms(0.5);
    at.label = 0.5;
    return at;
  }());
  LossInputs inputs = explicit_loss->create_inputs(*context_, {kPoints, 1, 1, 2}, DType::f64);
  explicit_loss->fill(inputs, terms);
  std::vector<double> sum, squares, gradients;
  for (int batch = 0; batch < kBatches; ++batch) {
    const Tensor x0 =
        tensor_of(*context_, density->sample(kPoints, 1, batch * kPoints), {kPoints, 1, 1, 2}, DType::f64);
    const Tensor z = points(*context_, kPoints, 100 + static_cast<std::uint32_t>(batch), 2);
    const auto gradient = [&](const Loss& loss) {
      return gradient_of(model, loss.evaluate(LossNetwork(*model.network, {}), x0, inputs, {z}).mean,
                         *context_);
    };
    const std::vector<double> one = gradient(*denoising), other = gradient(*explicit_loss);
    sum.resize(one.size()), squares.resize(one.size()), gradients.resize(one.size());
    for (std::size_t i = 0; i < one.size(); ++i) {
      const double difference = one[i] - other[i];
      sum[i] += difference / kBatches, squares[i] += difference * difference / kBatches;
      gradients[i] += other[i] / kBatches;
    }
  }
  int far = 0;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    const double error = std::sqrt(squares[i] / kBatches);
    EXPECT_LE(std::abs(sum[i]), 5.0 * error) << "parameter " << i;
    far += std::abs(gradients[i]) > 20.0 * error;
  }
  EXPECT_GT(far, static_cast<int>(sum.size()) / 3);
}

// ---- other networks ---------------------------------------------------------------------------------------

/// Both evaluations of a difference have the same dropout mask: else it would grow like one over the step.
TEST_F(ScoreMatching, DifferencesShareTheirDropout) {
  Config config = tiny_config();
  config.model.dropout = 0.5;
  config.model.init_scale = 1.0;
  const Model model(config, *context_);
  const Tensor x0 = tensor_of(*context_, random_values(2 * 64, 1), {2, 8, 8, 1}, DType::f64);
  const Tensor z = tensor_of(*context_, random_values(2 * 64, 2), x0.shape(), DType::f64);
  const Tensor v = tensor_of(*context_, random_values(2 * 64, 3), x0.shape(), DType::f64);
  const ForwardMode mode{DType::f64, true, NoiseKey{5, Purpose::noise, 1}};
  const auto value = [&](double step) {
    return model.loss("fd_ssm", step)
        ->evaluate(LossNetwork(*model.network, mode), x0, std::vector<double>{0.3, 0.6}, {z, v})
        .mean.value()
        .item();
  };
  const double coarse = value(1e-3), fine = value(1e-5);
  EXPECT_NEAR(coarse, fine, 1e-4 * std::abs(fine));
}

TEST_F(ScoreMatching, DifferencesTrainAnyNetwork) {
  Config config = tiny_config();
  config.training.loss = "fd_ssm";
  config.training.batch_size = 8;
  config.model.dropout = 0.0;
  config.data.random_flip = false;
  config.optim.lr = 5e-3;
  const BarImages images(4);
  Trainer trainer(config, images, *context_);
  const RunState before = state_of(trainer.network(), trainer.optimizer());
  // Zero at first, where the output is; by the convention of the mean -1 where all noise is recognised.
  EXPECT_NEAR(trainer.step().loss, 0.0, 1e-3);
  double last = 0;
  for (int i = 1; i < 25; ++i) {
    const Trainer::Step step = trainer.step();
    ASSERT_TRUE(step.is_finite());
    if (i >= 20) last += step.loss / 5;
  }
  EXPECT_LT(last, -0.4);
  const RunState after = state_of(trainer.network(), trainer.optimizer());
  for (const Optimizer::Slot& slot : trainer.optimizer().slots())
    EXPECT_NE(after.at("model." + slot.parameter.name), before.at("model." + slot.parameter.name));
}

TEST_F(ScoreMatching, WhatDoesNotFitIsRefused) {
  Config config = tiny_config();
  for (const std::string name : {"ssm", "ssm_vr", "esm"}) {
    config.training.loss = name;
    expect_error({"training.loss", name, "mlp"}, [&] { Trainer(config, BarImages(4), *context_); });
  }
  config.training.loss = "nce";
  expect_error({"training.loss", "nce", "fd_ssm"}, [&] { Trainer(config, BarImages(4), *context_); });
}

}  // namespace
}  // namespace sgm
