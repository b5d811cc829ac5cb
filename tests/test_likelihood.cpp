// Likelihoods and latent codes: against the original implementation, densities in closed form, and what must
// not change them.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "closed_form.h"
#include "expect_error.h"
#include "sgm/lab/density.h"
#include "sgm/sampling/latent.h"
#include "sgm/sampling/likelihood.h"
#include "sgm/score/score_model.h"
#include "tiny_training.h"

namespace sgm {
namespace {

/// The score of data N(0.4, 0.25^2), whose Jacobian is a multiple of the identity.
ScoreProductFn golden_product(const SDE& sde) {
  return
      [&sde, score = golden_score(sde)](const Tensor& x, const Tensor& v, std::span<const ImageTime> times) {
        std::vector<double> slope;
        for (const ImageTime& at : times) {
          const double m = sde.mean_coeff(at.t), std = sde.marginal_std(at.t);
          slope.push_back(-1.0 / (m * m * 0.0625 + std * std));
        }
        AffineTerms terms{.x = v};
        terms.a = Tensor::from_host(x.context(), std::span<const double>(slope), {x.shape()[0]});
        return ScoreAndProduct{score(x.to(DType::f32), times), affine_step(terms).y};
      };
}

Tensor golden_data(Context& context) {
  std::vector<double> x;
  for (int n = 0; n < 96; ++n) x.push_back(0.4 + 0.2 * std::sin(0.9 * n + 0.3));
  return Tensor::from_host(context, std::span<const double>(x), {2, 4, 4, 3}, DType::f32);
}

Probes golden_probes(Context& context, bool gaussian) {
  const Shape shape{2, 4, 4, 3};
  if (gaussian) return {{golden_noise(0, Tensor::empty(context, shape)).to(DType::f64)}};
  std::vector<double> signs;
  for (int n = 0; n < 96; ++n) signs.push_back((37 * n + 5) % 2 ? 1.0 : -1.0);
  return {{Tensor::from_host(context, std::span<const double>(signs), shape)}};
}

TEST(Likelihood, EqualsTheOriginalImplementation) {
  const auto context = create_context("cpu");
  const nlohmann::json json = golden_file("likelihood.json");
  const std::map<std::string, std::string> keys{{"vesde", "VE"}, {"vpsde", "VP"}, {"subvpsde", "subVP"}};
  for (const auto& [name, key] : keys)
    for (const bool gaussian : {false, true}) {
      SCOPED_TRACE(key + (gaussian ? "/Gaussian" : "/Rademacher"));
      const nlohmann::json& expected = json[key + (gaussian ? "/Gaussian" : "/Rademacher")];
      const auto sde = make_sde(name, 1000);
      FlowOptions options;
      options.ode.shared_steps = true;
      const Likelihood result = log_likelihood(*sde, golden_product(*sde), golden_data(*context),
                                               golden_probes(*context, gaussian), options);
      expect_all_near(result.latent.to(DType::f32).to_host(), expected["z"], 1e-4);
      const double range = expected["centered"] ? 2.0 : 1.0;
      for (std::size_t i = 0; i < 2; ++i)
        EXPECT_NEAR(bits_per_dim(result.log_likelihood(i), 48, range), expected["bpd"][i], 1e-4);
      const std::int64_t nfe = expected["nfe"];
      EXPECT_LE(std::abs(result.nfe[0] - nfe), 6) << result.nfe[0] << " for " << nfe;
    }
}

/// Three Gaussians around the origin, of mean zero.
std::unique_ptr<Density> mixture() {
  return gaussian_mixture("three", {0.5, 0.25, 0.25}, {0.8, 0.1, -1.2, 0.9, -0.4, -1.1},
                          {0.09, 0.02, 0.02, 0.04, 0.16, 0.0, 0.0, 0.04, 0.05, -0.02, -0.02, 0.09});
}

std::vector<double> row(const std::vector<double>& values, std::size_t i) {
  return {values.begin() + 2 * static_cast<std::ptrdiff_t>(i),
          values.begin() + 2 * static_cast<std::ptrdiff_t>(i) + 2};
}

TEST(Likelihood, OfAMixtureIsTheTruth) {
  const auto context = create_context("cpu");
  const auto density = mixture();
  const std::vector<double> points = density->sample(40, 3);
  const Tensor x = Tensor::from_host(*context, std::span<const double>(points), {40, 1, 1, 2});
  for (const std::string& name : sde_names()) {
    SCOPED_TRACE(name);
    const auto sde = make_sde(name, 1000);
    FlowOptions options;
    options.ode.rtol = options.ode.atol = 1e-6;
    const Likelihood result = log_likelihood(*sde, exact_score_product(*density, *sde), x,
                                             unit_probes(*context, x.shape()), options);
    const std::vector<double> z = result.latent.to_host_f64();
    const Marginal start{sde->mean_coeff(options.eps), sde->marginal_std(options.eps)};
    const Marginal end{sde->mean_coeff(1.0), sde->marginal_std(1.0)};
    for (std::size_t i = 0; i < 40; ++i) {
      const double truth = density->log_prob(row(points, i), start);
      // The flow itself, from the true density at t = 1.
      EXPECT_NEAR(density->log_prob(row(z, i), end) + result.delta[i], truth, 1e-4) << i;
      // The prior differs from that: by exp(-10) / 2 of |z|^2 - tr cov for VP, by 1 / 5000 for VE.
      EXPECT_NEAR(result.log_likelihood(i), truth, 1e-3) << i;
    }
  }
}

/// `n` copies of one point as a batch.
Tensor copies(Context& context, const std::vector<double>& point, std::int64_t n) {
  std::vector<double> x;
  for (std::int64_t i = 0; i < n; ++i) x.insert(x.end(), point.begin(), point.end());
  return Tensor::from_host(context, std::span<const double>(x),
                           {n, 1, 1, static_cast<std::int64_t>(point.size())});
}

struct MeanAndStd {
  double mean, std;
};
MeanAndStd moments(const std::vector<double>& values) {
  double sum = 0.0, squares = 0.0;
  for (const double v : values) sum += v, squares += v * v;
  const double n = static_cast<double>(values.size()), mean = sum / n;
  return {mean, std::sqrt((squares / n - mean * mean) * n / (n - 1))};
}

TEST(Likelihood, RandomProbesAreUnbiased) {
  const auto context = create_context("cpu");
  const auto density = mixture();
  const auto sde = make_sde("vpsde", 1000);
  const ScoreProductFn score = exact_score_product(*density, *sde);
  const std::int64_t n = 600;
  const Tensor x = copies(*context, {0.3, -0.5}, n);
  const Likelihood truth =
      log_likelihood(*sde, score, copies(*context, {0.3, -0.5}, 1), unit_probes(*context, {1, 1, 1, 2}));
  for (const std::string& kind : probe_names()) {
    double spread[2];
    for (const int count : {1, 4}) {
      SCOPED_TRACE(kind + ' ' + std::to_string(count));
      const Probes probes = random_probes(kind, *context, x.shape(), count, {9, Purpose::probe});
      const MeanAndStd seen = moments(log_likelihood(*sde, score, x, probes).delta);
      EXPECT_NEAR(seen.mean, truth.delta[0], 4.0 * seen.std / std::sqrt(n));
      EXPECT_GT(seen.std, 0.05);
      spread[count == 4] = seen.std;
    }
    EXPECT_NEAR(spread[0] / spread[1], 2.0, 0.35) << kind;
  }
}

TEST(Likelihood, ProbesDependOnTheImageAndNothingElse) {
  const auto context = create_context("cpu");
  for (const std::string& kind : probe_names()) {
    SCOPED_TRACE(kind);
    const NoiseKey key{4, Purpose::probe, 1, 10};
    const Probes all = random_probes(kind, *context, {5, 3, 3, 1}, 2, key);
    NoiseKey third = key;
    third.first_sample += 3;
    const Probes part = random_probes(kind, *context, {1, 3, 3, 1}, 1, third);
    const std::vector<double> many = all.v[0].to_host_f64(), one = part.v[0].to_host_f64();
    EXPECT_EQ(std::vector<double>(many.begin() + 27, many.begin() + 36), one);
    EXPECT_NE(many, all.v[1].to_host_f64());
    EXPECT_EQ(all.weight, 0.5);
    NoiseKey other = key;
    ++other.step;
    EXPECT_NE(many, random_probes(kind, *context, {5, 3, 3, 1}, 1, other).v[0].to_host_f64());
  }
  for (const double v : random_probes("rademacher", *context, {5, 3, 3, 1}, 1, {}).v[0].to_host_f64())
    EXPECT_EQ(std::abs(v), 1.0);
  expect_error({"probe", "sparse", "rademacher"}, [&] { random_probes("sparse", *context, {1, 4}, 1, {}); });
  expect_error({"got 0"}, [&] { random_probes("gaussian", *context, {1, 4}, 0, {}); });
  expect_error({"64", "65"}, [&] { unit_probes(*context, {1, 65}); });
}

TEST(Likelihood, OfEightBitNoiseIsEightBits) {
  // Uniform on the data space, whatever it is.
  EXPECT_NEAR(bits_per_dim(0.0, 12, 1.0), 8.0, 1e-12);
  EXPECT_NEAR(bits_per_dim(-12 * std::log(2.0), 12, 2.0), 8.0, 1e-12);
  EXPECT_NEAR(bits_per_dim(12 * std::log(2.0), 12, 2.0), 6.0, 1e-12) << "half the range is one bit less";
}

TEST(Likelihood, RefusesWhatDoesNotFit) {
  const auto context = create_context("cpu");
  const auto sde = make_sde("vpsde", 1000);
  const ScoreProductFn score = golden_product(*sde);
  const Tensor x = Tensor::zeros(*context, {2, 3});
  expect_error({"no probes"}, [&] { log_likelihood(*sde, score, x, {}); });
  expect_error({"probes have shape"}, [&] { log_likelihood(*sde, score, x, unit_probes(*context, {3, 3})); });
  const Tensor bad = Tensor::full(*context, {2, 3}, NAN);
  expect_error({"not finite"}, [&] { log_likelihood(*sde, score, bad, unit_probes(*context, {2, 3})); });
}

// ---- with networks ----------------------------------------------------------------------------------------

/// An untrained network of some output beside the score of N(0, I), which keeps x from blowing up or dying
/// away: a flow as tame as a trained network's.
struct RandomModel {
  std::unique_ptr<Context> context = create_context("cpu", 2);
  Config config = [] {
    Config c = tiny_config();
    c.data.image_size = 4;
    c.model.nf = 8;
    c.model.ch_mult = {1};
    c.model.init_scale = 0.1;
    return c;
  }();
  std::unique_ptr<ScoreNetwork> network = create_network(config, *context);
  std::unique_ptr<SDE> sde = create_sde(config.sde);
  ScoreFn of_network = score_function(*network, *sde, true);
  ScoreProductFn product_of_network = score_product_function(*network, *sde, true);
  ScoreFn score = [this](const Tensor& x, std::span<const ImageTime> times) {
    return beside_normal(x, of_network(x, times));
  };
  ScoreProductFn product = [this](const Tensor& x, const Tensor& v, std::span<const ImageTime> times) {
    const ScoreAndProduct at = product_of_network(x, v, times);
    return ScoreAndProduct{beside_normal(x.to(DType::f32), at.score),
                           beside_normal(v.to(DType::f32), at.product)};
  };

