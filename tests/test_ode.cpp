// The ODE solvers against SciPy's step sequences, closed-form solutions, their orders and the promise that an
// image does not depend on its batch; the ODE sampler against the original implementation.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "closed_form.h"
#include "expect_error.h"
#include "sgm/sampling/ode_solver.h"
#include "sgm/sampling/sampler.h"

namespace sgm {
namespace {

/// A drift given by f(y, t) -> dy/dt for the elements of one image.
template <class F>
DriftFn host_drift(const F& f) {
  return [f](const Tensor& y, std::span<const ImageTime> times) {
    std::vector<double> values = y.to_host_f64();
    const std::size_t per_image = values.size() / times.size();
    for (std::size_t n = 0; n < times.size(); ++n)
      f(std::span(values).subspan(n * per_image, per_image), times[n]);
    return Tensor::from_host(y.context(), std::span<const double>(values), y.shape());
  };
}

Tensor state(Context& context, const std::vector<double>& values, Shape shape) {
  return Tensor::from_host(context, std::span<const double>(values), shape);
}

/// y0' = -2 y0 + sin 3t, y1' = y0 - y1^2 / 2.
const DriftFn kCoupled = host_drift([](std::span<double> y, const ImageTime& time) {
  const double y0 = y[0], y1 = y[1];
  y[0] = -2.0 * y0 + std::sin(3.0 * time.t);
  y[1] = y0 - 0.5 * y1 * y1;
});

/// y' = -rate y with another rate for every image.
const DriftFn kDecay = host_drift([](std::span<double> y, const ImageTime& time) {
  for (double& value : y) value *= -(1.0 + 5.0 * time.image);
});

TEST(DormandPrince, TakesSciPysSteps) {
  const auto context = create_context("cpu");
  const nlohmann::json json = golden_file("rk45.json");
  for (const char* run : {"fwd", "bwd"}) {
    for (const bool shared : {false, true}) {
      SCOPED_TRACE(run);
      const nlohmann::json& expected = json[run];
      const ODESolution solution = integrate(kCoupled, state(*context, {1.0, -0.5}, {1, 2}), expected["t0"],
                                             expected["t1"], {.shared_steps = shared});
      EXPECT_EQ(solution.nfe, std::vector<std::int64_t>{expected["nfev"]});
      const std::vector<double> steps = expected["steps"], y = expected["y"];
      ASSERT_EQ(solution.times[0].size(), steps.size());
      for (std::size_t i = 0; i < steps.size(); ++i) EXPECT_NEAR(solution.times[0][i], steps[i], 1e-9);
      const std::vector<double> end = solution.y.to_host_f64();
      for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(end[i], y[i], 1e-9);
      EXPECT_TRUE(solution.complete);
    }
  }
}

TEST(DormandPrince, ReachesTheSolutionWithinItsTolerance) {
  const auto context = create_context("cpu");
  double error[2];
  for (const int tight : {0, 1}) {
    const double tolerance = tight ? 1e-10 : 1e-5;
    const ODESolution solution = integrate(kDecay, state(*context, {1, 2, 3, 4, 5, 6}, {3, 2}), 0.0, 1.0,
                                           {.rtol = tolerance, .atol = tolerance});
    const std::vector<double> y = solution.y.to_host_f64();
    error[tight] = 0.0;
    for (int i = 0; i < 6; ++i)
      error[tight] = std::max(error[tight], std::abs(y[i] - (i + 1) * std::exp(-(1.0 + 5.0 * (i / 2)))));
    EXPECT_TRUE(error[tight] <= 100 * tolerance) << error[tight];
  }
  EXPECT_TRUE(error[1] < 1e-3 * error[0]) << error[0] << ' ' << error[1];
}

TEST(DormandPrince, StepsEveryImageAtItsOwnPaceAndBitwiseAsIfAlone) {
  const auto context = create_context("cpu");
  // Images 0, 1, 2 are ever stiffer; image 1 is long, so that its norm is summed over several chunks.
  const std::int64_t per_image = 70'001;
  std::vector<double> values(static_cast<std::size_t>(3 * per_image));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(0.7 * static_cast<double>(i));
  const ODESolution together = integrate(kDecay, state(*context, values, {3, per_image}), 1.0, 0.2);
  const std::vector<double> y = together.y.to_host_f64();
  EXPECT_LT(together.nfe[0], together.nfe[1]);
  EXPECT_LT(together.nfe[1], together.nfe[2]);
  for (int image = 0; image < 3; ++image) {
    SCOPED_TRACE(image);
    const DriftFn alone_drift = [image](const Tensor& x, std::span<const ImageTime> times) {
      ImageTime time = times[0];
      time.image = image;
      return kDecay(x, {&time, 1});
    };
    const auto first = values.begin() + image * per_image;
    const ODESolution alone =
        integrate(alone_drift, state(*context, {first, first + per_image}, {1, per_image}), 1.0, 0.2);
    const std::vector<double> expected = alone.y.to_host_f64();
    EXPECT_EQ(0,
              std::memcmp(expected.data(), y.data() + image * per_image, expected.size() * sizeof(double)));
    EXPECT_EQ(alone.nfe[0], together.nfe[static_cast<std::size_t>(image)]);
    EXPECT_EQ(alone.times[0], together.times[static_cast<std::size_t>(image)]);
    EXPECT_EQ((alone.nfe[0] - 2) % 6, 0);
  }
}

TEST(DormandPrince, ArrivedImagesCostNothing) {
  const auto context = create_context("cpu");
  std::vector<std::int64_t> evaluations(3, 0);
  const DriftFn counting = [&](const Tensor& y, std::span<const ImageTime> times) {
    EXPECT_EQ(y.shape()[0], static_cast<std::int64_t>(times.size()));
    for (const ImageTime& time : times) {
      ++evaluations[static_cast<std::size_t>(time.image)];
      EXPECT_FALSE(time.on_grid());
    }
    return kDecay(y, times);
  };
  const ODESolution solution = integrate(counting, state(*context, {1, 1, 1}, {3, 1}), 0.0, 2.0);
  EXPECT_EQ(solution.nfe, evaluations);
  EXPECT_LT(evaluations[0], evaluations[2]);
}

TEST(DormandPrince, SharedStepsAreEqualForAllImages) {
  const auto context = create_context("cpu");
  const ODESolution solution =
      integrate(kDecay, state(*context, {1, 1, 1}, {3, 1}), 0.0, 2.0, {.shared_steps = true});
  EXPECT_EQ(solution.times[0], solution.times[2]);
  EXPECT_EQ(solution.nfe[0], solution.nfe[2]);
  const std::vector<double> y = solution.y.to_host_f64();
  for (int i = 0; i < 3; ++i)
    EXPECT_NEAR(y[static_cast<std::size_t>(i)], std::exp(-2.0 * (1.0 + 5.0 * i)), 1e-4);
}

TEST(DormandPrince, RunsBackTheWayItCame) {
  const auto context = create_context("cpu");
  const ODEOptions options{.rtol = 1e-9, .atol = 1e-9};
  const Tensor start = state(*context, {1.0, -0.5, 0.3, 0.9}, {2, 2});
  const Tensor there = integrate(kCoupled, start, 0.0, 1.0, options).y;
  const std::vector<double> back = integrate(kCoupled, there, 1.0, 0.0, options).y.to_host_f64();
  const std::vector<double> expected = start.to_host_f64();
  // The way back stretches errors by at most exp of the steepest rate, 2.
  for (std::size_t i = 0; i < back.size(); ++i) EXPECT_NEAR(back[i], expected[i], 1e-6);
}

TEST(DormandPrince, RecoversFromStepsThatLeaveTheDomain) {
  // y' = -sqrt y is not a number for y < 0, where too long a step ends; the solution is (1 - t / 2)^2.
  const auto context = create_context("cpu");
  const DriftFn root = host_drift([](std::span<double> y, const ImageTime&) { y[0] = -std::sqrt(y[0]); });
  const ODESolution solution = integrate(root, state(*context, {1.0}, {1, 1}), 0.0, 1.99);
  EXPECT_NEAR(solution.y.item(), 0.005 * 0.005, 1e-5);
}

TEST(DormandPrince, RefusesWhatItCannotIntegrate) {
  const auto context = create_context("cpu");
  const Tensor y0 = state(*context, {1.0}, {1, 1});
  const auto with = [](auto f) {
    return host_drift([f](std::span<double> y, const ImageTime& time) { y[0] = f(time.t); });
  };
  expect_error({"not finite", "image 0"}, [&] { integrate(with([](double) { return NAN; }), y0, 0.0, 1.0); });
  expect_error({"became too small"},
               [&] { integrate(with([](double t) { return t > 0.5 ? NAN : 1.0; }), y0, 0.0, 1.0); });
  expect_error({"became too small"},
               [&] { integrate(with([](double t) { return 1.0 / (0.5 - t); }), y0, 0.0, 1.0); });
  expect_error({"sampling.rtol"}, [&] { integrate(kDecay, y0, 0.0, 1e9, {.max_attempts = 50}); });
  expect_error({"f64"}, [&] { integrate(kDecay, Tensor::zeros(*context, {1, 1}), 0.0, 1.0); });
  expect_error({"f64"}, [&] { integrate(kDecay, Tensor(), 0.0, 1.0); });
  expect_error({"finite"}, [&] { integrate(kDecay, y0, 0.0, NAN); });
  for (const double bad : {-1.0, static_cast<double>(NAN), 0.0})
    expect_error({"sampling.rtol"}, [&] { integrate(kDecay, y0, 0.0, 1.0, {.rtol = bad, .atol = bad}); });
  const DriftFn wrong = [](const Tensor& y, std::span<const ImageTime>) { return y.to(DType::f32); };
  expect_error({"drift must be f64"}, [&] { integrate(wrong, y0, 0.0, 1.0); });
}

TEST(DormandPrince, NothingToDoIsDone) {
  const auto context = create_context("cpu");
  const ODESolution solution = integrate(kDecay, state(*context, {3.0}, {1, 1}), 0.5, 0.5);
  EXPECT_EQ(solution.y.item(), 3.0);
  EXPECT_EQ(solution.nfe[0], 0);
  EXPECT_EQ(integrate(kDecay, Tensor::zeros(*context, {0, 2}, DType::f64), 0.0, 1.0).y.numel(), 0);
}

TEST(DormandPrince, ProgressRisesToOneAndCanStop) {
  const auto context = create_context("cpu");
  const Tensor y0 = state(*context, {1, 1, 1}, {3, 1});
  std::vector<double> seen;
  ODEOptions options;
  options.progress = [&](double fraction) { return seen.push_back(fraction), true; };
  EXPECT_TRUE(integrate(kDecay, y0, 1.0, 0.0, options).complete);
  ASSERT_GT(seen.size(), 3u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), 1.0);

