// Sampling where a part of every image is known: against the original implementation, and against Gaussians
// of which everything is known.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "closed_form.h"
#include "expect_error.h"
#include "sgm/sampling/sampler.h"

namespace sgm {
namespace {

// ---- Against the original implementation ----

constexpr std::size_t kSide = 4, kPixels = kSide * kSide;

/// f(element) of images [2, 3, 4, 4] in the original's order, as [2, 4, 4, 3].
template <class F>
std::vector<float> from_original_order(F&& f) {
  std::vector<float> values;
  for (std::size_t image = 0; image < 2; ++image)
    for (std::size_t pixel = 0; pixel < kPixels; ++pixel)
      for (std::size_t channel = 0; channel < 3; ++channel)
        values.push_back(static_cast<float>(f((image * 3 + channel) * kPixels + pixel)));
  return values;
}

Tensor batch(Context& context, const std::vector<float>& values) {
  return Tensor::from_host(context, std::span<const float>(values), {2, kSide, kSide, 3});
}

/// The original draws the noise of what is known in its basis of colours: grey, and two of no brightness.
std::vector<float> out_of_colour_basis(const std::vector<float>& z) {
  const double s3 = std::sqrt(3.0), s6 = std::sqrt(6.0), s2 = std::sqrt(2.0);
  const double basis[3][3] = {{1 / s3, 1 / s3, 1 / s3}, {-2 / s6, 1 / s6, 1 / s6}, {0, 1 / s2, -1 / s2}};
  std::vector<float> colours(z.size());
  for (std::size_t i = 0; i < z.size(); ++i) {
    double sum = 0.0;
    for (std::size_t c = 0; c < 3; ++c) sum += basis[c][i % 3] * static_cast<double>(z[i - i % 3 + c]);
    colours[i] = static_cast<float>(sum);
  }
  return colours;
}

TEST(Constraints, EqualTheOriginalImplementation) {
  const auto context = create_context("cpu");
  const nlohmann::json golden = golden_file("controllable.json");
  const Tensor data = batch(*context, from_original_order([](std::size_t e) {
    return 0.4 + 0.2 * std::sin(0.9 * static_cast<double>(e) + 0.3);
  }));
  const std::vector<float> two_columns = {1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0};
  const Tensor mask = Tensor::from_host(*context, std::span<const float>(two_columns), {kSide, kSide});
  int compared = 0;
  for (const auto& [key, expected] : golden.items()) {
    SCOPED_TRACE(key);
    const bool is_ve = key.ends_with("/VE"), colorizes = key.starts_with("colorize");
    const auto sde = make_sde(is_ve ? "vesde" : "vpsde", 50);
    SamplingConfig config;
    config.predictor = is_ve ? "reverse_diffusion" : "euler_maruyama";
    config.corrector = is_ve ? "langevin" : "none";
    config.eps = 1e-5;
    config.batch_mean_norms = true;
    SampleRequest request{.shape = data.shape()};
    const ConstraintOptions original{.reference_compat = true};
    request.constraint =
        colorizes ? colorization(*sde, data, original) : inpainting(*sde, data, mask, original);
    const std::uint32_t per_scale = is_ve ? 4 : 3;
    request.noise = [&](Purpose purpose, std::uint32_t step, const Tensor& like) {
      std::uint32_t call = 0;
      if (purpose == Purpose::corrector) call = 1 + step * per_scale;
      if (purpose == Purpose::predictor) call = (step + 1) * per_scale - 1;
      // Draw 0 is that of the start, where the original leaves the known part clean.
      if (purpose == Purpose::constraint && step > 0)
        call = (step - 1) / 2 * per_scale + ((step - 1) % 2 == 0 ? per_scale - 2 : per_scale);
      const std::vector<float> drawn = golden_noise(call, like).to_host();
      std::vector<float> z = from_original_order([&](std::size_t e) { return drawn[e]; });
      if (colorizes && purpose == Purpose::constraint) z = out_of_colour_basis(z);
      return Noise{{}, batch(*context, z)};
    };
    const std::vector<double> there = expected;
    const std::vector<float> in_order = from_original_order([&](std::size_t e) { return there[e]; });
    const Tensor x = create_sampler(*sde, config)->sample(*context, golden_score(*sde), request).x;
    expect_all_near(x.to_host(), std::vector<double>(in_order.begin(), in_order.end()), 1e-4);
    // Nothing of this compatibility is left in the default.
    request.constraint = colorizes ? colorization(*sde, data) : inpainting(*sde, data, mask);
    const std::vector<float> other =
        create_sampler(*sde, config)->sample(*context, golden_score(*sde), request).x.to_host();
    double difference = 0.0;
    for (std::size_t i = 0; i < other.size(); ++i)
      difference = std::max(difference, static_cast<double>(std::abs(other[i] - in_order[i])));
    EXPECT_TRUE(difference > 1e-3) << difference;
    ++compared;
  }
  EXPECT_EQ(compared, 4);
}

// ---- Correlated Gaussian pairs: of every two pixels of a row the first is known ----

constexpr double kPairMean[2] = {0.4, 0.2}, kStd[2] = {0.5, 0.3}, kCorrelation = 0.8, kKnown = 1.0;
constexpr std::int64_t kImages = 64, kPairs = 64;  // pairs in an image
constexpr double kPointCount = kImages * kPairs;

struct Precision {
  double known, both, unknown;
};

/// Inverse of a^2 covariance + std^2 I.
Precision precision(const Marginal& at) {
  const double a2 = at.mean_coeff * at.mean_coeff, noise = at.std * at.std;
  const double p = a2 * kStd[0] * kStd[0] + noise, q = a2 * kCorrelation * kStd[0] * kStd[1],
               r = a2 * kStd[1] * kStd[1] + noise, determinant = p * r - q * q;
  return {r / determinant, -q / determinant, p / determinant};
}

Marginal marginal(const SDE& sde, const TimePoint& at) {
  return {sde.mean_coeff(at.t), sde.marginal_std(at.t)};
}

using Watch = std::function<void(const std::vector<float>& x, const TimePoint& at)>;

/// The exact score of the pairs. `watch` sees every batch for which it is asked.
ScoreFn pair_score(const SDE& sde, const Watch& watch = {}) {
  return [&sde, watch](const Tensor& x, std::span<const ImageTime> times) {
    std::vector<float> values = x.to_host();
    if (watch) watch(values, times[0]);
    const std::size_t per_image = values.size() / times.size();
    for (std::size_t n = 0; n < times.size(); ++n) {
      const Marginal at = marginal(sde, times[n]);
      const Precision p = precision(at);
      for (std::size_t i = n * per_image; i < (n + 1) * per_image; i += 2) {
        const double u = static_cast<double>(values[i]) - at.mean_coeff * kPairMean[0],
                     v = static_cast<double>(values[i + 1]) - at.mean_coeff * kPairMean[1];
        values[i] = static_cast<float>(-p.known * u - p.both * v);
        values[i + 1] = static_cast<float>(-p.both * u - p.unknown * v);
      }
    }
    return Tensor::from_host(x.context(), std::span<const float>(values), x.shape());
  };
}

/// [N, pairs, 2, 1] and the mask of the first of each two.
SampleRequest pair_request(Context& context, const SDE& sde) {
  SampleRequest request{.shape = {kImages, kPairs, 2, 1}, .seed = 31};
  std::vector<float> first(2 * kPairs, 0.0f);
  for (std::size_t i = 0; i < first.size(); i += 2) first[i] = 1.0f;
  request.constraint = inpainting(sde, Tensor::full(context, request.shape, kKnown),
                                  Tensor::from_host(context, std::span<const float>(first), {kPairs, 2}));
  return request;
}

/// Of every second number, from `first` on.
Moments moments(const std::vector<float>& x, std::size_t first) {
  Moments result{0.0, 0.0};
  for (std::size_t i = first; i < x.size(); i += 2) result.mean += static_cast<double>(x[i]) / kPointCount;
  for (std::size_t i = first; i < x.size(); i += 2)
    result.variance += std::pow(static_cast<double>(x[i]) - result.mean, 2) / kPointCount;
  return result;
}

/// Within five standard errors.
void expect_moments(const Moments& actual, const Moments& expected) {
  EXPECT_TRUE(std::abs(actual.mean - expected.mean) <= 5.0 * std::sqrt(expected.variance / kPointCount))
      << "mean " << actual.mean << " is not " << expected.mean;
  EXPECT_TRUE(std::abs(actual.variance / expected.variance - 1.0) <= 5.0 * std::sqrt(2.0 / kPointCount))
      << "variance " << actual.variance << " is not " << expected.variance;
}

/// The unknown pixel after x <- a x + b score + c z beside a known one that is N(a_t known, std_t^2) at the
/// step's time and independent of it.
Moments after(const Moments& x, const ReverseStep& step, const Marginal& at) {
  const Precision p = precision(at);
  const double factor = step.a - step.b * p.unknown, pull = step.b * p.both;
  const double offset = at.mean_coeff * (kKnown - kPairMean[0]);
  return {factor * x.mean + step.b * p.unknown * at.mean_coeff * kPairMean[1] - pull * offset,
          factor * factor * x.variance + pull * pull * at.std * at.std + step.c * step.c};
}

Moments predicted(const SDE& sde, const SamplingConfig& config, int steps) {
  const auto predictor = create_predictor(sde, config, steps);
  const auto corrector = create_corrector(sde, config, steps);
  Moments x{0.0, sde.prior_std() * sde.prior_std()};
  for (const TimePoint& at : sampling_grid(steps, sde.sampling_eps())) {
    const std::vector<double> corrected = corrector->numbers(at), stepped = predictor->numbers(at);
    if (!corrected.empty()) x = after(x, {1.0, corrected[0], corrected[1]}, marginal(sde, at));
    if (!stepped.empty()) x = after(x, {stepped[0], stepped[1], stepped[2]}, marginal(sde, at));
  }
  return x;
}

/// The unknown pixel given the known one.
Moments exact_conditional() {
  return {kPairMean[1] + kCorrelation * kStd[1] / kStd[0] * (kKnown - kPairMean[0]),
          kStd[1] * kStd[1] * (1.0 - kCorrelation * kCorrelation)};
}

TEST(Constraints, MomentsAreThoseOfTheLinearRecursion) {
  const auto context = create_context("cpu");
  for (const std::string& name : sde_names())
    for (const std::string& predictor : predictor_names())
      for (const char* corrector : {"none", "ald"}) {
        if (!has_chain(name, predictor)) continue;
        SCOPED_TRACE(name + ' ' + predictor + ' ' + corrector);
        const auto sde = make_sde(name, 60);
        SamplingConfig config;
        config.predictor = predictor;
        config.corrector = corrector;
        config.denoise = false;
        const std::vector<float> x = create_sampler(*sde, config)
                                         ->sample(*context, pair_score(*sde), pair_request(*context, *sde))
                                         .x.to_host();
        expect_moments(moments(x, 1), predicted(*sde, config, 60));
        const Marginal last{sde->mean_coeff(sde->sampling_eps()), sde->marginal_std(sde->sampling_eps())};
        expect_moments(moments(x, 0), {last.mean_coeff * kKnown, last.std * last.std});
      }
}

TEST(Constraints, TheKnownPartHasTheNoiseOfTheTime) {
  const auto context = create_context("cpu");
  for (const std::string& name : sde_names())
    for (const std::string method : {"pc", "annealed_langevin"}) {
      if (method != "pc" && name != "vesde") continue;
      SCOPED_TRACE(name + ' ' + method);
      // So few scales that the noise of the scale before would be found.
      const auto sde = make_sde(name, 25);
      SamplingConfig config;
      config.method = method;
      int seen = 0;
      const ScoreFn score = pair_score(*sde, [&](const std::vector<float>& x, const TimePoint& time) {
        const Marginal at = marginal(*sde, time);
        expect_moments(moments(x, 0), {at.mean_coeff * kKnown, at.std * at.std});
        ++seen;
      });
      config.denoise = false;
      create_sampler(*sde, config)->sample(*context, score, pair_request(*context, *sde));
      EXPECT_EQ(seen, method == "pc" ? 50 : 25);
    }
}

TEST(Constraints, CorrectorsLeadToTheExactConditional) {
  // Predictors alone follow the score of the known part under noise, which knows less than the part itself:
  // the mean stays 0.35 standard deviations away. Correctors forget that on the way.
  const Moments exact = exact_conditional();
  const double std = std::sqrt(exact.variance);
  SamplingConfig config;
  config.denoise = false;
  const auto error = [&](const char* corrector, int steps) {
    config.corrector = corrector;
    return (predicted(*make_sde("vesde", steps), config, steps).mean - exact.mean) / std;
  };
  EXPECT_NEAR(error("none", 1000), -0.35, 0.01);
  EXPECT_NEAR(error("none", 16000), -0.35, 0.01);
  EXPECT_NEAR(error("ald", 250), -0.185, 0.01);
  EXPECT_NEAR(error("ald", 1000), -0.066, 0.005);
  EXPECT_NEAR(error("ald", 16000), 0.0, 0.01);
  const double variance = predicted(*make_sde("vesde", 16000), config, 16000).variance;
  EXPECT_NEAR(variance / exact.variance, 1.0, 0.01);

  // Samples, with Langevin steps and with NCSN's sampler.
  const auto context = create_context("cpu");
  const auto expect_near_exact = [&](const SDE& sde) {
    const Moments x = moments(create_sampler(sde, config)
                                  ->sample(*context, pair_score(sde), pair_request(*context, sde))
                                  .x.to_host(),
                              1);
    EXPECT_NEAR(x.mean, exact.mean, 0.15 * std);
    EXPECT_NEAR(x.variance / exact.variance, 1.0, 0.15);
  };
  config.corrector = "langevin";
  config.n_steps_each = 2;
  expect_near_exact(*make_sde("vesde", 500));
  config.method = "annealed_langevin";
  config.n_steps_each = 10;
  expect_near_exact(*make_sde("vesde", 60));
}

// ---- What holds for every sampler that takes constraints ----

/// Values of images that differ from each other.
std::vector<float> wave(std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = 0.5f + 0.4f * std::sin(0.7f * static_cast<float>(i));
  return values;
}

constexpr std::size_t kSize = 3 * 3 * 3;  // elements of an image
const std::vector<float> kCorner = {1, 1, 0, 1, 0, 0, 0, 0, 0};

/// Images first .. first + n - 1 of a set, completed or coloured.
std::vector<float> completed(Context& context, const SDE& sde, const SamplingConfig& config, bool colorizes,
                             std::uint32_t first, std::int64_t n) {
  SampleRequest request{.shape = {n, 3, 3, 3}, .seed = 9, .first_sample = first};
  const std::vector<float> all = wave(7 * kSize);
  const Tensor data = Tensor::from_host(
      context, std::span(all).subspan(first * kSize, static_cast<std::size_t>(n) * kSize), request.shape);
  const Tensor mask = Tensor::from_host(context, std::span<const float>(kCorner), {3, 3});
  request.constraint = colorizes ? colorization(sde, data) : inpainting(sde, data, mask);
  return create_sampler(sde, config)->sample(context, golden_score(sde), request).x.to_host();
}

TEST(Constraints, HoldForEverySamplerAndDoNotDependOnTheBatch) {
  const auto context = create_context("cpu");
  std::vector<SamplingConfig> settings;
  for (const std::string& predictor : predictor_names())
    for (const std::string& corrector : corrector_names()) {
      settings.emplace_back();
      settings.back().predictor = predictor;
      settings.back().corrector = corrector;
    }
  settings.emplace_back();
  settings.back().method = "annealed_langevin";
  const std::vector<float> data = wave(7 * kSize);
  for (const std::string& name : sde_names())
    for (const SamplingConfig& config : settings)
      for (const bool colorizes : {false, true}) {
        if (!has_chain(name, config.predictor) || (config.method != "pc" && name != "vesde")) continue;
        SCOPED_TRACE(name + ' ' + config.method + ' ' + config.predictor + ' ' + config.corrector);
        const auto sde = make_sde(name, 25);
        const std::vector<float> all = completed(*context, *sde, config, colorizes, 0, 7);
        for (std::size_t pixel = 0; pixel < all.size() / 3; ++pixel) {
          double known = 0.0, expected = 0.0;
          for (std::size_t i = 3 * pixel; i < 3 * pixel + 3; ++i) {
            ASSERT_TRUE(std::isfinite(all[i]));
            EXPECT_EQ(all[i] == data[i], !colorizes && kCorner[pixel % 9] != 0.0f) << i;
            known += static_cast<double>(all[i]) / 3.0, expected += static_cast<double>(data[i]) / 3.0;
          }
          EXPECT_TRUE(!colorizes || std::abs(known - expected) < 1e-4) << known << ' ' << expected;
        }
        for (const auto& [first, n] : {std::pair<std::uint32_t, std::int64_t>{0, 1}, {6, 1}, {2, 4}}) {
          const std::vector<float> part = completed(*context, *sde, config, colorizes, first, n);
          EXPECT_EQ(0, std::memcmp(part.data(), all.data() + first * kSize, part.size() * sizeof(float)));
        }
      }
}

TEST(Constraints, DenoisingLeavesNoNoiseInTheUnknownPart) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vpsde", 30);
  SamplingConfig config;
  config.predictor = "ancestral_sampling";
  const auto sample = [&](bool denoise) {
    config.denoise = denoise;
    return completed(*context, *sde, config, false, 0, 2);
  };
  const std::vector<float> noisy = sample(false), mean = sample(true);
  const double last = sde->ancestral({1e-3, 0, 30}).c;
  const std::vector<float> z =
      normal(*context, {2, 3, 3, 3}, NoiseKey{9, Purpose::predictor, 29, 0}).to_host();
  for (std::size_t i = 0; i < z.size(); ++i) {
    if (kCorner[i / 3 % 9] != 0.0f) continue;
    EXPECT_NEAR(static_cast<double>(noisy[i] - mean[i]), last * static_cast<double>(z[i]), 1e-6);
  }
}

TEST(Constraints, OneImageHasManyCompletions) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 25);
  SampleRequest request{.shape = {2, 1, 2, 1}};
  const std::vector<float> left = {1, 0}, pixels = {0.25f, 0.75f, 0.25f, 0.75f};
  request.constraint =
      inpainting(*sde, Tensor::from_host(*context, std::span<const float>(pixels), request.shape),
                 Tensor::from_host(*context, std::span<const float>(left), {1, 2, 1}));
  const std::vector<float> x =
      create_sampler(*sde, {})->sample(*context, golden_score(*sde), request).x.to_host();
  EXPECT_EQ(x[0], 0.25f);
  EXPECT_EQ(x[2], 0.25f);
  EXPECT_NE(x[1], x[3]);
}