  static Tensor beside_normal(const Tensor& x, const Tensor& y) {
    AffineTerms terms{.x = x, .score = y};
    terms.a = -1.0, terms.b = 0.002;
    return affine_step(terms).y;
  }
  Tensor images(std::int64_t first, std::int64_t n) const {
    std::vector<double> x;
    for (std::int64_t i = first * 16; i < (first + n) * 16; ++i)
      x.push_back(0.9 * std::sin(0.37 * static_cast<double>(i) + 0.01 * static_cast<double>(i % 16 * i)));
    return Tensor::from_host(*context, std::span<const double>(x), {n, 4, 4, 1}, DType::f32);
  }
  Likelihood likelihood(std::int64_t first, std::int64_t n, double tolerance = 1e-5) const {
    const Tensor x = images(first, n);
    const NoiseKey key{5, Purpose::probe, 0, static_cast<std::uint32_t>(first)};
    FlowOptions options;
    options.ode.rtol = options.ode.atol = tolerance;
    return log_likelihood(*sde, product, x, random_probes("rademacher", *context, x.shape(), 1, key),
                          options);
  }
};

TEST(Likelihood, ProductsOfNetworksAreTheirDerivatives) {
  const RandomModel model;
  const Tensor x = model.images(0, 3);
  const std::vector<ImageTime> times{{{.t = 0.02}, 0}, {{.t = 0.4}, 1}, {{.t = 0.9}, 2}};
  const Tensor v = random_probes("gaussian", *model.context, x.shape(), 1, {}).v[0];
  const Tensor u = random_probes("rademacher", *model.context, x.shape(), 1, {1}).v[0];
  const ScoreAndProduct at = model.product_of_network(x.to(DType::f64), v, times);
  const std::vector<float> direct = model.of_network(x, times).to_host(), score = at.score.to_host();
  EXPECT_EQ(direct, score);
  for (const Parameter& p : model.network->parameters())
    EXPECT_FALSE(p.var->requires_grad()) << p.name << ": gradients of weights would be computed";
  // v^T J u against a central difference along u, whose error is h^2 and 1e-7 / h of the score.
  const auto moved = [&](double h) {
    AffineTerms terms{.x = x, .score = u};
    terms.b = h;
    return model.of_network(affine_step(terms).y, times).to_host_f64();
  };
  const double h = 2e-3;
  const std::vector<double> above = moved(h), below = moved(-h), of_v = v.to_host_f64(),
                            of_u = u.to_host_f64(), product = at.product.to_host_f64();
  for (std::size_t n = 0; n < 3; ++n) {
    double analytic = 0.0, numeric = 0.0, size = 0.0;
    for (std::size_t e = 16 * n; e < 16 * (n + 1); ++e) {
      analytic += product[e] * of_u[e];
      numeric += of_v[e] * (above[e] - below[e]) / (2.0 * h);
      size += product[e] * product[e];
    }
    EXPECT_NEAR(analytic, numeric, 2e-3 * std::sqrt(16.0 * size)) << n;
    EXPECT_GT(size, 0.0);
  }
}

TEST(Likelihood, AnImageDoesNotDependOnItsBatch) {
  // Bit by bit where the score of an image does not.
  const auto context = create_context("cpu");
  const auto sde = make_sde("subvpsde", 1000);
  const ScoreProductFn score = golden_product(*sde);
  const auto likelihood = [&](std::int64_t first, std::int64_t n) {
    std::vector<double> x;
    for (std::int64_t i = 7 * first; i < 7 * (first + n); ++i)
      x.push_back(0.4 + std::pow(3.0, i / 7) * std::sin(1.3 * static_cast<double>(i)));
    const Shape shape{n, 1, 1, 7};
    const NoiseKey key{5, Purpose::probe, 0, static_cast<std::uint32_t>(first)};
    return log_likelihood(*sde, score, Tensor::from_host(*context, std::span<const double>(x), shape),
                          random_probes("gaussian", *context, shape, 2, key));
  };
  const Likelihood all = likelihood(0, 5);
  const std::set<std::int64_t> nfe(all.nfe.begin(), all.nfe.end());
  EXPECT_GT(nfe.size(), 1u) << "no image left the batch before another";
  const std::vector<double> z = all.latent.to_host_f64();
  for (std::size_t i = 0; i < 5; ++i) {
    const Likelihood alone = likelihood(static_cast<std::int64_t>(i), 1);
    EXPECT_EQ(alone.nfe[0], all.nfe[i]);
    EXPECT_EQ(alone.log_likelihood(0), all.log_likelihood(i));
    const std::vector<double> expected = alone.latent.to_host_f64();
    EXPECT_EQ(0, std::memcmp(expected.data(), z.data() + 7 * i, 7 * sizeof(double)));
  }
}

TEST(Likelihood, OfANetworkIsTheSameInEveryBatchUpToTheSolversTolerance) {
  // At another batch size a network's sums are rounded in another order. Where that decides whether a step is
  // accepted, two solutions differ as two solutions of that tolerance do: by their errors, of which the
  // largest in the batch is measured against a solution of a tolerance a tenth as large.
  const RandomModel model;
  const Likelihood all = model.likelihood(0, 4), exact = model.likelihood(0, 4, 1e-6);
  const std::vector<double> z = all.latent.to_host_f64(), exact_z = exact.latent.to_host_f64();
  double error = 0.0, error_z = 0.0;
  for (std::size_t i = 0; i < 4; ++i)
    error = std::max(error, std::abs(all.log_likelihood(i) - exact.log_likelihood(i)));
  for (std::size_t e = 0; e < z.size(); ++e) error_z = std::max(error_z, std::abs(z[e] - exact_z[e]));
  EXPECT_LT(error, 5e-3);
  EXPECT_LT(error_z, 1e-3);
  for (std::int64_t i = 0; i < 4; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const Likelihood alone = model.likelihood(i, 1);
    EXPECT_NEAR(alone.log_likelihood(0), all.log_likelihood(at), 2.0 * error);
    const std::vector<double> expected = alone.latent.to_host_f64();
    for (std::size_t e = 0; e < 16; ++e) EXPECT_NEAR(z[16 * at + e], expected[e], 2.0 * error_z);
  }
}

TEST(Latent, DecodingReturnsWhatWasEncoded) {
  const RandomModel model;
  const Tensor x = model.images(0, 4);
  FlowOptions options;
  options.ode.rtol = options.ode.atol = 1e-6;
  const FlowResult code = encode(*model.sde, model.score, x, options);
  const FlowResult back = decode(*model.sde, model.score, code.x, options);
  EXPECT_TRUE(code.complete && back.complete);
  expect_all_near(back.x.to_host(), x.to_host_f64(), 1e-3);
  double moved = 0.0;
  const std::vector<float> from = x.to_host(), to = code.x.to_host();
  for (std::size_t i = 0; i < from.size(); ++i)
    moved = std::max(moved, std::abs(static_cast<double>(to[i] - from[i])));
  EXPECT_GT(moved, 1e-3);
  // The latent of a likelihood is the same code.
  expect_all_near(code.x.to_host(), model.likelihood(0, 4).latent.to_host_f64(), 1e-3);
}

TEST(Latent, OfGaussiansIsKnown) {
  // Data N(0.4, 0.25^2) are whitened and coloured again, element by element.
  const auto context = create_context("cpu");
  for (const std::string& name : sde_names()) {
    SCOPED_TRACE(name);
    const auto sde = make_sde(name, 1000);
    const auto at = [&](double t) {
      const double m = sde->mean_coeff(t), std = sde->marginal_std(t);
      return std::pair(0.4 * m, std::sqrt(m * m * 0.0625 + std * std));
    };
    const Tensor x = golden_data(*context);
    FlowOptions options;
    const std::vector<float> z = encode(*sde, golden_score(*sde), x, options).x.to_host();
    const auto [mean_0, std_0] = at(options.eps);
    const auto [mean_1, std_1] = at(1.0);
    std::vector<double> expected;
    for (const double value : x.to_host_f64()) expected.push_back(mean_1 + (value - mean_0) * std_1 / std_0);
    expect_all_near(z, expected, 2e-4 * std_1);
  }
}

TEST(Latent, SlerpFollowsGreatCircles) {
  const auto context = create_context("cpu");
  const auto tensor = [&](std::vector<double> values) {
    return Tensor::from_host(*context, std::span<const double>(values), {4, 2}, DType::f32);
  };
  // A right angle, different norms, (nearly) no angle, opposite directions.
  const Tensor a = tensor({1, 0, 2, 0, 1, 1, 1, 0}), b = tensor({0, 1, 0, 3, 1, 1.00001, -1, 0});
  const double s = std::sin(0.25 * 1.5707963267948966), c = std::cos(0.25 * 1.5707963267948966);
  expect_all_near(slerp(a, b, 0.25).to_host(), {c, s, 2 * c, 3 * s, 1, 1.0000025, 0.5, 0}, 1e-6);
  EXPECT_EQ(slerp(a, b, 0.0).to_host(), a.to_host());
  expect_all_near(slerp(a, b, 1.0).to_host(), b.to_host_f64(), 1e-6);
  const Tensor zero = Tensor::zeros(*context, {4, 2});
  expect_all_near(slerp(zero, b, 0.5).to_host(), {0, 0.5, 0, 1.5, 0.5, 0.500005, -0.5, 0}, 1e-6);
  expect_error({"slerp"}, [&] { slerp(a, Tensor::zeros(*context, {4, 3}), 0.5); });
}

}  // namespace
}  // namespace sgm
