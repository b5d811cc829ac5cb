// Do samplers reach the distribution whose score they are given? Every SDE with every predictor and
// corrector, and the ODE, against a Gaussian mixture in the plane and against moments computed exactly.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "closed_form.h"
#include "sgm/sampling/sampler.h"

namespace sgm {
namespace {

// ---- A mixture of three Gaussians in the plane: uneven weights, separate modes, unequal widths ----

struct Component {
  double weight;
  std::array<double, 2> mean, std;
};
constexpr std::array<Component, 3> kMixture = {{
    {0.5, {1.5, 0.0}, {0.3, 0.5}},
    {0.3, {-1.2, 1.0}, {0.4, 0.2}},
    {0.2, {-0.5, -1.6}, {0.25, 0.25}},
}};

/// The mixture under the perturbation kernel at `at`.
std::array<Component, 3> perturbed(const Marginal& at, std::array<Component, 3> mixture = kMixture) {
  for (Component& component : mixture)
    for (std::size_t axis = 0; axis < 2; ++axis) {
      component.mean[axis] *= at.mean_coeff;
      component.std[axis] = std::hypot(at.mean_coeff * component.std[axis], at.std);
    }
  return mixture;
}

Marginal marginal(const SDE& sde, double t) { return {sde.mean_coeff(t), sde.marginal_std(t)}; }

/// Images are [N, H, W, 2]: every pixel is an independent point of the plane.
ScoreFn mixture_score(const SDE& sde, const std::array<Component, 3>& mixture = kMixture,
                      double scale = 1.0) {
  return [&sde, mixture, scale](const Tensor& x, std::span<const ImageTime> times) {
    std::vector<float> values = x.to_host();
    const std::size_t per_image = values.size() / times.size();
    for (std::size_t n = 0; n < times.size(); ++n) {
      const auto now = perturbed(marginal(sde, times[n].t), mixture);
      double log_weight[3];
      for (std::size_t k = 0; k < 3; ++k)
        log_weight[k] = std::log(now[k].weight / (now[k].std[0] * now[k].std[1]));
      for (std::size_t i = n * per_image; i < (n + 1) * per_image; i += 2) {
        double log_density[3], score[3][2];
        for (std::size_t k = 0; k < 3; ++k) {
          log_density[k] = log_weight[k];
          for (std::size_t axis = 0; axis < 2; ++axis) {
            const double u = (static_cast<double>(values[i + axis]) - now[k].mean[axis]) / now[k].std[axis];
            log_density[k] -= 0.5 * u * u;
            score[k][axis] = -u / now[k].std[axis];
          }
        }
        const double largest = *std::max_element(log_density, log_density + 3);
        double sum = 0.0, total[2] = {0.0, 0.0};
        for (std::size_t k = 0; k < 3; ++k) {
          const double density = std::exp(log_density[k] - largest);
          sum += density;
          for (std::size_t axis = 0; axis < 2; ++axis) total[axis] += density * score[k][axis];
        }
        for (std::size_t axis = 0; axis < 2; ++axis)
          values[i + axis] = static_cast<float>(scale * total[axis] / sum);
      }
    }
    return Tensor::from_host(x.context(), std::span<const float>(values), x.shape());
  };
}

/// Largest distance, over eight directions, between the empirical distribution of the points' projections and
/// that of the mixture's. NaN where a point is NaN.
double sliced_distance(const std::vector<float>& points, const std::array<Component, 3>& mixture) {
  double worst = 0.0;
  for (int direction = 0; direction < 8; ++direction) {
    const double angle = std::numbers::pi * direction / 8.0, ux = std::cos(angle), uy = std::sin(angle);
    std::vector<double> projected;
    for (std::size_t i = 0; i < points.size(); i += 2) {
      projected.push_back(ux * static_cast<double>(points[i]) + uy * static_cast<double>(points[i + 1]));
      if (std::isnan(projected.back())) return projected.back();
    }
    std::sort(projected.begin(), projected.end());
    const double n = static_cast<double>(projected.size());
    for (std::size_t i = 0; i < projected.size(); ++i) {
      double cdf = 0.0;
      for (const Component& c : mixture) {
        const double std = std::hypot(ux * c.std[0], uy * c.std[1]);
        cdf += 0.5 * c.weight *
               std::erfc((ux * c.mean[0] + uy * c.mean[1] - projected[i]) / (std * std::numbers::sqrt2));
      }
      const double below = static_cast<double>(i) / n;
      worst = std::max({worst, std::abs(cdf - below), std::abs(cdf - below - 1.0 / n)});
    }
  }
  return worst;
}

constexpr Shape kPoints = {64, 8, 8, 2};
constexpr double kCount = 4096.0;

/// Exact samples exceed this with probability at most 1e-3: 8 directions * 2 exp(-2 n d^2) = 1e-3 (Dvoretzky,
/// Kiefer, Wolfowitz with Massart's constant).
const double kCritical = std::sqrt(std::log(16.0 / 1e-3) / (2.0 * kCount));

/// Expects mean and covariance of the points to be the mixture's within five standard errors, plus `bias` of
/// the variances.
void expect_moments(const std::vector<float>& points, const std::array<Component, 3>& mixture, double bias) {
  double mean[2] = {0, 0}, covariance[3] = {0, 0, 0}, expected_mean[2] = {0, 0}, expected[3] = {0, 0, 0};
  for (const Component& c : mixture)
    for (std::size_t axis = 0; axis < 2; ++axis) expected_mean[axis] += c.weight * c.mean[axis];
  for (const Component& c : mixture) {
    const double dx = c.mean[0] - expected_mean[0], dy = c.mean[1] - expected_mean[1];
    expected[0] += c.weight * (c.std[0] * c.std[0] + dx * dx);
    expected[1] += c.weight * dx * dy;
    expected[2] += c.weight * (c.std[1] * c.std[1] + dy * dy);
  }
  for (std::size_t i = 0; i < points.size(); ++i) mean[i % 2] += static_cast<double>(points[i]) / kCount;
  for (std::size_t i = 0; i < points.size(); i += 2) {
    const double dx = static_cast<double>(points[i]) - mean[0],
                 dy = static_cast<double>(points[i + 1]) - mean[1];
    covariance[0] += dx * dx / kCount, covariance[1] += dx * dy / kCount, covariance[2] += dy * dy / kCount;
  }
  const double variance = std::max(expected[0], expected[2]);
  // Fourth moments of this mixture are below 3 variance^2, so that a covariance's standard error is below
  // sqrt(2 / n).
  for (int i = 0; i < 2; ++i)
    EXPECT_TRUE(std::abs(mean[i] - expected_mean[i]) <= 5.0 * std::sqrt(variance / kCount) + bias)
        << "mean " << i << ": " << mean[i] << " is not " << expected_mean[i];
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(std::abs(covariance[i] - expected[i]) <= variance * (5.0 * std::sqrt(2.0 / kCount) + bias))
        << "covariance " << i << ": " << covariance[i] << " is not " << expected[i];
}

std::vector<float> sample(Context& context, const SDE& sde, const SamplingConfig& config,
                          const ScoreFn& score, const NoiseSource& noise = {}) {
  SampleRequest request{.shape = kPoints, .seed = 20};
  request.noise = noise;
  return create_sampler(sde, config)->sample(context, score, request).x.to_host();
}

/// What a sampler must do: land on the mixture as it is at the SDE's smallest time.
void expect_mixture(const std::vector<float>& points, const SDE& sde) {
  const auto target = perturbed(marginal(sde, sde.sampling_eps()));
  const double distance = sliced_distance(points, target);
  EXPECT_TRUE(distance < kCritical) << distance;
  // Langevin steps of signal-to-noise ratio 0.16 overshoot variances by 0.16^2 = 2.6 %.
  expect_moments(points, target, 0.03);
}

TEST(Distribution, EveryPredictorAndCorrectorReachesTheMixture) {
  const auto context = create_context("cpu");
  for (const std::string& name : sde_names())
    for (const std::string& predictor : predictor_names())
      for (const std::string& corrector : corrector_names())
        for (const bool probability_flow : {false, true}) {
          // Without a predictor samples lag behind the schedule: see MomentsAreThoseOfTheLinearRecursion.
          if (predictor == "none" || !has_chain(name, predictor)) continue;
          if (probability_flow && predictor == "ancestral_sampling") continue;
          SCOPED_TRACE(name + ' ' + predictor + ' ' + corrector +
                       (probability_flow ? " probability flow" : ""));
          const auto sde = make_sde(name, 400);
          SamplingConfig config;
          config.predictor = predictor;
          config.corrector = corrector;
          config.probability_flow = probability_flow;
          config.denoise = false;
          expect_mixture(sample(*context, *sde, config, mixture_score(*sde)), *sde);
        }
}

TEST(Distribution, TheODEReachesTheMixture) {
  const auto context = create_context("cpu");
  for (const std::string& name : sde_names())
    for (const bool shared : {false, true}) {
      SCOPED_TRACE(name);
      const auto sde = make_sde(name, 400);
      SamplingConfig config;
      config.method = "ode";
      config.denoise = false;
      config.batch_mean_norms = shared;
      expect_mixture(sample(*context, *sde, config, mixture_score(*sde)), *sde);
    }
}

TEST(Distribution, ImagesOfOnePointNeedNormsOfTheBatch) {
  // Two numbers are too few for a norm: at a mode the score of one point vanishes, and its own Langevin step
  // would grow without bound. With the norms' means over the batch the corrector works there, too.
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 400);
  SamplingConfig config;
  config.denoise = false;
  SampleRequest request{.shape = {4096, 1, 1, 2}, .seed = 21};
  config.batch_mean_norms = true;
  expect_mixture(create_sampler(*sde, config)->sample(*context, mixture_score(*sde), request).x.to_host(),
                 *sde);
  config.batch_mean_norms = false;
  const std::vector<float> own =
      create_sampler(*sde, config)->sample(*context, mixture_score(*sde), request).x.to_host();
  EXPECT_FALSE(sliced_distance(own, kMixture) < kCritical);
}

TEST(Distribution, WrongSamplersAreFound) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vpsde", 400);
  SamplingConfig config;
  config.predictor = "euler_maruyama";
  config.denoise = false;
  const auto distance = [&](const ScoreFn& score, const NoiseSource& noise = {}) {
    return sliced_distance(sample(*context, *sde, config, score, noise), kMixture);
  };
  auto even = kMixture, moved = kMixture, wide = kMixture;
  for (Component& component : even) component.weight = 1.0 / 3.0;
  for (Component& component : moved) component.mean[0] += 0.1;
  for (Component& component : wide) component.std = {1.3 * component.std[0], 1.3 * component.std[1]};
  const auto noise_with = [](auto change) {
    return [change](Purpose purpose, std::uint32_t step, const Tensor&) {
      NoiseKey key{20, purpose, step, 0};
      change(key);
      return Noise{key, {}};
    };
  };
  for (const char* corrector : {"none", "langevin"}) {
    SCOPED_TRACE(corrector);
    config.corrector = corrector;
    EXPECT_TRUE(distance(mixture_score(*sde)) < kCritical);
    EXPECT_FALSE(distance(mixture_score(*sde, even)) < kCritical) << "even weights";
    EXPECT_FALSE(distance(mixture_score(*sde, moved)) < kCritical) << "moved modes";
    EXPECT_FALSE(distance(mixture_score(*sde, wide)) < kCritical) << "wide modes";
    EXPECT_FALSE(distance(mixture_score(*sde, kMixture, 0.5)) < kCritical) << "half a score";
    EXPECT_FALSE(distance(mixture_score(*sde, kMixture, 0.0)) < kCritical) << "score without data";
    EXPECT_FALSE(distance(mixture_score(*sde), noise_with([](NoiseKey& key) { key.step = 0; })) < kCritical)
        << "one noise";
    EXPECT_FALSE(distance(mixture_score(*sde), noise_with([](NoiseKey& key) { key.step /= 2; })) < kCritical)
        << "every second noise";
    EXPECT_FALSE(distance(elementwise_score([](double x, const ImageTime& time) {
                   return time.image == 63 ? NAN : -x;
                 })) < kCritical)
        << "not a number";
  }
}

