// The samplers of NCSN and DDPM, and how NCSNv2 chooses its noise scales.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "closed_form.h"
#include "expect_error.h"
#include "sgm/data/distances.h"
#include "sgm/sampling/constraints.h"
#include "sgm/sampling/sampler.h"
#include "sgm/sde/noise_scales.h"

namespace sgm {
namespace {

// ---- Annealed Langevin dynamics ----

SamplingConfig annealed(double step_lr, int n_steps) {
  SamplingConfig config;
  config.method = "annealed_langevin";
  config.step_lr = step_lr;
  config.n_steps_each = n_steps;
  return config;
}

TEST(AnnealedLangevin, IsTheCorrectorAloneAtTheSameStep) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 40);
  SamplingConfig config = annealed(6.2e-6, 3);
  config.denoise = false;
  config.eps = 1e-12;  // so that the last time's noise is sigma_min
  SampleRequest request{.shape = {3, 2, 3, 1}, .seed = 4, .first_sample = 5};
  const SampleResult result = create_sampler(*sde, config)->sample(*context, golden_score(*sde), request);
  EXPECT_EQ(result.nfe, std::vector<std::int64_t>(3, 120));
  config.method = "pc";
  config.predictor = "none";
  config.corrector = "ald";
  config.snr = std::sqrt(6.2e-6 / 2.0) / 0.01;
  const std::vector<float> same =
      create_sampler(*sde, config)->sample(*context, golden_score(*sde), request).x.to_host();
  expect_all_near(result.x.to_host(), std::vector<double>(same.begin(), same.end()), 1e-4);
}

TEST(AnnealedLangevin, CountsScalesAndLabels) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 10);
  std::vector<double> labels;
  const ScoreFn score = [&](const Tensor& x, std::span<const ImageTime> times) {
    labels.push_back(sde->discrete_label(times[0]));
    return golden_score(*sde, true)(x, times);
  };
  const SampleResult result =
      create_sampler(*sde, annealed(2e-5, 7))->sample(*context, score, {.shape = {2, 2, 2, 1}});
  ASSERT_EQ(labels.size(), 71u) << "denoising asks once more";
  for (std::size_t i = 0; i < labels.size(); ++i)
    EXPECT_EQ(labels[i], static_cast<double>(std::min<std::size_t>(i / 7, 9)));
  EXPECT_EQ(result.nfe, std::vector<std::int64_t>(2, 71));
}

TEST(AnnealedLangevin, DenoisingAddsTheLastScore) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 10);
  SamplingConfig config = annealed(2e-5, 2);
  const auto sample = [&](bool denoise) {
    config.denoise = denoise;
    return create_sampler(*sde, config)
        ->sample(*context, golden_score(*sde, true), {.shape = {2, 3, 3, 1}, .seed = 8})
        .x.to_host();
  };
  const std::vector<float> noisy = sample(false), mean = sample(true);
  for (std::size_t i = 0; i < noisy.size(); ++i) {
    const double x = static_cast<double>(noisy[i]), score = -(x - 0.4) / (1e-4 + 0.0625);
    EXPECT_NEAR(static_cast<double>(mean[i]), x + 1e-4 * score, 1e-6);
  }
}

TEST(AnnealedLangevin, ReachesTheData) {
  // NCSN's own settings: ten scales from 1 to 0.01, a hundred steps each, from U[0, 1).
  const auto context = create_context("cpu");
  SDEConfig sde_config;
  sde_config.sigma_max = 1.0;
  sde_config.num_scales = 10;
  const auto sde = create_sde(sde_config);
  SamplingConfig config = annealed(2e-5, 100);
  for (const char* start : {"uniform", "prior"}) {
    config.start = start;
    const std::vector<float> x = create_sampler(*sde, config)
                                     ->sample(*context, elementwise_score([&](double v, const ImageTime& t) {
                                       const double sigma = sde->discrete_marginal(t.k, 10).std;
                                       return -(v - 0.4) / (sigma * sigma + 0.0625);
                                     }),
                                              {.shape = {64, 8, 8, 1}, .seed = 2})
                                     .x.to_host();
    double mean = 0.0, variance = 0.0;
    for (const float v : x) mean += static_cast<double>(v) / 4096.0;
    for (const float v : x) variance += std::pow(static_cast<double>(v) - mean, 2) / 4096.0;
    // The steps at large noise leave some of it behind: 100 steps of 0.002 at sigma = 0.1.
    EXPECT_NEAR(mean, 0.4, 0.03) << start;
    EXPECT_NEAR(std::sqrt(variance), 0.25, 0.03) << start;
  }
}

