// The multi-layer perceptron: its derivatives, what it learns with every loss, and that samplers and
// likelihood take it.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "expect_error.h"
#include "sgm/lab/fit.h"
#include "sgm/sampling/likelihood.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/score_model.h"
#include "small_mlp.h"
#include "tiny_training.h"

namespace sgm {
namespace {

class Mlp : public testing::Test {
 protected:
  Tensor labels(const std::vector<double>& values) {
    return tensor_of(*context_, values, {std::ssize(values)}, DType::f64);
  }
  const std::unique_ptr<Context> context_ = create_context("cpu", 1);
};

// ---- the network ------------------------------------------------------------------------------------------

TEST_F(Mlp, TangentsAreDerivatives) {
  constexpr std::int64_t kPoints = 2, kDirections = 3;
  for (const bool energy : {false, true})
    for (const std::string sde : {"vesde", "vpsde"}) {
      SCOPED_TRACE(sde + (energy ? " energy" : ""));
      const Model model(mlp_config(energy, sde), *context_);
      const Tensor x = points(*context_, kPoints, 1), at = labels({0.4, 7.0});
      const Tensor v = points(*context_, kDirections * kPoints, 2);
      const auto pass = model.twice().forward_tangent(Var(x), v, at, {});
      expect_close(pass.output.value().to_host_f64(),
                   model.network->forward(Var(x), at, {}).value().to_host_f64(), {1e-15});
      const std::vector<double> directions = v.to_host_f64(), tangent = pass.tangent.value().to_host_f64();
      for (std::int64_t k = 0; k < kDirections; ++k) {
        const auto first = directions.begin() + k * x.numel();
        const std::vector<double> along(first, first + x.numel());
        const auto output_at = [&](double h) {
          const std::vector<double> moved_x = moved({{x.shape(), x.to_host_f64()}}, 0, h, along).front().data;
          return model.network->forward(Var(tensor_of(*context_, moved_x, x.shape(), DType::f64)), at, {})
              .value()
              .to_host_f64();
        };
        const std::vector<double> above = output_at(1e-5), below = output_at(-1e-5);
        std::vector<double> quotient;
        for (std::size_t i = 0; i < above.size(); ++i) quotient.push_back((above[i] - below[i]) / 2e-5);
        const auto begin = tangent.begin() + k * x.numel();
        expect_close(std::vector<double>(begin, begin + x.numel()), quotient, {1e-8});
      }
    }
}

TEST_F(Mlp, AnEnergysScoreIsItsGradientAndCurlFree) {
  for (const std::string sde : {"vesde", "vpsde"}) {
    const Model model(mlp_config(true, sde), *context_);
    const std::vector<double> point = random_values(kDim, 1), u = random_values(kDim, 2),
                              v = random_values(kDim, 3);
    const auto at = [&](const std::vector<double>& values) {
      return tensor_of(*context_, values, {1, 1, 1, kDim}, DType::f64);
    };
    const Tensor label = labels({0.4});
    const std::vector<double> score = model.network->forward(Var(at(point)), label, {}).value().to_host_f64();
    const auto energy_at = [&](double h) {
      const auto moved_point = moved({{Shape{kDim}, point}}, 0, h, u).front().data;
      return model.twice().energy(Var(at(moved_point)), label).value().item();
    };
    EXPECT_NEAR(dot(score, u), -(energy_at(1e-5) - energy_at(-1e-5)) / 2e-5, 1e-8);
    const auto product = [&](const std::vector<double>& direction) {
      return model.twice().forward_tangent(Var(at(point)), at(direction), label, {}).tangent.value();
    };
    const double one = dot(u, product(v).to_host_f64()), other = dot(v, product(u).to_host_f64());
    EXPECT_GT(std::abs(one), 1e-3);
    EXPECT_NEAR(one, other, 1e-14 * std::max(1.0, std::abs(one)));
  }
  const Model model(mlp_config(false), *context_);
  expect_error({"model.energy"}, [&] { model.twice().energy(Var(points(*context_, 1, 1)), labels({1.0})); });
}

TEST_F(Mlp, WhatDoesNotFitIsRefused) {
  Config points = mlp_config(false);
  points.data.num_channels = 65;
  expect_error({"data.num_channels", "64"}, [&] { validate(points); });
  points = mlp_config(false);
  points.data.image_size = 2;
  expect_error({"data.image_size", "mlp"}, [&] { validate(points); });
  points = mlp_config(false);
  points.model.nonlinearity = "relu";
  expect_error({"model.nonlinearity", "swish"}, [&] { create_network(points, *context_); });
  const auto density = gaussian_mixture("one", {1.0}, {0.0, 0.0}, {1, 0, 0, 1});
  expect_error({"mlp"}, [&] { fit_score(tiny_config(), *density, *context_); });
  expect_error({"dsm", "noise"}, [&] { fit_score(mlp_config(false), *density, *context_, {.noise = 0.0}); });
}

// ---- learning ---------------------------------------------------------------------------------------------

Config fit_config(const std::string& loss, bool energy, const std::string& sde = "vesde") {
  Config config = mlp_config(energy, sde, 2);
  config.sde.sigma_min = 0.1;
  config.sde.sigma_max = 5.0;
  config.model.hidden = {32, 32};
  config.model.nf = 8;
  config.model.init_scale = 0.0;
  config.model.ema_rate = 0.99;
  config.training.loss = loss;
  config.training.batch_size = 128;
  config.training.n_iters = 400;
  config.training.log_freq = 100;
  config.optim.lr = 1e-2;
  config.optim.warmup = 20;
  config.optim.grad_clip = 10.0;
  return config;
}

std::unique_ptr<Density> two_bumps() {
  return gaussian_mixture("two", {0.7, 0.3}, {1.0, 1.0, -1.0, -0.5}, {0.3, 0, 0, 0.3, 0.3, 0, 0, 0.3});
}

TEST_F(Mlp, EveryLossLearnsAMixture) {
  const auto density = two_bumps();
  struct Row {
    const char* loss;
    bool energy;
    double allowed;  // relative error of the score
  };
  for (const Row& row : {Row{"dsm", false, 0.2}, Row{"fd_ssm", false, 0.25}, Row{"ssm", false, 0.35},
                         Row{"ssm_vr", false, 0.25}, Row{"esm", false, 0.25}, Row{"esm", true, 0.2}}) {
    const FittedScore fit = fit_score(fit_config(row.loss, row.energy), *density, *context_);
    for (const double t : {0.5, 0.8}) {
      const Marginal at{fit.sde->mean_coeff(t), fit.sde->marginal_std(t)};
      const double error = score_error(fit.score, *density, at, t, *context_, 1000);
      EXPECT_LT(error, row.allowed) << row.loss << (row.energy ? " energy" : "") << " at " << t;
    }
    EXPECT_EQ(fit.losses.size(), 4u);
  }
}

/// Of every SDE: the likelihood of data under the fitted score is near the true one, and the samples of both
/// kinds of sampler have the data's means.
TEST_F(Mlp, SamplersAndLikelihoodTakeIt) {
  const auto density = two_bumps();
  for (const std::string& sde : sde_names()) {
    SCOPED_TRACE(sde);
    const FittedScore fit = fit_score(fit_config("dsm", false, sde), *density, *context_);
    constexpr std::int64_t kPoints = 100;
    const Tensor x = sample_tensor(*density, *context_, kPoints, 5);
    FlowOptions options;
    options.ode.rtol = options.ode.atol = 1e-3;
    const Likelihood likelihood =
        log_likelihood(*fit.sde, score_product_function(*fit.network, *fit.sde, true), x,
                       unit_probes(*context_, x.shape()), options);
    const std::vector<double> drawn = x.to_host_f64();
    double difference = 0;
    for (std::size_t i = 0; i < kPoints; ++i)
      difference += likelihood.log_likelihood(i) - density->log_prob(std::span(drawn).subspan(2 * i, 2));
    EXPECT_NEAR(difference / kPoints, 0.0, 0.15);
    for (const std::string method : {"pc", "ode"}) {
      SamplingConfig settings;
      settings.method = method;
      settings.predictor = "euler_maruyama";
      settings.corrector = "none";
      settings.steps = 100;
      settings.rtol = settings.atol = 1e-3;
      const std::vector<double> samples = create_sampler(*fit.sde, settings)
                                              ->sample(*context_, fit.score, {.shape = {1000, 1, 1, 2}})
                                              .x.to_host_f64();
      double mean[2] = {};
      for (std::size_t i = 0; i < samples.size(); ++i) mean[i % 2] += samples[i] / 1000;
      EXPECT_NEAR(mean[0], density->mean()[0], 0.25) << method;
      EXPECT_NEAR(mean[1], density->mean()[1], 0.25) << method;
    }
  }
}

TEST_F(Mlp, PlainScoreMatchingNeedsNoNoise) {
  const auto density = two_bumps();
  Config config = fit_config("ssm_vr", false);
  config.training.n_iters = 300;
  const FittedScore fit = fit_score(config, *density, *context_, {.noise = 0.0});
  EXPECT_LT(score_error(fit.score, *density, {1.0, 0.0}, 0.0, *context_, 1000), 0.4);
}

TEST_F(Mlp, AFitDependsOnItsSeedAlone) {
  const auto density = two_bumps();
  Config config = fit_config("ssm", false);
  config.training.n_iters = 5;
  config.training.log_freq = 2;
  int calls = 0;
  const auto weights = [&](std::uint64_t seed, int threads) {
    config.training.seed = seed;
    const auto context = create_context("cpu", threads);
    FittedScore fit =
        fit_score(config, *density, *context, {.progress = [&](std::int64_t, double) { ++calls; }});
    std::vector<double> all;
    for (const Parameter& p : fit.network->parameters())
      for (const double value : p.var->value().to_host_f64()) all.push_back(value);
    return all;
  };
  const std::vector<double> once = weights(1, 1), other = weights(2, 1);
  EXPECT_EQ(calls, 6);
  EXPECT_EQ(weights(1, 1), once);
  // Two threads may sum a product in another order: as the same picture, so the same weights up to rounding.
  const std::vector<double> by_two = weights(1, 2);
  for (std::size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(by_two[i], once[i], 1e-5) << i;
  EXPECT_GT(std::abs(other[0] - once[0]), 1e-2);
}

}  // namespace
}  // namespace sgm
