// Predictor-corrector sampling: against the original implementation with its noise injected, and the promises
// of the sampler interface.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "closed_form.h"
#include "expect_error.h"
#include "sgm/sampling/sampler.h"

namespace sgm {
namespace {

/// A golden case such as "VE/rd/lang/n2/pf" or "VP/discrete/anc/lang".
struct Case {
  std::string sde;
  SamplingConfig sampling;
  bool discrete = false;
};

Case parse(const std::string& key) {
  static const std::map<std::string, std::string> words{{"VE", "vesde"},
                                                        {"VP", "vpsde"},
                                                        {"subVP", "subvpsde"},
                                                        {"em", "euler_maruyama"},
                                                        {"rd", "reverse_diffusion"},
                                                        {"anc", "ancestral_sampling"},
                                                        {"none", "none"},
                                                        {"lang", "langevin"},
                                                        {"ald", "ald"}};
  std::vector<std::string> parts;
  std::istringstream stream(key);
  for (std::string part; std::getline(stream, part, '/');) parts.push_back(part);
  Case result;
  result.discrete = parts.at(1) == "discrete";
  if (result.discrete) parts.erase(parts.begin() + 1);
  result.sde = words.at(parts.at(0));
  result.sampling.predictor = words.at(parts.at(1));
  result.sampling.corrector = words.at(parts.at(2));
  result.sampling.n_steps_each = parts.size() > 3 ? std::stoi(parts[3].substr(1)) : 1;
  result.sampling.probability_flow = parts.size() > 4;
  result.sampling.batch_mean_norms = true;
  return result;
}

/// The golden noise in the original's order of draws: the prior, then at every scale n for a corrector and
/// one for a predictor, which draws also where it has no use for noise.
NoiseSource golden_draws(const SamplingConfig& config) {
  const std::uint32_t n = static_cast<std::uint32_t>(config.n_steps_each);
  const std::uint32_t of_corrector = config.corrector == "none" ? 0 : n;
  const std::uint32_t per_scale = of_corrector + (config.predictor == "none" ? 0 : 1);
  return [=](Purpose purpose, std::uint32_t step, const Tensor& like) {
    std::uint32_t call = 0;
    if (purpose == Purpose::corrector) call = 1 + step / n * per_scale + step % n;
    if (purpose == Purpose::predictor) call = 1 + step * per_scale + of_corrector;
    return Noise{{}, golden_noise(call, like)};
  };
}

/// How far one rounding of t to float32, as in the original, moves a case's result.
double effect_of_rounding(const Sampler& sampler, Context& context, const SDE& sde, bool discrete,
                          const SampleRequest& request, const std::vector<float>& x) {
  const ScoreFn rounded = [&](const Tensor& batch, std::span<const ImageTime> times) {
    std::vector<ImageTime> floats(times.begin(), times.end());
    for (ImageTime& time : floats) time.t = static_cast<double>(static_cast<float>(time.t));
    return golden_score(sde, discrete)(batch, floats);
  };
  const std::vector<float> other = sampler.sample(context, rounded, request).x.to_host();
  double effect = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i)
    effect = std::max(effect, static_cast<double>(std::abs(x[i] - other[i])));
  return effect;
}

TEST(PCSampler, EqualsTheOriginalImplementation) {
  constexpr int kScales = 50;
  const auto context = create_context("cpu");
  int compared = 0, refused = 0, extended = 0;
  const nlohmann::json json = golden_file("pc_samplers.json");
  for (const auto& [key, expected] : json.items()) {
    if (key == "about") continue;
    SCOPED_TRACE(key);
    const Case c = parse(key);
    const auto sde = make_sde(c.sde, kScales);
    SampleRequest request{.shape = {2, 4, 4, 3}};
    request.noise = golden_draws(c.sampling);
    if (expected.contains("error") && c.sampling.predictor == "ancestral_sampling") {
      expect_error({"ancestral_sampling"}, [&] { create_sampler(*sde, c.sampling); });
      ++refused;
      continue;
    }
    const auto sampler = create_sampler(*sde, c.sampling);
    const SampleResult result = sampler->sample(*context, golden_score(*sde, c.discrete), request);
    const std::vector<float> x = result.x.to_host();
    if (expected.contains("error")) {  // correctors for sub-VP, which the original lacks
      for (const float value : x) ASSERT_TRUE(std::isfinite(value));
      ++extended;
      continue;
    }
    // One chain amplifies roundings 10^5-fold: two Langevin steps a scale where the score almost vanishes.
    const double effect = effect_of_rounding(*sampler, *context, *sde, c.discrete, request, x);
    EXPECT_TRUE(effect < (key == "VE/rd/lang/n2" ? 1e-2 : 2e-5)) << effect;
    expect_all_near(x, expected["x"], std::max(1e-4, effect));
    ++compared;
    // The original reports (n + 1) per scale whatever ran; this is what ran.
    const std::int64_t per_scale = (c.sampling.corrector == "none" ? 0 : c.sampling.n_steps_each) +
                                   (c.sampling.predictor == "none" ? 0 : 1);
    EXPECT_EQ(result.nfe, std::vector<std::int64_t>(2, per_scale * kScales));
  }
  EXPECT_EQ(compared, 38);
  EXPECT_EQ(refused, 3);
  EXPECT_EQ(extended, 9);
}

TEST(PCSampler, AnImageDoesNotDependOnItsBatch) {
  const auto context = create_context("cpu");
  for (const std::string& sde_name : sde_names())
    for (const std::string& predictor : predictor_names())
      for (const std::string& corrector : corrector_names()) {
        if (sde_name == "subvpsde" && predictor == "ancestral_sampling") continue;
        SCOPED_TRACE(sde_name + ' ' + predictor + ' ' + corrector);
        const auto sde = make_sde(sde_name, 25);
        SamplingConfig config;
        config.predictor = predictor;
        config.corrector = corrector;
        const auto sampler = create_sampler(*sde, config);
        const auto run = [&](std::uint32_t first, std::int64_t n, std::uint64_t seed) {
          SampleRequest request{.shape = {n, 3, 3, 1}, .seed = seed, .first_sample = first};
          return sampler->sample(*context, golden_score(*sde), request).x.to_host();
        };
        const std::vector<float> all = run(0, 64, 5);
        for (const float value : all) ASSERT_TRUE(std::isfinite(value));
        for (const auto& [first, n] :
             {std::pair<std::uint32_t, std::int64_t>{0, 1}, {63, 1}, {11, 7}, {57, 7}}) {
          const std::vector<float> part = run(first, n, 5);
          EXPECT_EQ(0, std::memcmp(part.data(), all.data() + 9 * first, part.size() * sizeof(float)));
        }
        EXPECT_NE(run(0, 1, 6)[0], all[0]) << "another seed, another image";
      }
}

TEST(PCSampler, BatchMeanNormsCoupleTheBatch) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 25);
  SamplingConfig config;
  config.batch_mean_norms = true;
  const auto sampler = create_sampler(*sde, config);
  const auto first = [&](std::int64_t n) {
    return sampler->sample(*context, golden_score(*sde), {.shape = {n, 3, 3, 1}, .seed = 5}).x.to_host()[0];
  };
  EXPECT_NE(first(1), first(7));
}