TEST(Constraints, TheStartHoldsWhatIsKnownUnderNoise) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 25);
  const std::vector<float> left = {1, 0}, pixels = {0.25f, 0.75f}, draws = {0.5f, 0.5f};
  const auto image = [&](const std::vector<float>& values) {
    return Tensor::from_host(*context, std::span<const float>(values), {1, 1, 2, 1});
  };
  const auto constraint =
      inpainting(*sde, image(pixels), Tensor::from_host(*context, std::span<const float>(left), {1, 2}));
  const std::vector<Coefficient> numbers = {2.0, 3.0};
  const Tensor prior = image({7.0f, 8.0f});
  EXPECT_EQ(constraint->start(prior, numbers, Noise{{}, image(draws)}).to_host(),
            (std::vector<float>{2.0f * 0.25f + 3.0f * 0.5f, 8.0f}));
}

TEST(Constraints, DiscreteModelsGetTheNoiseOfTheirChain) {
  const auto vp = make_sde("vpsde", 50);
  const auto context = create_context("cpu");
  const std::vector<float> left = {1, 0};
  const Tensor data = Tensor::full(*context, {1, 1, 2, 1}, 0.5),
               mask = Tensor::from_host(*context, std::span<const float>(left), {1, 2});
  const TimePoint next{0.4, 19, 50}, updated{0.42, 20, 50};
  const Marginal chain = vp->discrete_marginal(19, 50);
  EXPECT_EQ(inpainting(*vp, data, mask, {.discrete = true})->numbers(next, updated),
            (std::vector<double>{chain.mean_coeff, chain.std}));
  EXPECT_EQ(inpainting(*vp, data, mask)->numbers(next, updated),
            (std::vector<double>{vp->mean_coeff(0.4), vp->marginal_std(0.4)}));
  EXPECT_EQ(inpainting(*vp, data, mask, {.reference_compat = true})->numbers(next, updated),
            (std::vector<double>{vp->mean_coeff(0.42), vp->marginal_std(0.42)}));
}