// ---- Linear theory: with the score of N(m, s^2) every update is affine, and moments follow a recursion ----

constexpr double kScoreMean = 0.4, kVariance = 0.0625;  // of the golden score

Moments perturbed_moments(const SDE& sde, double t) {
  const Marginal at = marginal(sde, t);
  return {at.mean_coeff * kScoreMean, at.mean_coeff * at.mean_coeff * kVariance + at.std * at.std};
}

/// Of x after x <- a x + b score + c z.
Moments after(const Moments& x, const ReverseStep& step, const Moments& now) {
  const double pull = step.b / now.variance, factor = step.a - pull;
  return {factor * x.mean + pull * now.mean, factor * factor * x.variance + step.c * step.c};
}

/// The numbers of a predictor's step, found by feeding it ones and zeros.
ReverseStep probe(Context& context, const Predictor& predictor, const TimePoint& at) {
  const auto step = [&](double x, double score, double z) {
    const auto constant = [&](double value) { return Tensor::full(context, {1, 1}, value, DType::f64); };
    const ScoreFn score_fn = [&](const Tensor&, std::span<const ImageTime>) { return constant(score); };
    const NoiseSource noise = [&](Purpose, std::uint32_t, const Tensor&) { return Noise{{}, constant(z)}; };
    const std::vector<double> numbers = predictor.numbers(at);
    const std::vector<Coefficient> coefficients(numbers.begin(), numbers.end());
    return predictor
        .step(constant(x),
              Update{coefficients, false, [&](const Tensor& y) { return score_at(score_fn, y, at); },
                     [&](std::uint32_t, const Tensor& like) { return noise(Purpose::predictor, 0, like); }})
        .x.item();
  };
  return {step(1, 0, 0), step(0, 1, 0), step(0, 0, 1)};
}

