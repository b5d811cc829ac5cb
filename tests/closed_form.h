#pragma once
// Score functions that are known in closed form, and the deterministic "noise" of the golden files.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/sampling/score_fn.h"
#include "sgm/sde/sde.h"

namespace sgm {

inline std::unique_ptr<SDE> make_sde(const std::string& name, int num_scales) {
  SDEConfig config;
  config.name = name;
  config.num_scales = num_scales;
  return create_sde(config);
}

inline nlohmann::json golden_file(const std::string& name) {
  std::ifstream file(SGM_TEST_DATA "/" + name);
  return nlohmann::json::parse(file);
}

/// Of one element.
struct Moments {
  double mean, variance;
};

/// Whether the SDE has the Markov chain that the predictor walks back.
inline bool has_chain(const std::string& sde, const std::string& predictor) {
  return sde != "subvpsde" || predictor != "ancestral_sampling";
}

/// A score function given by f(x, time) for single elements.
template <class F>
ScoreFn elementwise_score(const F& f) {
  return [f](const Tensor& x, std::span<const ImageTime> times) {
    std::vector<float> values = x.to_host();
    const std::size_t per_image = values.size() / times.size();
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(f(static_cast<double>(values[i]), times[i / per_image]));
    return Tensor::from_host(x.context(), std::span<const float>(values), x.shape());
  };
}

/// Draw number `call` of the golden files: element e is sqrt(2) sin(1.7 e + 0.9 call + 0.3), in f32.
inline Tensor golden_noise(std::uint32_t call, const Tensor& like) {
  std::vector<float> values(static_cast<std::size_t>(like.numel()));
  for (std::size_t e = 0; e < values.size(); ++e)
    values[e] =
        static_cast<float>(std::numbers::sqrt2 * std::sin(1.7 * static_cast<double>(e) + 0.9 * call + 0.3));
  return Tensor::from_host(like.context(), std::span<const float>(values), like.shape());
}

/// The score network of the golden files, exact for elements N(0.4, 0.25^2), told a label as a trained one
/// would be.
inline ScoreFn golden_score(const SDE& sde, bool discrete = false) {
  return elementwise_score([&sde, discrete](double x, const ImageTime& time) {
    const double label = discrete ? sde.discrete_label(time) : sde.noise_label(time.t);
    const double scale = discrete ? sde.discrete_score_scale(time) : sde.score_scale(time.t);
    constexpr double kMean = 0.4, kVariance = 0.25 * 0.25;
    if (scale > 0) {  // VE: the network returns the score
      const double sigma = discrete ? 50.0 * std::pow(0.01 / 50.0, label / (sde.num_scales() - 1)) : label;
      return scale * -(x - kMean) / (sigma * sigma + kVariance);
    }
    const double t = label / 999.0;
    const Marginal at = discrete ? sde.discrete_marginal(static_cast<int>(label), sde.num_scales())
                                 : Marginal{sde.mean_coeff(t), sde.marginal_std(t)};
    const double variance = at.mean_coeff * at.mean_coeff * kVariance + at.std * at.std;
    return scale * at.std * (x - at.mean_coeff * kMean) / variance;
  });
}

/// Fails unless |actual - expected| <= bound for every element, which it does for NaN.
inline void expect_all_near(const std::vector<float>& actual, const std::vector<double>& expected,
                            double bound) {
  ASSERT_EQ(actual.size(), expected.size());
  double worst = 0.0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(static_cast<double>(actual[i]) - expected[i]);
    if (!(error <= worst)) worst = error, where = i;
    if (std::isnan(error)) break;
  }
  EXPECT_TRUE(worst <= bound) << "element " << where << ": " << actual[where] << ", expected "
                              << expected[where] << " +- " << bound;
}

}  // namespace sgm