  options.progress = [](double fraction) { return fraction < 0.3; };
  const ODESolution stopped = integrate(kDecay, y0, 1.0, 0.0, options);
  EXPECT_FALSE(stopped.complete);
  EXPECT_GT(stopped.times[2].back(), 0.0);
  const std::vector<double> y = stopped.y.to_host_f64();
  for (std::size_t i = 0; i < 3; ++i) {
    const double t = stopped.times[i].back();
    EXPECT_NEAR(y[i] / std::exp((1.0 + 5.0 * static_cast<double>(i)) * (1.0 - t)), 1.0, 1e-3)
        << "stands where it had come";
  }
  options.progress = [](double) { return false; };
  EXPECT_TRUE(integrate(kDecay, y0, 1.0, 1.0, options).complete);
}

TEST(Solvers, ConvergeWithTheirOrders) {
  const auto context = create_context("cpu");
  const Tensor y0 = state(*context, {1.0, -0.5}, {1, 2});
  const std::vector<double> exact =
      integrate(kCoupled, y0, 0.0, 2.0, {.rtol = 1e-13, .atol = 1e-13}).y.to_host_f64();
  struct {
    const char* solver;
    int order, evaluations;
  } const methods[] = {{"euler", 1, 1}, {"heun", 2, 2}, {"rk23", 3, 3}, {"rk4", 4, 4}, {"rk45", 5, 6}};
  for (const auto& method : methods) {
    SCOPED_TRACE(method.solver);
    double error[2];
    for (const int doubled : {0, 1}) {
      const std::int64_t steps = doubled ? 64 : 32;
      const ODESolution solution =
          integrate(kCoupled, y0, 0.0, 2.0, {.solver = method.solver, .fixed_steps = steps});
      const std::vector<double> y = solution.y.to_host_f64();
      error[doubled] = std::hypot(y[0] - exact[0], y[1] - exact[1]);
      EXPECT_EQ(solution.nfe[0], steps * method.evaluations);
      EXPECT_EQ(solution.times[0].size(), static_cast<std::size_t>(steps + 1));
      EXPECT_EQ(solution.times[0].back(), 2.0);
    }
    EXPECT_NEAR(std::log2(error[0] / error[1]), method.order, 0.35) << error[0] << ' ' << error[1];
  }
}

TEST(Solvers, TheLowerPairKeepsItsTolerance) {
  const auto context = create_context("cpu");
  const Tensor y0 = state(*context, {1, 2, 3, 4, 5, 6}, {3, 2});
  for (const double tolerance : {1e-4, 1e-7}) {
    const ODESolution solution =
        integrate(kDecay, y0, 0.0, 1.0, {.solver = "rk23", .rtol = tolerance, .atol = tolerance});
    const std::vector<double> y = solution.y.to_host_f64();
    for (int i = 0; i < 6; ++i)
      EXPECT_NEAR(y[static_cast<std::size_t>(i)], (i + 1) * std::exp(-(1.0 + 5.0 * (i / 2))),
                  100 * tolerance);
    for (const std::int64_t nfe : solution.nfe) EXPECT_EQ((nfe - 2) % 3, 0);
    EXPECT_LT(solution.nfe[0], solution.nfe[2]);
  }
}

TEST(Solvers, IntegrateNumbersAlongThePath) {
  // y' = -rate y and a' = y, so that a ends at (1 - exp(-rate)) y(0) / rate.
  const auto context = create_context("cpu");
  const RatesFn rates = [](const Tensor& y, std::span<const ImageTime> times) {
    return Rates{kDecay(y, times), y.to_host_f64()};
  };
  const Tensor y0 = state(*context, {1, 2, 3}, {3, 1});
  for (const ODEOptions& options :
       {ODEOptions{.rtol = 1e-9, .atol = 1e-9}, ODEOptions{.solver = "rk4", .fixed_steps = 400},
        ODEOptions{.rtol = 1e-9, .atol = 1e-9, .shared_steps = true}}) {
    const ODESolution solution = integrate_along(rates, y0, 0.0, 1.0, options);
    for (std::size_t i = 0; i < 3; ++i) {
      const double rate = 1.0 + 5.0 * static_cast<double>(i), start = static_cast<double>(i + 1);
      EXPECT_NEAR(solution.along[i], start * (1.0 - std::exp(-rate)) / rate, 1e-6);
    }
  }
  // Its error counts: where nothing else moves, it is what steps are chosen for.
  const RatesFn pulse = [](const Tensor& y, std::span<const ImageTime> times) {
    std::vector<double> along;
    for (const ImageTime& time : times) along.push_back(std::exp(-100.0 * (time.t - 0.5) * (time.t - 0.5)));
    return Rates{Tensor::zeros(y.context(), y.shape(), DType::f64), along};
  };
  EXPECT_NEAR(integrate_along(pulse, y0, 0.0, 1.0).along[1], std::sqrt(std::numbers::pi) / 10.0, 1e-4);
}

TEST(Solvers, RefuseWhatTheyCannotDo) {
  const auto context = create_context("cpu");
  const Tensor y0 = state(*context, {1.0}, {1, 1});
  expect_error({"sampling.solver", "leapfrog", "rk45, rk23, heun, rk4, euler"},
               [&] { integrate(kDecay, y0, 0.0, 1.0, {.solver = "leapfrog"}); });
  expect_error({"heun", "number of steps"}, [&] { integrate(kDecay, y0, 0.0, 1.0, {.solver = "heun"}); });
  expect_error({"number of steps", "-1"},
               [&] { integrate(kDecay, y0, 0.0, 1.0, {.solver = "rk4", .fixed_steps = -1}); });
  const DriftFn explosion = host_drift([](std::span<double> y, const ImageTime&) { y[0] *= 1e30 * y[0]; });
  expect_error({"not finite", "sampling.steps"},
               [&] { integrate(explosion, y0, 0.0, 1.0, {.solver = "euler", .fixed_steps = 20}); });
  const auto sde = make_sde("vpsde", 1000);
  SamplingConfig config;
  config.method = "ode";
  config.solver = "leapfrog";
  expect_error({"sampling.solver", "leapfrog"}, [&] { create_sampler(*sde, config); });
  config.solver = "heun";
  EXPECT_EQ(ode_options(*sde, config).fixed_steps, 1000);
  config.steps = 30;
  EXPECT_EQ(ode_options(*sde, config).fixed_steps, 30);
  config.solver = "rk23";
  EXPECT_EQ(ode_options(*sde, config).fixed_steps, 0) << "steps are of solvers without step control";
}

TEST(ODESampler, EqualsTheOriginalImplementation) {
  const auto context = create_context("cpu");
  const nlohmann::json json = golden_file("ode_sampler.json");
  const std::map<std::string, std::string> keys{{"vesde", "VE"}, {"vpsde", "VP"}, {"subvpsde", "subVP"}};
  for (const auto& [name, key] : keys)
    for (const bool denoise : {false, true}) {
      SCOPED_TRACE(key + (denoise ? " denoised" : ""));
      const nlohmann::json& expected = json[key + "/denoise" + (denoise ? "1" : "0")];
      const auto sde = make_sde(name, 1000);
      SamplingConfig config;
      config.method = "ode";
      config.denoise = denoise;
      config.batch_mean_norms = true;
      SampleRequest request{.shape = {2, 4, 4, 3}};
      request.noise = [](Purpose, std::uint32_t, const Tensor& like) {
        return Noise{{}, golden_noise(0, like)};
      };
      const SampleResult result = create_sampler(*sde, config)->sample(*context, golden_score(*sde), request);
      expect_all_near(result.x.to_host(), expected["x"], 1e-4);
      // The original's count leaves out the denoising step; its drift is rounded to float32.
      const std::int64_t nfe = expected["nfe"];
      EXPECT_LE(std::abs(result.nfe[0] - (denoise ? 1 : 0) - nfe), 6) << result.nfe[0] << " for " << nfe;
    }
}

TEST(ODESampler, MapsGaussiansExactly) {
  // Data N(m, s^2): the flow maps x_1 to m + (x_1 - m_1) std_eps / std_1 with the perturbed moments; so does
  // every latent.
  const auto context = create_context("cpu");
  for (const std::string& name : sde_names()) {
    SCOPED_TRACE(name);
    const auto sde = make_sde(name, 1000);
    SamplingConfig config;
    config.method = "ode";
    config.denoise = false;
    std::vector<float> latent;
    for (int i = 0; i < 35; ++i) latent.push_back(static_cast<float>(sde->prior_std() * std::sin(1.3 * i)));
    SampleRequest request{.shape = {5, 1, 1, 7}};
    request.latent = Tensor::from_host(*context, std::span<const float>(latent), request.shape);
    const SampleResult result = create_sampler(*sde, config)->sample(*context, golden_score(*sde), request);
    const auto moments = [&](double t) {
      const double m = sde->mean_coeff(t), std = sde->marginal_std(t);
      return std::pair(0.4 * m, std::sqrt(m * m * 0.0625 + std * std));
    };
    const auto [mean_1, std_1] = moments(1.0);
    const auto [mean_eps, std_eps] = moments(sde->sampling_eps());
    std::vector<double> expected;
    for (const float z : latent) expected.push_back(mean_eps + (z - mean_1) * std_eps / std_1);
    // Local errors of 1e-5 (1 + |x|) a step; VE starts at |x| = 50 and contracts.
    expect_all_near(result.x.to_host(), expected, 2e-4);
    EXPECT_EQ(result.nfe.size(), 5u);
  }
}

TEST(ODESampler, AnImageDoesNotDependOnItsBatch) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vpsde", 1000);
  SamplingConfig config;
  config.method = "ode";
  const auto sampler = create_sampler(*sde, config);
  const auto run = [&](std::uint32_t first, std::int64_t n) {
    SampleRequest request{.shape = {n, 3, 3, 1}, .seed = 5, .first_sample = first};
    return sampler->sample(*context, golden_score(*sde), request);
  };
  const SampleResult all = run(0, 64);
  const std::vector<float> x = all.x.to_host();
  for (const auto& [first, n] : {std::pair<std::uint32_t, std::int64_t>{0, 1}, {63, 1}, {11, 7}, {57, 7}}) {
    const SampleResult part = run(first, n);
    const std::vector<float> y = part.x.to_host();
    EXPECT_EQ(0, std::memcmp(y.data(), x.data() + 9 * first, y.size() * sizeof(float))) << first << ' ' << n;
    for (std::int64_t i = 0; i < n; ++i)
      EXPECT_EQ(part.nfe[static_cast<std::size_t>(i)], all.nfe[static_cast<std::size_t>(first + i)]);
  }
}

TEST(ODESampler, NonFiniteScoresAreAnError) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vpsde", 1000);
  SamplingConfig config;
  config.method = "ode";
  const auto sampler = create_sampler(*sde, config);
  SampleRequest request{.shape = {2, 1, 1, 2}};
  expect_error({"not finite"}, [&] {
    sampler->sample(*context, elementwise_score([](double, const ImageTime&) { return NAN; }), request);
  });
  request.constraint = colorization(*sde, Tensor::zeros(*context, request.shape));
  expect_error({"constraint"}, [&] { sampler->sample(*context, golden_score(*sde), request); });
}

}  // namespace
}  // namespace sgm