TEST(PCSampler, WalksTheGridDownToEps) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vpsde", 1000);
  SamplingConfig config;
  config.steps = 40;
  config.eps = 0.02;
  config.n_steps_each = 2;
  std::vector<TimePoint> asked;
  const ScoreFn score = [&](const Tensor& x, std::span<const ImageTime> times) {
    EXPECT_EQ(times.size(), 3u);
    EXPECT_EQ(times[2].image, 2);
    for (const ImageTime& time : times) EXPECT_EQ(time.k, times[0].k);
    asked.push_back(times[0]);
    return golden_score(*sde)(x, times);
  };
  const SampleResult result = create_sampler(*sde, config)->sample(*context, score, {.shape = {3, 2, 2, 1}});
  ASSERT_EQ(asked.size(), 120u);
  EXPECT_EQ(result.nfe, std::vector<std::int64_t>(3, 120));
  EXPECT_EQ(asked.front().t, 1.0);
  EXPECT_EQ(asked.back().t, 0.02);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    EXPECT_EQ(asked[i].k, 39 - static_cast<int>(i / 3));
    EXPECT_EQ(asked[i].num_scales, 40);
    EXPECT_NEAR(asked[i].t, 1.0 - 0.98 * static_cast<double>(i / 3) / 39.0, 1e-15);
  }
  for (const int steps : {2, 3, 1000}) {
    const std::vector<TimePoint> grid = sampling_grid(steps, 1e-5);
    EXPECT_EQ(grid.size(), static_cast<std::size_t>(steps));
    EXPECT_EQ(grid.front().t, 1.0);
    EXPECT_EQ(grid.back().t, 1e-5);
    EXPECT_EQ(grid.back().k, 0);
  }
}