TEST(AnnealedLangevin, StartsUniformOrFromThePrior) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 2);
  SamplingConfig config = annealed(1e-30, 1);  // stays where it is
  config.denoise = false;
  const auto start = [&](const char* which, std::uint32_t first, std::int64_t n) {
    config.start = which;
    SampleRequest request{.shape = {n, 16, 16, 1}, .seed = 3, .first_sample = first};
    return create_sampler(*sde, config)->sample(*context, golden_score(*sde), request).x.to_host();
  };
  const std::vector<float> uniform = start("uniform", 0, 4), third = start("uniform", 2, 1);
  EXPECT_EQ(0, std::memcmp(third.data(), uniform.data() + 512, sizeof(float) * 256));
  double mean = 0.0, square = 0.0;
  for (const float v : uniform) {
    EXPECT_TRUE(v > -1e-6f && v < 1.0f + 1e-6f) << v;
    mean += static_cast<double>(v) / 1024.0,
        square += static_cast<double>(v) * static_cast<double>(v) / 1024.0;
  }
  EXPECT_NEAR(mean, 0.5, 5.0 * std::sqrt(1.0 / 12.0 / 1024.0));
  EXPECT_NEAR(square, 1.0 / 3.0, 5.0 * std::sqrt(4.0 / 45.0 / 1024.0));
  const std::vector<float> prior = start("prior", 0, 4);
  EXPECT_NEAR(prior[7], normal(*context, {4, 16, 16, 1}, NoiseKey{3, Purpose::prior}, 50.0).to_host()[7],
              1e-4f);
}

TEST(AnnealedLangevin, IsForNoiseAlone) {
  for (const char* name : {"vpsde", "subvpsde"})
    expect_error({"annealed_langevin", "vesde"},
                 [&] { create_sampler(*make_sde(name, 50), annealed(2e-5, 1)); });
  const auto sde = make_sde("vesde", 50);
  for (const double step : {0.0, -1.0, static_cast<double>(NAN)})
    expect_error({"sampling.step_lr"}, [&] { create_sampler(*sde, annealed(step, 1)); });
  expect_error({"sampling.n_steps_each"}, [&] { create_sampler(*sde, annealed(2e-5, 0)); });
}

// ---- The two variances of ancestral sampling ----

ReverseStep ancestral(const SDE& sde, const char* variance, int k, int n) {
  SamplingConfig config;
  config.predictor = "ancestral_sampling";
  config.ancestral_variance = variance;
  const std::vector<double> numbers =
      create_predictor(sde, config, n)->numbers({static_cast<double>(k) / (n - 1), k, n});
  return {numbers[0], numbers[1], numbers[2]};
}

TEST(Ancestral, TheVariancesAreThoseOfTheTwoExtremes) {
  // DDPM's beta is exact where x_0 ~ N(0, 1): then every marginal is N(0, 1). The posterior's is exact where
  // x_0 is one point m, whose score is that of the kernel: then every marginal is the kernel's, down to m.
  constexpr int kScales = 60;
  constexpr double kPoint = 0.7;
  for (const char* name : {"vpsde", "vesde"}) {
    const auto sde = make_sde(name, kScales);
    for (int k = 0; k < kScales; ++k) {
      const Marginal now = sde->discrete_marginal(k, kScales);
      const Marginal before = k > 0 ? sde->discrete_marginal(k - 1, kScales) : Marginal{1.0, 0.0};
      const ReverseStep step = ancestral(*sde, "posterior", k, kScales);
      const double pull = step.b / (now.std * now.std), factor = step.a - pull;
      EXPECT_NEAR(factor * now.mean_coeff * kPoint + pull * now.mean_coeff * kPoint,
                  before.mean_coeff * kPoint, 1e-12);
      EXPECT_NEAR(factor * factor * now.std * now.std + step.c * step.c, before.std * before.std,
                  1e-12 * now.std * now.std);
      const ReverseStep wide = ancestral(*sde, "beta", k, kScales);
      EXPECT_EQ(wide.a, step.a);
      EXPECT_EQ(wide.b, step.b);
      if (std::string(name) == "vesde")
        EXPECT_NEAR(wide.c, step.c, 1e-12 * now.std) << "SMLD's chain has the posterior's";
      else
        EXPECT_NEAR(std::pow(wide.a - wide.b, 2) + wide.c * wide.c, 1.0, 1e-12);
    }
  }
}

// ---- How noise scales and steps are chosen ----

/// Choices of Song and Ermon 2020: CIFAR-10, CelebA 64x64, LSUN 128x128.
struct Published {
  double sigma_max;
  std::int64_t dim;
  int scales, steps;
  double step_lr;
};
constexpr Published kPublished[] = {
    {50.0, 3 * 32 * 32, 232, 5, 6.2e-6},
    {90.0, 3 * 64 * 64, 500, 5, 3.3e-6},
    {190.0, 3 * 128 * 128, 1086, 3, 1.8e-6},
};