TEST(Constraints, RefuseWhatDoesNotFit) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 20);
  const Tensor data = Tensor::full(*context, {2, 2, 3, 3}, 0.5);
  const auto refused = [&](const char* part, std::vector<float> mask, Shape shape) {
    expect_error({part}, [&] {
      inpainting(*sde, data, Tensor::from_host(*context, std::span<const float>(mask), shape));
    });
  };
  refused("[2, 3]", std::vector<float>(4, 1), {2, 2});
  refused("[2, 3, 3]", std::vector<float>(12, 1), {2, 3, 2});
  refused("everything", std::vector<float>(6, 1), {2, 3});
  refused("nothing", std::vector<float>(18, 0), {2, 3, 3});
  refused("0.5", {1, 0, 0.5f, 0, 0, 0}, {2, 3});
  refused("got nan", {1, 0, NAN, 0, 0, 0}, {2, 3});
  expect_error({"f32"}, [&] { inpainting(*sde, data.to(DType::f64), data); });
  expect_error({"one channel"}, [&] { colorization(*sde, Tensor::zeros(*context, {1, 2, 2, 1})); });
  SampleRequest request{.shape = {3, 2, 3, 3}};
  request.constraint = colorization(*sde, data);
  expect_error({"constraint", "[3, 2, 3, 3]"},
               [&] { create_sampler(*sde, {})->sample(*context, golden_score(*sde), request); });
}

}  // namespace
}  // namespace sgm