TEST(PCSampler, DenoisingReturnsTheLastMean) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vpsde", 30);
  SamplingConfig config;
  config.predictor = "ancestral_sampling";
  const auto sample = [&](bool denoise) {
    config.denoise = denoise;
    return create_sampler(*sde, config)
        ->sample(*context, golden_score(*sde), {.shape = {2, 3, 3, 1}, .seed = 8})
        .x;
  };
  const std::vector<float> noisy = sample(false).to_host(), mean = sample(true).to_host();
  const ReverseStep step = sde->ancestral({1e-3, 0, 30});
  const std::vector<float> z =
      normal(*context, {2, 3, 3, 1}, NoiseKey{8, Purpose::predictor, 29, 0}).to_host();
  for (std::size_t i = 0; i < z.size(); ++i)
    EXPECT_NEAR(noisy[i] - mean[i], step.c * static_cast<double>(z[i]), 1e-6);
}

TEST(PCSampler, StartsFromTheLatentOrThePrior) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 20);
  SamplingConfig config;
  config.predictor = config.corrector = "none";
  const auto sampler = create_sampler(*sde, config);
  SampleRequest request{.shape = {3, 2, 2, 1}, .seed = 3, .first_sample = 4};
  const ScoreFn never = [](const Tensor&, std::span<const ImageTime>) -> Tensor {
    fail("no score is needed");
  };
  const SampleResult prior = sampler->sample(*context, never, request);
  EXPECT_EQ(prior.x.to_host(),
            normal(*context, request.shape, NoiseKey{3, Purpose::prior, 0, 4}, 50.0).to_host());
  EXPECT_EQ(prior.nfe, std::vector<std::int64_t>(3, 0));
  request.latent = Tensor::full(*context, request.shape, 0.25);
  EXPECT_EQ(sampler->sample(*context, never, request).x.to_host(), std::vector<float>(12, 0.25f));
}

/// Sets every element to seven and notes for which times.
class Sevens final : public Constraint {
 public:
  std::vector<double> numbers(const TimePoint& next, const TimePoint& updated) const override {
    return {next.t, updated.t};
  }
  State impose(const State& state, std::span<const Coefficient> numbers, const Noise& noise) const override {
    EXPECT_EQ(state.x_mean.defined(), calls >= 39) << "means are made for the last step only";
    EXPECT_EQ(noise.key.purpose, Purpose::constraint);
    const std::uint32_t draw = noise.key.step + (noise.key.step_from ? *noise.key.step_from : 0);
    EXPECT_EQ(draw, static_cast<std::uint32_t>(calls));
    times.push_back(numbers[0].per_image().defined() ? numbers[0].per_image().to_host_f64()[1]
                                                     : numbers[0].value());
    ++calls;
    const Tensor seven = Tensor::full(state.x.context(), state.x.shape(), 7.0);
    return {seven, state.x_mean.defined() ? seven : Tensor()};
  }
  mutable int calls = 0;
  mutable std::vector<double> times;
};

TEST(PCSampler, CallsTheConstraintAfterEveryUpdate) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 20);
  SamplingConfig config;
  config.corrector = "none";
  const auto sevens = std::make_shared<Sevens>();
  SampleRequest request{.shape = {2, 2, 2, 1}};
  request.constraint = sevens;
  const SampleResult result = create_sampler(*sde, config)->sample(*context, golden_score(*sde), request);
  ASSERT_EQ(sevens->calls, 41) << "the start, and two slots";
  const std::vector<TimePoint> grid = sampling_grid(20, 1e-5);
  for (std::size_t call = 0; call < 41; ++call)  // at the time of the next update
    EXPECT_EQ(sevens->times[call], grid[std::min<std::size_t>(call / 2, 19)].t) << call;
  EXPECT_EQ(result.x.to_host(), std::vector<float>(8, 7.0f));
}

TEST(PCSampler, ProgressCanStopTheRun) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 20);
  const auto sampler = create_sampler(*sde, {});
  SampleRequest request{.shape = {2, 2, 2, 1}};
  std::vector<std::int64_t> seen;
  request.progress = [&](std::int64_t done, std::int64_t total) {
    EXPECT_EQ(total, 20);
    return seen.push_back(done), true;
  };
  EXPECT_TRUE(sampler->sample(*context, golden_score(*sde), request).complete);
  EXPECT_EQ(seen.size(), 20u);
  EXPECT_EQ(seen.back(), 20);
  request.progress = [](std::int64_t done, std::int64_t) { return done < 7; };
  const SampleResult stopped = sampler->sample(*context, golden_score(*sde), request);
  EXPECT_FALSE(stopped.complete);
  EXPECT_EQ(stopped.nfe[0], 14);
  EXPECT_TRUE(stopped.x.defined());
  request.progress = [](std::int64_t done, std::int64_t) { return done < 20; };
  EXPECT_TRUE(sampler->sample(*context, golden_score(*sde), request).complete) << "it was done";
}