TEST(NoiseScales, LeadToThePublishedChoices) {
  for (const Published& p : kPublished) {
    SCOPED_TRACE(p.scales);
    const double ratio = std::pow(p.sigma_max / 0.01, 1.0 / (p.scales - 1));
    // Steps are published with two digits.
    EXPECT_NEAR(annealed_step(0.01, ratio, p.steps), p.step_lr, 0.05e-6);
    // Their scales overlap by 0.566 to 0.567, "about a half"; just a half needs 6 % fewer.
    EXPECT_NEAR(scale_overlap(ratio, p.dim), 0.5667, 0.0005);
    EXPECT_NEAR(scale_count(0.01, p.sigma_max, scale_ratio(p.dim)), p.scales / 1.0585,
                0.5 + 0.002 * p.scales);
    EXPECT_EQ(scale_count(0.01, p.sigma_max, ratio), p.scales);
  }
}

TEST(NoiseScales, SolveTheirEquations) {
  for (const std::int64_t dim : {5, 16, 784, 3072, 196'608}) {
    EXPECT_NEAR(scale_overlap(scale_ratio(dim), dim), 0.5, 1e-9) << dim;
    EXPECT_GT(scale_overlap(1.0, dim), 0.99);
  }
  // The variance against its recursion v <- (1 - u)^2 v + 2 u, the step against its neighbours.
  for (const int steps : {1, 3, 100})
    for (const double ratio : {1.02, 1.7}) {
      const double best = annealed_step(0.01, ratio, steps);
      for (const double factor : {0.8, 1.0, 1.25}) {
        const double u = factor * best / 1e-4;
        double variance = ratio * ratio;
        for (int i = 0; i < steps; ++i) variance = (1.0 - u) * (1.0 - u) * variance + 2.0 * u;
        EXPECT_NEAR(annealed_variance(factor * best, 0.01, ratio, steps), variance, 1e-12);
        EXPECT_GE(variance + 1e-12, annealed_variance(best, 0.01, ratio, steps)) << factor;
      }
    }
  EXPECT_EQ(scale_count(1.0, 8.0, 2.0), 4);
  EXPECT_EQ(scale_count(1.0, 1.1, 2.0), 2);
  expect_error({"at least 5"}, [] { scale_ratio(4); });
  expect_error({"sigma_min"}, [] { scale_count(1.0, 1.0, 2.0); });
  expect_error({"ratio"}, [] { scale_count(1.0, 2.0, NAN); });
  expect_error({"at least one"}, [] { annealed_step(0.01, 1.1, 0); });
}

TEST(NoiseScales, TheLargestDistanceIsThatOfAllPairs) {
  const auto images = random_dataset(9, 3);  // 1024 of 243 pixels
  const LargestDistance all = largest_distance(*images);
  std::vector<std::vector<std::uint8_t>> pixels(60, std::vector<std::uint8_t>(243));
  for (std::size_t i = 0; i < pixels.size(); ++i) images->read(static_cast<std::int64_t>(i), pixels[i]);
  double largest = 0.0;
  for (const auto& a : pixels)
    for (const auto& b : pixels) {
      double sum = 0.0;
      for (std::size_t e = 0; e < a.size(); ++e) sum += std::pow((a[e] - b[e]) / 255.0, 2);
      largest = std::max(largest, std::sqrt(sum));
    }
  EXPECT_EQ(all.images, 1024);
  EXPECT_TRUE(all.distance >= largest && all.distance < 1.5 * largest) << all.distance;
  /// The first images of a set.
  struct First final : Dataset {
    const Dataset& set;
    std::int64_t count;
    First(const Dataset& s, std::int64_t n) : set(s), count(n) {}
    std::int64_t size() const override { return count; }
    int height() const override { return set.height(); }
    int width() const override { return set.width(); }
    int channels() const override { return set.channels(); }
    int label(std::int64_t) const override { return -1; }
    int num_classes() const override { return 0; }
    const std::vector<std::string>& class_names() const override { return set.class_names(); }
    void read(std::int64_t i, std::span<std::uint8_t> out) const override { set.read(i, out); }
    bool is_in_memory() const override { return true; }
    std::string describe() const override { return ""; }
  };
  const LargestDistance some = largest_distance(First(*images, 60));
  EXPECT_EQ(some.images, 60);
  EXPECT_NEAR(some.distance, largest, 1e-12);
  const LargestDistance subset = largest_distance(*images, 100);
  EXPECT_EQ(subset.images, 100);
  EXPECT_TRUE(subset.distance <= all.distance && subset.distance > 0.8 * all.distance) << subset.distance;
  EXPECT_EQ(largest_distance(First(*images, 1)).distance, 0.0);
}

}  // namespace
}  // namespace sgm
