// SDEs: against the original implementation's numbers, against the differential equations they must satisfy,
// and against each other where one is the limit of the other.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "expect_error.h"
#include "sgm/sde/sde.h"

namespace sgm {
namespace {

constexpr int kScales = 1000;

std::unique_ptr<SDE> make(const std::string& name, int num_scales = kScales) {
  SDEConfig config;
  config.name = name;
  config.num_scales = num_scales;
  return create_sde(config);
}

nlohmann::json golden() {
  std::ifstream file(SGM_TEST_DATA "/sde.json");
  return nlohmann::json::parse(file);
}

std::string golden_key(const std::string& name) {
  return name == "vesde" ? "VE" : name == "vpsde" ? "VP" : "subVP";
}

/// Fails on NaN.
void expect_near(double actual, double expected, double bound, const std::string& what) {
  EXPECT_TRUE(std::abs(actual - expected) <= bound)
      << what << ": " << actual << " is not " << expected << " +- " << bound;
}

// The golden numbers were computed in float32. There 1 - exp(2 L) is off by about one unit in the last place
// of the exponential, 2^-24, on top of the rounding of every other operation.
constexpr double kRounding = 2e-6;
constexpr double kCancellation = 1.2e-7;

TEST(SDE, EqualsTheOriginalImplementation) {
  const nlohmann::json json = golden();
  for (const std::string& name : sde_names()) {
    SCOPED_TRACE(name);
    const std::unique_ptr<SDE> sde = make(name);
    const nlohmann::json& expected = json[golden_key(name)];
    const std::vector<double> times = json["t"];
    for (std::size_t i = 0; i < times.size(); ++i) {
      const double t = times[i];
      const std::string at = " at t = " + std::to_string(t);
      const auto compare = [&](double actual, const char* key, double bound) {
        const double value = expected[key][i];
        expect_near(actual, value, kRounding * std::abs(value) + bound, key + at);
      };
      compare(sde->mean_coeff(t), "mean_coeff", 0.0);
      compare(sde->drift(t), "drift_at_x1", 0.0);
      // d std / d(1 - exp(2 L)) is 1 / (2 std) for VP and 1 for sub-VP; VE subtracts nothing.
      const double std = sde->marginal_std(t), g = sde->diffusion(t);
      compare(std, "std",
              name == "vpsde"      ? kCancellation / (2.0 * std)
              : name == "subvpsde" ? kCancellation
                                   : 0.0);
      // g^2 = beta (1 - exp(4 L)) for sub-VP.
      const double beta = -2.0 * sde->drift(t);
      compare(g, "diffusion", name == "subvpsde" ? beta * kCancellation / (2.0 * g) : 0.0);

      // Indices of the chain's scales as the original truncates them: none of these times is a borderline
      // case.
      const TimePoint point{t, static_cast<int>(t * (kScales - 1)), kScales};
      const ForwardStep step = sde->discretize(point);
      // VP subtracts sqrt(alpha) x - x; VE subtracts squares of neighbouring scales.
      compare(step.f, "disc_f_at_x1", kCancellation);
      const double sigma = sde->marginal_std(t);
      const double lost = name == "vesde"      ? 4.0 * sigma * sigma * kCancellation / (2.0 * step.G)
                          : name == "subvpsde" ? beta / kScales * kCancellation / (2.0 * step.G)
                                               : 0.0;
      compare(step.G, "disc_G", lost);
    }
    const std::vector<double> logp = expected["prior_logp_det"];
    for (std::size_t image = 0; image < logp.size(); ++image) {
      double squared_norm = 0.0;
      for (int e = 0; e < 12; ++e) {
        const double z = 2.0 * std::sin(0.7 * (12.0 * static_cast<double>(image) + e) + 0.1);
        squared_norm += z * z;
      }
      expect_near(sde->prior_logp(squared_norm, 12), logp[image], kRounding * std::abs(logp[image]),
                  "prior_logp");
    }
  }
}

TEST(SDE, DiscreteTablesEqualTheOriginals) {
  const nlohmann::json json = golden();
  const std::unique_ptr<SDE> vp = make("vpsde"), ve = make("vesde");
  const nlohmann::json& chain = json["VP_discrete"];
  for (std::size_t i = 0; i < chain["idx"].size(); ++i) {
    const int k = chain["idx"][i];
    const TimePoint at{k / 999.0, k, kScales};
    const double beta = chain["beta"][i], alpha = chain["alpha"][i];
    expect_near(std::pow(vp->discretize(at).G, 2), beta, kRounding * beta, "beta");
    expect_near(vp->langevin_alpha(at), alpha, kRounding, "alpha");
    // A running product of k float32 factors errs by up to k half units in the last place.
    const double product = 6e-8 * (k + 2), mean = chain["sqrt_acp"][i], std = chain["sqrt_1m_acp"][i];
    const Marginal marginal = vp->discrete_marginal(k, kScales);
    expect_near(marginal.mean_coeff, mean, mean * (kRounding + product), "sqrt_acp");
    expect_near(marginal.std, std, kRounding * std + (product * mean * mean + kCancellation) / (2.0 * std),
                "sqrt_1m_acp");
  }
  const nlohmann::json& sigmas = json["VE_discrete"];
  for (std::size_t i = 0; i < sigmas["idx"].size(); ++i) {
    const double sigma = sigmas["sigma"][i];
    expect_near(ve->discrete_marginal(sigmas["idx"][i], kScales).std, sigma, kRounding * sigma, "sigma");
  }
}

TEST(SDE, StdKeepsItsAccuracyNearZero) {
  // 2 L(1e-5) = -1.000995e-6 exactly, from beta_min t + (beta_max - beta_min) t^2 / 2.
  const double exponent = 0.1 * 1e-5 + 19.9 * 1e-10 / 2.0;
  const double variance = exponent - exponent * exponent / 2.0;  // next term: 1e-18 / 6
  expect_near(make("vpsde")->marginal_std(1e-5), std::sqrt(variance), 1e-14, "VP");
  expect_near(make("subvpsde")->marginal_std(1e-5), variance, 1e-17, "sub-VP");
}

/// Fourth-order central difference.
template <class F>
double derivative(const F& f, double t) {
  constexpr double h = 1e-3;
  return (8.0 * (f(t + h) - f(t - h)) - (f(t + 2 * h) - f(t - 2 * h))) / (12.0 * h);
}

TEST(SDE, MarginalsSolveTheMomentEquations) {
  for (const std::string& name : sde_names()) {
    const std::unique_ptr<SDE> sde = make(name);
    for (const double t : {0.01, 0.1, 0.3, 0.5, 0.8, 0.99}) {
      SCOPED_TRACE(name + " at " + std::to_string(t));
      const double f = sde->drift(t), g = sde->diffusion(t), m = sde->mean_coeff(t);
      const double v = std::pow(sde->marginal_std(t), 2);
      const double dm = derivative([&](double s) { return sde->mean_coeff(s); }, t);
      const double dv = derivative([&](double s) { return std::pow(sde->marginal_std(s), 2); }, t);
      // The difference errs by h^4 / 30 times a fifth derivative, at most some 17^5 (VE: 2 ln(5000) = 17)
      // times the value.
      expect_near(dm, f * m, 1e-6 * (1.0 + std::abs(f)), "dm/dt = f m");
      expect_near(dv, 2.0 * f * v + g * g, 1e-6 * (1.0 + g * g), "dv/dt = 2 f v + g^2");
    }
  }
}

TEST(SDE, PriorIsTheMarginalAtTimeOne) {
  for (const std::string& name : sde_names()) {
    const std::unique_ptr<SDE> sde = make(name);
    // x_1 keeps exp(-B(1) / 2) = 0.0066 of the data under VP and sub-VP: std differs from 1 by its square.
    expect_near(sde->marginal_std(1.0), sde->prior_std(), 1e-4 * sde->prior_std(), name);
    EXPECT_GT(sde->sampling_eps(), 0.0) << name;
    EXPECT_LT(sde->sampling_eps(), 0.01) << name;
  }
}

TEST(SDE, SubVPHasLessVarianceThanVP) {
  const std::unique_ptr<SDE> vp = make("vpsde"), sub_vp = make("subvpsde");
  for (const double t : {1e-5, 1e-3, 0.1, 0.5, 1.0})
    EXPECT_LT(sub_vp->marginal_std(t), vp->marginal_std(t)) << t;
}

TEST(SDE, DiscretisationsTendToTheSDE) {
  // N f_k -> f(t) and N G_k^2 -> g(t)^2 with errors of order 1 / N: ten times the scales, a tenth of the
  // error.
  for (const std::string& name : sde_names()) {
    double error[2] = {0.0, 0.0};
    for (const int refined : {0, 1}) {
      const int scales = refined ? 10001 : 1001;
      const std::unique_ptr<SDE> sde = make(name, scales);
      for (const double t : {0.2, 0.5, 0.9}) {
        const ForwardStep step =
            sde->discretize({t, static_cast<int>(std::lround(t * (scales - 1))), scales});
        const double g2 = std::pow(sde->diffusion(t), 2);
        error[refined] = std::max(error[refined], std::abs(scales * step.f - sde->drift(t)));
        error[refined] = std::max(error[refined], std::abs(scales * step.G * step.G - g2) / g2);
      }
    }
    EXPECT_TRUE(error[0] < 0.06) << name << ' ' << error[0];
    EXPECT_TRUE(error[1] < 0.11 * error[0] + 1e-12) << name << ' ' << error[0] << ' ' << error[1];
  }
}

TEST(SDE, ForwardChainReachesTheDiscreteMarginals) {
  for (const char* name : {"vesde", "vpsde"}) {
    const std::unique_ptr<SDE> sde = make(name);
    double mean = 1.0, variance = 0.0;
    for (int k = 0; k < kScales; ++k) {
      const ForwardStep step = sde->discretize({k / 999.0, k, kScales});
      mean *= 1.0 + step.f;
      variance = variance * (1.0 + step.f) * (1.0 + step.f) + step.G * step.G;
      const Marginal marginal = sde->discrete_marginal(k, kScales);
      ASSERT_TRUE(std::abs(marginal.mean_coeff - mean) <= 1e-12) << name << ' ' << k;
      ASSERT_TRUE(std::abs(marginal.std - std::sqrt(variance)) <= 1e-12 * marginal.std) << name << ' ' << k;
    }
  }
}

TEST(SDE, AncestralStepIsTheBayesPosteriorMeanAndVEItsVariance) {
  // Data N(0, s^2): with the exact score, x_mean must be E[x_{k-1} | x_k], which is linear in x_k.
  const double data = 0.25;
  for (const char* name : {"vesde", "vpsde"}) {
    const std::unique_ptr<SDE> sde = make(name);
    for (const int k : {0, 1, 500, 999}) {
      SCOPED_TRACE(name + std::string(" scale ") + std::to_string(k));
      const TimePoint at{k / 999.0, k, kScales};
      const Marginal now = sde->discrete_marginal(k, kScales);
      const Marginal before = k > 0 ? sde->discrete_marginal(k - 1, kScales) : Marginal{1.0, 0.0};
      const double var_now = std::pow(now.mean_coeff * data, 2) + now.std * now.std;
      const double var_before = std::pow(before.mean_coeff * data, 2) + before.std * before.std;
      const double decay = 1.0 + sde->discretize(at).f;
      const ReverseStep step = sde->ancestral(at);
      expect_near(step.a - step.b / var_now, decay * var_before / var_now, 1e-12, "regression on x_k");
      if (std::string(name) == "vesde") {
        const double s2 = now.std * now.std, b2 = before.std * before.std;
        expect_near(step.c * step.c, b2 * (s2 - b2) / s2, 1e-12 * s2, "variance given x_0");
      } else {
        expect_near(step.c, sde->discretize(at).G, 1e-15, "DDPM's larger variance");
      }
    }
  }
  EXPECT_EQ(make("vesde")->ancestral({0.0, 0, kScales}).c, 0.0);
  expect_error({"ancestral_sampling"}, [&] { make("subvpsde")->ancestral({1.0, 999, kScales}); });
}

TEST(SDE, LabelsAndScalesOfNetworks) {
  const std::unique_ptr<SDE> ve = make("vesde"), vp = make("vpsde", 500), sub_vp = make("subvpsde", 500);
  EXPECT_DOUBLE_EQ(ve->noise_label(0.5), ve->marginal_std(0.5));
  EXPECT_EQ(ve->score_scale(0.5), 1.0);
  for (const auto& sde : {std::cref(vp), std::cref(sub_vp)}) {
    EXPECT_DOUBLE_EQ(sde.get()->noise_label(0.5), 499.5) << "the label does not depend on N";
    EXPECT_DOUBLE_EQ(sde.get()->score_scale(0.5), -1.0 / sde.get()->marginal_std(0.5));
  }
  for (int k = 0; k < kScales; ++k) {
    // Sampling grids do not hit k / 999 exactly; the index counts.
    const TimePoint at{1.0 - (999 - k) * (1.0 - 1e-3) / 999.0, k, kScales};
    ASSERT_EQ(ve->discrete_label(at), 999 - k);
    ASSERT_EQ(ve->discrete_label({k / 999.0}), 999 - k) << "off the grid";
  }
  const TimePoint last{1e-3, 0, 500};
  EXPECT_DOUBLE_EQ(vp->discrete_label(last), 0.499);
  EXPECT_DOUBLE_EQ(vp->discrete_score_scale(last), -1.0 / vp->discrete_marginal(0, 500).std);
  EXPECT_DOUBLE_EQ(vp->discrete_score_scale({0.3}), vp->score_scale(0.3)) << "off the grid";
  // Twice the steps on a network of 1000 levels: every level serves two steps.
  EXPECT_EQ(ve->discrete_label({1.0, 1999, 2000}), 0);
  EXPECT_EQ(ve->discrete_label({1.0, 999, 2000}), 500);
  EXPECT_EQ(ve->discrete_label({1.0, 0, 2000}), 999);
}

TEST(SDE, LangevinAlphaOfSubVPIsThatOfVP) {
  const std::unique_ptr<SDE> ve = make("vesde"), vp = make("vpsde"), sub_vp = make("subvpsde");
  for (const int k : {0, 1, 500, 999}) {
    const TimePoint at{k / 999.0, k, kScales};
    EXPECT_EQ(ve->langevin_alpha(at), 1.0);
    expect_near(vp->langevin_alpha(at), 1.0 - std::pow(vp->diffusion(at.t), 2) / kScales, 1e-15,
                "1 - beta / N");
    expect_near(sub_vp->langevin_alpha(at), vp->langevin_alpha(at), 1e-15, "sub-VP");
  }
}

TEST(SDE, RefusesWhatHasNoMeaning) {
  SDEConfig config;
  config.name = "ve_sde";
  expect_error({"vesde, vpsde, subvpsde"}, [&] { create_sde(config); });
  const double nan = std::nan("");
  for (const auto& [low, high] : {std::pair{0.0, 1.0}, {2.0, 1.0}, {nan, 1.0}, {0.1, nan}, {0.1, INFINITY}}) {
    config = {};
    config.sigma_min = low, config.sigma_max = high;
    expect_error({"sigma_min"}, [&] { create_sde(config); });
  }
  for (const char* name : {"vpsde", "subvpsde"})
    for (const auto& [low, high] : {std::pair{-1.0, 1.0}, {2.0, 1.0}, {nan, 1.0}, {0.1, nan}}) {
      config = {};
      config.name = name;
      config.beta_min = low, config.beta_max = high;
      expect_error({"beta_min"}, [&] { create_sde(config); });
    }
  config = {};
  config.num_scales = 0;
  expect_error({"num_scales"}, [&] { create_sde(config); });

  // 20 scales of beta_max = 20 would have a step that adds all the variance there is.
  const std::unique_ptr<SDE> vp = make("vpsde", 20), sub_vp = make("subvpsde");
  expect_error({"sde.beta_max"}, [&] { vp->discretize({1.0, 19, 20}); });
  expect_error({"sde.beta_max"}, [&] { vp->ancestral({1.0, 19, 20}); });
  expect_error({"sde.beta_max"}, [&] { sub_vp->langevin_alpha({1.0, 19, 20}); });
  expect_error({"noise scale 1000"}, [&] { vp->discretize({1.0, 1000, 1000}); });
  expect_error({"noise scale"}, [&] { vp->discretize({1.0}); });
  expect_error({"continuous"}, [&] { sub_vp->discrete_marginal(0, kScales); });
  expect_error({"continuous"}, [&] { sub_vp->discrete_label({1.0, 999, kScales}); });
  expect_error({"continuous"}, [&] { sub_vp->discrete_score_scale({1.0, 999, kScales}); });
}

}  // namespace
}  // namespace sgm