/// Step size of a corrector at a scale. Langevin's comes from the norms' means over a batch of images with
/// many elements: |z|^2 / |score|^2 is then one over the mean square of the score.
double corrector_step(const SDE& sde, const SamplingConfig& config, const TimePoint& at, const Moments& x,
                      const Moments& now) {
  if (config.corrector == "none") return 0.0;
  const double offset = x.mean - now.mean, std = sde.marginal_std(at.t);
  const double scale =
      config.corrector == "ald" ? std * std : now.variance * now.variance / (x.variance + offset * offset);
  return 2.0 * sde.langevin_alpha(at) * config.snr * config.snr * scale;
}

Moments predicted_moments(Context& context, const SDE& sde, const SamplingConfig& config, int steps) {
  const auto predictor = create_predictor(sde, config, steps);
  Moments x{0.0, sde.prior_std() * sde.prior_std()};
  for (const TimePoint& at : sampling_grid(steps, sde.sampling_eps())) {
    const Moments now = perturbed_moments(sde, at.t);
    const double s = corrector_step(sde, config, at, x, now);
    x = after(x, {1.0, s, std::sqrt(2.0 * s)}, now);
    x = after(x, probe(context, *predictor, at), now);
  }
  return x;
}

TEST(Distribution, MomentsAreThoseOfTheLinearRecursion) {
  const auto context = create_context("cpu");
  for (const std::string& name : sde_names())
    for (const std::string& predictor : predictor_names())
      for (const std::string& corrector : corrector_names()) {
        if (!has_chain(name, predictor)) continue;
        SCOPED_TRACE(name + ' ' + predictor + ' ' + corrector);
        const auto sde = make_sde(name, 100);
        SamplingConfig config;
        config.predictor = predictor;
        config.corrector = corrector;
        config.denoise = false;
        config.batch_mean_norms = true;
        const std::vector<float> x = sample(*context, *sde, config, golden_score(*sde));
        const Moments expected = predicted_moments(*context, *sde, config, 100);
        const double n = static_cast<double>(x.size());
        Moments actual{0.0, 0.0};
        for (const float value : x) actual.mean += static_cast<double>(value) / n;
        for (const float value : x)
          actual.variance += std::pow(static_cast<double>(value) - actual.mean, 2) / n;
        EXPECT_TRUE(std::abs(actual.mean - expected.mean) <= 5.0 * std::sqrt(expected.variance / n))
            << actual.mean << " is not " << expected.mean;
        EXPECT_TRUE(std::abs(actual.variance / expected.variance - 1.0) <= 5.0 * std::sqrt(2.0 / n))
            << actual.variance << " is not " << expected.variance;
      }
}

TEST(Distribution, PredictorsConvergeWithTheFirstOrder) {
  const auto context = create_context("cpu");
  for (const std::string& name : sde_names())
    for (const std::string& predictor : predictor_names())
      for (const bool probability_flow : {false, true}) {
        if (predictor == "none" || !has_chain(name, predictor)) continue;
        if (probability_flow && predictor == "ancestral_sampling") continue;
        SCOPED_TRACE(name + ' ' + predictor + (probability_flow ? " probability flow" : ""));
        double variance[3];
        for (const int level : {0, 1, 2}) {
          const int steps = 1000 << level;
          const auto sde = make_sde(name, steps);
          SamplingConfig config;
          config.predictor = predictor;
          config.corrector = "none";
          config.probability_flow = probability_flow;
          variance[level] = predicted_moments(*context, *sde, config, steps).variance;
        }
        // Halving the step halves the distance to the limit.
        const double ratio = (variance[0] - variance[1]) / (variance[1] - variance[2]);
        EXPECT_TRUE(std::abs(ratio - 2.0) < 0.2) << ratio;
      }
}

}  // namespace
}  // namespace sgm
