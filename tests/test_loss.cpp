// The denoising losses: values of the original implementation, gradients, and what they are minimised by.

#include "sgm/score/loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "closed_form.h"
#include "expect_error.h"

namespace sgm {
namespace {

constexpr double kMean = 0.4, kVariance = 0.25 * 0.25;  // of the closed-form data, per element

/// The golden files' network: exact for elements N(0.4, 0.25^2). VE networks return the score, VP networks
/// predict the noise, from the continuous kernel in discrete training, too. Its output may be scaled, to make
/// it wrong.
LossNetwork::Forward closed_form_network(const SDE& sde, bool discrete, double factor = 1.0) {
  return [&sde, discrete, factor](const Tensor& x, const Tensor& labels) {
    const bool is_ve = sde.prior_std() > 1.0;
    const std::vector<double> label = labels.to_host_f64();
    std::vector<double> values = x.to_host_f64();
    const std::size_t per_image = values.size() / label.size();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double at = label[i / per_image], last = sde.num_scales() - 1;
      Marginal m{1.0, at};
      if (is_ve && discrete) m.std = 50.0 * std::pow(0.01 / 50.0, at / last);
      if (!is_ve) m = {sde.mean_coeff(at / 999.0), sde.marginal_std(at / 999.0)};
      const double variance = m.mean_coeff * m.mean_coeff * kVariance + m.std * m.std;
      const double residual = values[i] - m.mean_coeff * kMean;
      values[i] = factor * (is_ve ? -residual : m.std * residual) / variance;
    }
    return Var(tensor_of(x.context(), values, x.shape(), x.dtype()));
  };
}

TrainingConfig loss_config(bool continuous, bool reduce_mean, bool likelihood_weighting = false) {
  TrainingConfig config;
  config.continuous = continuous;
  config.reduce_mean = reduce_mean;
  config.likelihood_weighting = likelihood_weighting;
  return config;
}

class DenoisingLosses : public testing::Test {
 protected:
  const std::unique_ptr<Context> context_ = create_context("cpu", 2);
};

// ---- the original's values --------------------------------------------------------------------------------

constexpr int kImages = 4;

/// 0.5 + 0.4 sin(0.9 n + 0.3), [4, 3, 4, 4] in the original's layout. The order of an image's elements does
/// not matter: neither network nor loss mixes them.
Tensor golden_batch(Context& context, DType dtype) {
  std::vector<double> values(kImages * 48);
  for (std::size_t n = 0; n < values.size(); ++n)
    values[n] = rounded(0.5 + 0.4 * std::sin(0.9 * static_cast<double>(n) + 0.3), DType::f32);
  return tensor_of(context, values, {kImages, 4, 4, 3}, dtype);
}

double golden_loss(Context& context, const SDE& sde, const TrainingConfig& config, DType dtype) {
  std::vector<double> u;
  for (int n = 0; n < kImages; ++n) {
    if (config.continuous) {
      u.push_back(rounded(0.5 + 0.5 * std::sin(1.3 * n + 0.2), DType::f32));
    } else {  // the label is drawn; VE labels count from the most noise
      const int label = (37 * n + 5) % sde.num_scales();
      const int scale = sde.prior_std() > 1.0 ? sde.num_scales() - 1 - label : label;
      u.push_back((scale + 0.5) / sde.num_scales());
    }
  }
  const Tensor x0 = golden_batch(context, dtype);
  const Tensor z = golden_noise(1, x0).to(dtype);
  const DenoisingLoss loss(sde, config);
  return loss.evaluate(closed_form_network(sde, !config.continuous), x0, u, {z}).mean.value().item();
}

TEST_F(DenoisingLosses, EqualsTheOriginal) {
  const nlohmann::json golden = golden_file("losses.json");
  struct Row {
    std::string key, sde;
    bool continuous, likelihood;
  };
  const Row rows[] = {{"VE/lw0/", "vesde", true, false},       {"VE/lw1/", "vesde", true, true},
                      {"VP/lw0/", "vpsde", true, false},       {"VP/lw1/", "vpsde", true, true},
                      {"subVP/lw0/", "subvpsde", true, false}, {"subVP/lw1/", "subvpsde", true, true},
                      {"smld/", "vesde", false, false},        {"ddpm/", "vpsde", false, false}};
  std::size_t compared = 0;
  for (const Row& row : rows)
    for (const bool reduce_mean : {false, true})
      for (const DType dtype : {DType::f32, DType::f64}) {
        const auto sde = make_sde(row.sde, 1000);
        const std::string key = row.key + (reduce_mean ? "rm1" : "rm0");
        const double expected = golden.at(key).get<double>();
        const double actual =
            golden_loss(*context_, *sde, loss_config(row.continuous, reduce_mean, row.likelihood), dtype);
        // The original forms std(t) in single precision as 1 - exp(...). The smallest t here is 0.09, where
        // sub-VP has std 0.09: an absolute error of 2^-24 is 7e-7 relative in std, and the weighted loss
        // depends on std^-2, g^2 and, through network and residual, on differences of order one.
        const double tolerance = row.key == "subVP/lw1/" ? 1e-4 : 1e-5;
        EXPECT_TRUE(std::abs(actual - expected) <= tolerance * expected)
            << key << ' ' << dtype << ": " << actual << ", expected " << expected << ", relative error "
            << std::abs(actual - expected) / expected;
        ++compared;
      }
  EXPECT_EQ(compared, 2 * (golden.size() - 1));  // all but "about"
}

// ---- gradients --------------------------------------------------------------------------------------------

TEST_F(DenoisingLosses, GradientIsThatOfTheMean) {
  struct Row {
    const char* sde;
    bool continuous, likelihood;
  };
  const Row rows[] = {{"vesde", true, false},    {"vesde", true, true},   {"vesde", false, false},
                      {"vpsde", true, false},    {"vpsde", true, true},   {"vpsde", false, false},
                      {"subvpsde", true, false}, {"subvpsde", true, true}};
  for (const Row& row : rows)
    for (const bool reduce_mean : {false, true})
      for (const std::int64_t images : {1, 3}) {
        SCOPED_TRACE(std::string(row.sde) + (row.continuous ? " continuous" : " discrete") +
                     (row.likelihood ? " likelihood" : "") + (reduce_mean ? " mean " : " sum ") +
                     std::to_string(images));
        const auto sde = make_sde(row.sde, 1000);
        const DenoisingLoss loss(*sde, loss_config(row.continuous, reduce_mean, row.likelihood));
        const Shape shape{images, 3, 5, 1};
        const Tensor x0 = tensor_of(*context_, random_values(shape.numel(), 1), shape, DType::f64);
        const Tensor z = tensor_of(*context_, random_values(shape.numel(), 2), shape, DType::f64);
        const std::vector<double> all = {0.35, 0.8, 0.6}, u(all.begin(), all.begin() + images);
        // VE networks answer with scores, of the size of 1 / sigma.
        const double size = 1.0 / sde->prior_std();
        const Values output{shape, random_values(shape.numel(), 3, 0.0, size)};
        const auto of_output = [&](std::span<const Var> inputs) {
          return loss.evaluate([&](const Tensor&, const Tensor&) { return inputs[0]; }, x0, u, {z}).mean;
        };
        expect_gradients(*context_, of_output, {output});
      }
}

TEST_F(DenoisingLosses, IsTheMeanOverImages) {
  const auto sde = make_sde("vpsde", 1000);
  for (const bool continuous : {true, false}) {
    const DenoisingLoss loss(*sde, loss_config(continuous, true));
    const Tensor x0 = golden_batch(*context_, DType::f32);
    const LossResult result =
        loss.evaluate(closed_form_network(*sde, !continuous), x0, NoiseKey{3, Purpose::noise, 5});
    const std::vector<double> each = result.per_image.to_host_f64();
    ASSERT_EQ(each.size(), 4u);
    EXPECT_NEAR(result.mean.value().item(), (each[0] + each[1] + each[2] + each[3]) / 4, 1e-12);
  }
}

// ---- terms and draws --------------------------------------------------------------------------------------

TEST_F(DenoisingLosses, TimesCoverTheirRange) {
  const double below_one = std::nextafter(1.0, 0.0);
  for (const std::string& name : sde_names()) {
    const auto sde = make_sde(name, 1000);
    const DenoisingLoss loss(*sde, loss_config(true, true));
    EXPECT_EQ(loss.terms(0.0).std, sde->marginal_std(1e-5)) << name;
    EXPECT_NEAR(loss.terms(below_one).std, sde->marginal_std(1.0), 1e-9 * sde->prior_std()) << name;
    EXPECT_EQ(loss.terms(below_one).label, sde->noise_label(1e-5 + below_one * (1 - 1e-5))) << name;
  }
  for (const std::string name : {"vesde", "vpsde"})
    for (const int scales : {1000, 30}) {
      const auto sde = make_sde(name, scales);
      const DenoisingLoss loss(*sde, loss_config(false, true));
      for (const int k : {0, 1, scales / 2, scales - 1})
        for (const double within : {0.01, 0.99}) {
          const LossTerms terms = loss.terms((k + within) / scales);
          EXPECT_EQ(terms.std, sde->discrete_marginal(k, scales).std) << name << ' ' << k;
          EXPECT_NEAR(terms.label, name == "vesde" ? scales - 1 - k : k, 1e-9) << name << ' ' << k;
        }
      EXPECT_EQ(loss.terms(below_one).std, sde->discrete_marginal(scales - 1, scales).std);
    }
}

TEST_F(DenoisingLosses, DrawsDependOnKeyAndImageAlone) {
  const auto sde = make_sde("subvpsde", 1000);
  const DenoisingLoss loss(*sde, loss_config(true, true));
  const auto network = closed_form_network(*sde, false);
  const auto of_image = [&](std::int64_t first, std::int64_t count, NoiseKey key) {
    const std::vector<double> all = golden_batch(*context_, DType::f64).to_host_f64();
    const std::vector<double> some(all.begin() + first * 48, all.begin() + (first + count) * 48);
    key.first_sample = static_cast<std::uint32_t>(first);
    return loss.evaluate(network, tensor_of(*context_, some, {count, 4, 4, 3}, DType::f32), key)
        .per_image.to_host_f64();
  };
  const NoiseKey key{11, Purpose::noise, 2};
  const std::vector<double> whole = of_image(0, 4, key), tail = of_image(1, 3, key);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(tail[i], whole[i + 1]) << i;
  EXPECT_NE(whole[0], whole[1]);
  EXPECT_NE(of_image(0, 4, {11, Purpose::noise, 3}), whole);
  EXPECT_NE(of_image(0, 4, {12, Purpose::noise, 2}), whole);
}

TEST_F(DenoisingLosses, RefusesWhatHasNoMeaning) {
  const auto vp = make_sde("vpsde", 1000), sub_vp = make_sde("subvpsde", 1000);
  expect_error({"likelihood_weighting", "continuous"},
               [&] { DenoisingLoss(*vp, loss_config(false, true, true)); });
  expect_error({"training.continuous"}, [&] { DenoisingLoss(*sub_vp, loss_config(false, true)); });
  const DenoisingLoss loss(*vp, loss_config(true, true));
  const Tensor x0 = golden_batch(*context_, DType::f32);
  const auto network = closed_form_network(*vp, false);
  expect_error({"loss", "3"}, [&] { loss.evaluate(network, x0, std::vector<double>(3, 0.5), {x0}); });
  expect_error({"loss"}, [&] {
    loss.evaluate(network, x0, std::vector<double>(4, 0.5), {Tensor::zeros(*context_, {4, 4, 4, 1})});
  });
}

TEST_F(DenoisingLosses, NotANumberIsNotHidden) {
  const auto sde = make_sde("vpsde", 1000);
  const DenoisingLoss loss(*sde, loss_config(true, true));
  std::vector<double> values(kImages * 48, 0.5);
  values[50] = std::numeric_limits<double>::quiet_NaN();
  const auto network = [&](const Tensor& x, const Tensor&) {
    return Var(tensor_of(*context_, values, x.shape(), DType::f32));
  };
  const LossResult result = loss.evaluate(network, golden_batch(*context_, DType::f32), {1});
  EXPECT_TRUE(std::isnan(result.mean.value().item()));
  EXPECT_FALSE(std::isnan(result.per_image.to_host_f64()[0]));
  EXPECT_TRUE(std::isnan(result.per_image.to_host_f64()[1]));
}

// ---- the minimum ------------------------------------------------------------------------------------------

/// With x0 ~ N(0.4, 0.25^2) per element the network is exact. Its loss is then the variance of z given x_t,
/// m^2 0.25^2 / (m^2 0.25^2 + std^2), times the weights, and any other network's is larger.
TEST_F(DenoisingLosses, TheTrueScoreMinimisesIt) {
  constexpr std::int64_t kCount = 2000, kElements = 16;
  const Shape shape{kCount, 4, 4, 1};
  const Tensor x0 =
      tensor_of(*context_, random_values(shape.numel(), 21, kMean, std::sqrt(kVariance)), shape, DType::f64);
  const Tensor z = tensor_of(*context_, random_values(shape.numel(), 22), shape, DType::f64);
  std::vector<double> u;  // every part of the range alike; the smallest times, of heavy weights, left out
  for (std::int64_t i = 0; i < kCount; ++i)
    u.push_back(0.05 + 0.95 * (static_cast<double>(i) + 0.5) / kCount);

  for (const std::string& name : sde_names())
    for (const bool likelihood : {false, true}) {
      SCOPED_TRACE(name + (likelihood ? " likelihood" : ""));
      const auto sde = make_sde(name, 1000);
      const DenoisingLoss loss(*sde, loss_config(true, true, likelihood));
      const auto with_factor = [&](double factor) {
        return loss.evaluate(closed_form_network(*sde, false, factor), x0, u, {z}).mean.value().item();
      };
      double expected = 0.0, variance = 0.0;
      for (const double each : u) {
        const double t = 1e-5 + each * (1.0 - 1e-5), std = sde->marginal_std(t);
        const double signal = std::pow(sde->mean_coeff(t), 2) * kVariance;
        const double g = sde->diffusion(t), weight = likelihood ? g * g / (std * std) : 1.0;
        const double of_image = weight * signal / (signal + std * std);
        expected += of_image / kCount;
        variance += 2.0 * of_image * of_image / (kElements * double{kCount} * kCount);
      }
      const double least = with_factor(1.0);
      EXPECT_TRUE(std::abs(least - expected) <= 5.0 * std::sqrt(variance))
          << least << ", expected " << expected << " +- " << std::sqrt(variance);
      for (const double factor : {0.85, 1.15}) EXPECT_LT(least, with_factor(factor)) << factor;
    }
}

}  // namespace
}  // namespace sgm