TEST(PCSampler, PassesNonFiniteScoresOn) {
  const auto context = create_context("cpu");
  for (const std::string& corrector : corrector_names()) {
    const auto sde = make_sde("vesde", 20);
    SamplingConfig config;
    config.corrector = corrector;
    const ScoreFn broken = elementwise_score(
        [](double x, const ImageTime& time) { return time.image == 1 && time.k == 10 ? NAN : -x / 2500.0; });
    const std::vector<float> x =
        create_sampler(*sde, config)->sample(*context, broken, {.shape = {2, 2, 2, 1}}).x.to_host();
    EXPECT_TRUE(std::isfinite(x[0])) << corrector;
    EXPECT_TRUE(std::isnan(x[4])) << corrector;
  }
}

TEST(Sampler, NamesThatConfigurationsUse) {
  EXPECT_EQ(sampler_names(), (std::vector<std::string>{"pc", "ode", "annealed_langevin"}));
  EXPECT_EQ(predictor_names(),
            (std::vector<std::string>{"euler_maruyama", "reverse_diffusion", "ancestral_sampling", "none"}));
  EXPECT_EQ(corrector_names(), (std::vector<std::string>{"langevin", "ald", "none"}));
}

TEST(Sampler, RefusesConfigurationsWithoutAMeaning) {
  const auto vp = make_sde("vpsde", 1000), coarse = make_sde("vpsde", 15),
             sub_vp = make_sde("subvpsde", 1000);
  const auto refused = [](const SDE& sde, const char* part, auto change) {
    SamplingConfig config;
    change(config);
    expect_error({part}, [&] { create_sampler(sde, config); });
  };
  refused(*vp, "pc, ode", [](SamplingConfig& c) { c.method = "sde"; });
  refused(*vp, "euler_maruyama, ", [](SamplingConfig& c) { c.predictor = "em"; });
  refused(*vp, "langevin, ald, none", [](SamplingConfig& c) { c.corrector = "mala"; });
  refused(*vp, "ancestral_sampling", [](SamplingConfig& c) {
    c.predictor = "ancestral_sampling";
    c.probability_flow = true;
  });
  refused(*sub_vp, "ancestral_sampling", [](SamplingConfig& c) { c.predictor = "ancestral_sampling"; });
  refused(*coarse, "sde.beta_max", [](SamplingConfig&) {});
  refused(*coarse, "sde.beta_max", [](SamplingConfig& c) { c.method = "ode"; });
  refused(*sub_vp, "sde.beta_max", [](SamplingConfig& c) { c.steps = 20; });
  refused(*vp, "sampling.steps", [](SamplingConfig& c) { c.steps = -1; });
  refused(*vp, "sampling.steps", [](SamplingConfig& c) {
    c.steps = 1;
    c.predictor = "euler_maruyama";
    c.corrector = "none";
  });
  for (const char* method : {"pc", "ode"})
    for (const double eps : {-1e-3, 1.0, static_cast<double>(NAN)})
      refused(*vp, "sampling.eps", [&](SamplingConfig& c) { c.method = method, c.eps = eps; });
  for (const double snr : {0.0, -1.0, static_cast<double>(NAN)})
    refused(*vp, "sampling.snr", [&](SamplingConfig& c) { c.snr = snr; });
  refused(*vp, "sampling.n_steps_each", [](SamplingConfig& c) { c.n_steps_each = 0; });
}

TEST(Sampler, RefusesRequestsThatDoNotFit) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vesde", 30);
  for (const std::string& method : sampler_names()) {
    SamplingConfig config;
    config.method = method;
    const auto sampler = create_sampler(*sde, config);
    const auto refused = [&](const char* part, const SampleRequest& request) {
      expect_error({part}, [&] { sampler->sample(*context, golden_score(*sde), request); });
    };
    refused("shape", {});
    refused("shape", {.shape = {0, 2, 2, 1}});
    refused("shape", {.shape = {4}});
    refused("latent", {.shape = {1, 2, 2, 1}, .latent = Tensor::zeros(*context, {1, 2, 2, 2})});
    refused("latent", {.shape = {1, 2, 2, 1}, .latent = Tensor::zeros(*context, {1, 2, 2, 1}, DType::f64)});
    refused("2^32", {.shape = {2, 2, 2, 1}, .first_sample = 0xffffffffu});
    const ScoreFn wrong = [](const Tensor& x, std::span<const ImageTime>) {
      return x.reshape({x.numel(), 1});
    };
    expect_error({"score"}, [&] { sampler->sample(*context, wrong, {.shape = {2, 2, 2, 1}}); });
  }
}

}  // namespace
}  // namespace sgm
