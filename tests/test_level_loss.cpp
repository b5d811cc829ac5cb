// The loss per noise level: of exact scores of Gaussian data it is known.

#include "sgm/score/level_loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "closed_form.h"
#include "expect_error.h"

namespace sgm {
namespace {

constexpr double kDataMean = 0.4, kDataVariance = 0.25 * 0.25;  // of the data, per element
constexpr int kManyImages = 1500, kImageDim = 6;

/// The exact score of the data at the level of these terms, as the network whose output the loss scales.
LossNetwork exact_network(const LossTerms& at) {
  return [at](const Tensor& x, const Tensor&) {
    const double scale = at.a / (at.b * at.std);
    std::vector<double> values = x.to_host_f64();
    for (double& value : values)
      value = -(value - at.mean_coeff * kDataMean) /
              (at.mean_coeff * at.mean_coeff * kDataVariance + at.std * at.std) / scale;
    return Var(Tensor::from_host(x.context(), std::span<const double>(values), x.shape(), x.dtype()));
  };
}

class LevelLossTest : public testing::Test {
 protected:
  LevelLossTest() {
    std::vector<float> values =
        normal(*context_, {kManyImages, 1, 2, 3}, NoiseKey{3, Purpose::initialise}).to_host();
    for (float& value : values) value = static_cast<float>(kDataMean + std::sqrt(kDataVariance) * value);
    images_ = values;
  }
  Tensor images(int first, int count) const {
    return Tensor::from_host(
        *context_, std::span(images_).subspan(std::size_t(first) * kImageDim, std::size_t(count) * kImageDim),
        {count, 1, 2, 3});
  }

  const std::unique_ptr<Context> context_ = create_context("cpu", 2);
  std::vector<float> images_;
};

struct Case {
  const char* sde;
  bool continuous, reduce_mean, likelihood_weighting;
};

TEST_F(LevelLossTest, OfExactScoresIsKnown) {
  for (const Case& c : {Case{"vesde", true, false, false}, Case{"vpsde", true, true, false},
                        Case{"subvpsde", true, false, true}, Case{"vesde", false, true, false},
                        Case{"vpsde", false, false, false}}) {
    SCOPED_TRACE(std::string(c.sde) + (c.continuous ? "" : ", discrete"));
    const auto sde = make_sde(c.sde, 1000);
    TrainingConfig config;
    config.continuous = c.continuous;
    config.reduce_mean = c.reduce_mean;
    config.likelihood_weighting = c.likelihood_weighting;
    const DenoisingLoss loss(*sde, config);
    LevelLosses losses(*sde, config, 5, 11);
    double total = 0.0;
    for (int l = 0; l < 5; ++l)
      losses.add(exact_network(loss.terms((l + 0.5) / 5)), images(0, kManyImages), 0, l);
    for (const LevelLoss& level : losses.results()) {
      const double m = level.marginal.mean_coeff, s = level.marginal.std, v = m * m * kDataVariance + s * s;
      // std score + z of the exact score has variance m^2 var / v per element.
      const double noise_error = m * m * kDataVariance / v;
      const double g = sde->diffusion(level.at.t), weight = c.likelihood_weighting ? g * g / (s * s) : 1.0;
      const double expected = weight * noise_error * (c.reduce_mean ? 1.0 : kImageDim / 2.0);
      EXPECT_NEAR(level.loss.mean, expected, 4 * level.loss.standard_error) << "t = " << level.at.t;
      // A chi-squared variable: relative standard deviation sqrt(2 / (images dim)).
      EXPECT_NEAR(level.loss.standard_error, expected * std::sqrt(2.0 / kImageDim / kManyImages),
                  0.15 * expected / 50);
      EXPECT_NEAR(level.noise_error, noise_error, 0.06 * noise_error);
      EXPECT_NEAR(level.denoising_error, s * std::sqrt(kDataVariance / v),
                  0.03 * s * std::sqrt(kDataVariance / v));
      total += level.loss.mean / 5;
    }
    EXPECT_NEAR(losses.total().mean, total, 1e-12 * total);
    EXPECT_GT(losses.total().standard_error, 0.0);
  }
}

TEST_F(LevelLossTest, DoesNotDependOnBatches) {
  const auto sde = make_sde("vpsde", 1000);
  const TrainingConfig config;
  LevelLosses whole(*sde, config, 2, 5), parts(*sde, config, 2, 5), other(*sde, config, 2, 6);
  for (int l = 0; l < 2; ++l) {
    const auto network = exact_network(DenoisingLoss(*sde, config).terms((l + 0.5) / 2));
    whole.add(network, images(0, 7), 100, l);
    parts.add(network, images(0, 3), 100, l);
    parts.add(network, images(3, 4), 103, l);
    other.add(network, images(0, 7), 100, l);
  }
  EXPECT_EQ(whole.total().mean, parts.total().mean);
  EXPECT_EQ(whole.total().standard_error, parts.total().standard_error);
  EXPECT_NE(whole.total().mean, other.total().mean);
}

TEST_F(LevelLossTest, LevelsLieOverAllTimes) {
  const auto sde = make_sde("vesde", 10);
  TrainingConfig config;
  const auto times = [&](int levels) {
    LevelLosses losses(*sde, config, levels, 0);
    std::vector<double> found;
    for (int l = 0; l < losses.levels(); ++l)
      losses.add(exact_network({0, 1, 1, 1, 1, 1}), images(0, 1), 0, l);
    for (const LevelLoss& level : losses.results()) {
      found.push_back(level.at.on_grid() ? level.at.k : level.at.t);
      EXPECT_TRUE(std::isnan(level.loss.standard_error));  // one image says nothing of the spread
    }
    return found;
  };
  EXPECT_NEAR(times(4)[0], 0.125, 1e-4);
  EXPECT_NEAR(times(4)[3], 0.875, 1e-4);
  config.continuous = false;
  EXPECT_EQ(times(5), (std::vector<double>{1, 3, 5, 7, 9}));
  EXPECT_EQ(times(1000), (std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  expect_error({"at least one noise level"}, [&] { LevelLosses(*sde, config, 0, 0); });
}

}  // namespace
}  // namespace sgm
