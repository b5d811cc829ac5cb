// Densities in closed form: the pieces agree with each other, files are read and refused, and what is built
// on them (two-sample tests, Fokker-Planck) finds what it should.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numbers>

#include "check.h"
#include "closed_form.h"
#include "expect_error.h"
#include "lab/fokker_planck.h"
#include "lab/two_sample.h"
#include "sgm/lab/density.h"
#include "temp_folder.h"

namespace sgm {
namespace {

const std::string kFolder = SGM_SOURCE_DIR "/configs/lab/";
const char* const kFiles[] = {"mixture",    "two_modes", "rings", "checkerboard",
                              "swiss_roll", "two_moons", "points"};
constexpr Marginal kData{1.0, 0.0};

std::unique_ptr<Density> of_file(const std::string& name) { return load_density(kFolder + name + ".toml"); }

std::unique_ptr<Density> of_text(const std::string& text) { return parse_density(text, "density.toml"); }

/// In three dimensions and in one, besides the files.
std::unique_ptr<Density> mixture_of_dim(int dim) {
  if (dim == 1)
    return of_text("kind = 'gaussian_mixture'\nweights = [0.3, 0.7]\nmeans = [-1, 1.5]\nstds = [0.4, 0.2]");
  return of_text(
      "kind = 'gaussian_mixture'\nweights = [0.25, 0.75]\nmeans = [[0, 1, -1], [1, 0, 0.5]]\n"
      "covariances = [[[1, 0.3, 0.1], [0.3, 0.5, -0.2], [0.1, -0.2, 0.7]],\n"
      "               [[0.2, 0, 0], [0, 0.3, 0.1], [0, 0.1, 0.4]]]");
}

std::vector<std::unique_ptr<Density>> all_densities() {
  std::vector<std::unique_ptr<Density>> all;
  for (const char* file : kFiles) all.push_back(of_file(file));
  for (const int dim : {1, 3}) all.push_back(mixture_of_dim(dim));
  return all;
}

using Point = std::vector<double>;

/// Points where the density is and where it is not.
std::vector<Point> places(const Density& density, const Marginal& at) {
  const std::size_t d = static_cast<std::size_t>(density.dim());
  const Point draws = density.sample(6, 3, 0, at);
  std::vector<Point> points;
  for (std::size_t i = 0; i < 6; ++i) {
    points.emplace_back(draws.begin() + static_cast<long>(i * d),
                        draws.begin() + static_cast<long>((i + 1) * d));
    for (double& x : points.back()) x = x * (i < 3 ? 1.0 : 1.3) + 0.01 * static_cast<double>(i);
  }
  return points;
}

/// (f(x + h) - f(x - h)) / 2h to fourth order.
template <class F>
double derivative(const F& f, double h) {
  return (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h);
}

TEST(Density, ScoresAreTheDerivativesOfLogDensities) {
  for (const auto& density : all_densities())
    for (const Marginal at : {Marginal{0.9, 0.15}, Marginal{1.0, 3.0}, Marginal{0.02, 0.99}, kData}) {
      SCOPED_TRACE(density->name() + " std " + std::to_string(at.std));
      if (at.std == 0 && density->name() == "checkerboard") continue;
      const auto perturbed = density->at(at);
      for (const Point& x : places(*density, at)) {
        Point score(x.size()), moved = x, direction(x.size()), again(x.size()), product(x.size());
        const double log_prob = perturbed->score(x, score);
        EXPECT_EQ(log_prob, perturbed->log_prob(x));
        double norm = 1.0;
        for (const double s : score) norm += std::abs(s);
        for (std::size_t i = 0; i < x.size(); ++i) direction[i] = 0.7 - 0.4 * static_cast<double>(i);
        perturbed->score_product(x, direction, again, product);
        EXPECT_EQ(score, again);
        const double h = 2e-3 * std::hypot(at.std, at.std == 0 ? 0.05 : 0.0);
        for (std::size_t i = 0; i < x.size(); ++i) {
          const double slope = derivative(
              [&](double step) {
                moved[i] = x[i] + step;
                const double value = perturbed->log_prob(moved);
                moved[i] = x[i];
                return value;
              },
              h);
          EXPECT_TRUE(std::abs(slope - score[i]) <= 1e-7 * norm) << slope << " is not " << score[i];
          const double bend = derivative(
              [&](double step) {
                for (std::size_t j = 0; j < x.size(); ++j) moved[j] = x[j] + step * direction[j];
                perturbed->score(moved, again);
                moved = x;
                return again[i];
              },
              h);
          EXPECT_TRUE(std::abs(bend - product[i]) <= 1e-6 * norm * std::max(norm, 1.0 / h))
              << bend << " is not " << product[i];
        }
      }
    }
}

TEST(Density, BatchesAgreeWithSinglePoints) {
  for (const auto& density : all_densities()) {
    const std::size_t d = static_cast<std::size_t>(density->dim()), n = 37;
    const Marginal at{0.8, 0.3};
    const Point x = density->sample(n, 1, 0, at);
    Point many(x.size()), one(d);
    density->at(at)->scores(x, many);
    for (std::size_t i = 0; i < n; ++i) {
      density->score(std::span(x).subspan(i * d, d), at, one);
      for (std::size_t j = 0; j < d; ++j)
        EXPECT_TRUE(std::abs(one[j] - many[i * d + j]) <= 1e-12 * (1.0 + std::abs(one[j])));
    }
  }
}

TEST(Density, ProbabilitiesAddUpToOne) {
  // Midpoints on a fine grid: for smooth densities the error falls exponentially with the spacing.
  for (const char* file : kFiles)
    for (const Marginal at : {Marginal{1.0, 0.15}, Marginal{0.3, 0.8}}) {
      const auto density = of_file(file);
      const auto perturbed = density->at(at);
      const double half = at.mean_coeff * 10.0 + 8.0 * at.std, width = 0.5 * at.std;
      double sum = 0.0;
      for (double x = -half; x < half; x += width)
        for (double y = -half; y < half; y += width) sum += std::exp(perturbed->log_prob(Point{x, y}));
      EXPECT_TRUE(std::abs(sum * width * width - 1.0) < 1e-6) << file << ": " << sum * width * width;
    }
}

TEST(Density, PerturbationIsConvolution) {
  // The density of m X + s z at y is the mean of N(y; m x, s^2) over draws x of X: by many draws of the data.
  constexpr std::int64_t kDraws = 40'000;
  for (const char* file : kFiles) {
    const auto density = of_file(file);
    const Point draws = density->sample(kDraws, 11);
    const Marginal at{0.7, 0.4};
    for (const Point& y : places(*density, at)) {
      double sum = 0.0, squares = 0.0;
      for (std::size_t i = 0; i < draws.size(); i += 2) {
        const double u = (y[0] - at.mean_coeff * draws[i]) / at.std,
                     v = (y[1] - at.mean_coeff * draws[i + 1]) / at.std;
        const double kernel = std::exp(-0.5 * (u * u + v * v)) / (2.0 * std::numbers::pi * at.std * at.std);
        sum += kernel, squares += kernel * kernel;
      }
      const double mean = sum / kDraws, error = std::sqrt((squares / kDraws - mean * mean) / kDraws);
      const double exact = std::exp(density->log_prob(y, at));
      EXPECT_TRUE(std::abs(mean - exact) <= 5.0 * error)
          << file << ": " << mean << " is not " << exact << " +- " << error;
    }
  }
}

TEST(Density, SamplesHaveTheDensity) {
  // Pearson's statistic over squares that cover the density, whose probabilities come from log_prob().
  constexpr int kCells = 16, kFine = 12;
  constexpr std::int64_t kDraws = 20'000;
  for (const char* file : kFiles) {
    const auto density = of_file(file);
    const Marginal at{0.8, 0.2};
    const auto perturbed = density->at(at);
    const double low = 0.8 * density->range().low,
                 width = 0.8 * (density->range().high - density->range().low) / kCells;
    std::vector<double> expected(kCells * kCells, 0.0), counted(expected.size(), 0.0);
    for (int i = 0; i < kCells * kFine; ++i)
      for (int j = 0; j < kCells * kFine; ++j)
        expected[static_cast<std::size_t>(i / kFine * kCells + j / kFine)] +=
            std::exp(perturbed->log_prob(
                Point{low + width * (i + 0.5) / kFine, low + width * (j + 0.5) / kFine})) *
            width * width / (kFine * kFine) * static_cast<double>(kDraws);
    const Point draws = density->sample(kDraws, 5, 0, at);
    for (std::size_t s = 0; s < draws.size(); s += 2) {
      const int i = static_cast<int>(std::floor((draws[s] - low) / width)),
                j = static_cast<int>(std::floor((draws[s + 1] - low) / width));
      if (i >= 0 && j >= 0 && i < kCells && j < kCells) ++counted[static_cast<std::size_t>(i * kCells + j)];
    }
    double statistic = 0.0, degrees = -1.0, rest_expected = 0.0, rest_counted = 0.0;
    for (std::size_t c = 0; c < expected.size(); ++c)
      if (expected[c] >= 10.0) {
        statistic += std::pow(counted[c] - expected[c], 2) / expected[c];
        ++degrees;
      } else {
        rest_expected += expected[c], rest_counted += counted[c];
      }
    if (rest_expected > 10.0)
      statistic += std::pow(rest_counted - rest_expected, 2) / rest_expected, ++degrees;
    EXPECT_GT(degrees, 10.0) << file;
    EXPECT_GT(chi_squared_tail(statistic, degrees), 1e-3) << file << ": " << statistic << " of " << degrees;
  }
}

TEST(Density, MomentsAreThoseOfSamples) {
  for (const auto& density : all_densities()) {
    const std::size_t d = static_cast<std::size_t>(density->dim());
    constexpr std::int64_t kDraws = 40'000;
    const Point x = density->sample(kDraws, 2), mean = density->mean(), covariance = density->covariance();
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j < d; ++j) {
        double sum = 0.0, squares = 0.0, first = 0.0;
        for (std::size_t s = 0; s < x.size(); s += d) {
          const double value = (x[s + i] - mean[i]) * (x[s + j] - mean[j]);
          sum += value / kDraws, squares += value * value / kDraws, first += x[s + i] / kDraws;
        }
        EXPECT_TRUE(std::abs(sum - covariance[i * d + j]) <= 5.0 * std::sqrt((squares - sum * sum) / kDraws))
            << density->name();
        EXPECT_TRUE(std::abs(first - mean[i]) <= 5.0 * std::sqrt(covariance[i * d + i] / kDraws))
            << density->name();
      }
  }
}

TEST(Density, ASampleDependsOnItsIndexAlone) {
  for (const auto& density : all_densities()) {
    const std::size_t d = static_cast<std::size_t>(density->dim());
    const Point all = density->sample(20, 9, 0), later = density->sample(5, 9, 13);
    EXPECT_TRUE(std::equal(later.begin(), later.end(), all.begin() + static_cast<long>(13 * d)));
    EXPECT_NE(density->sample(5, 10, 13), later);
  }
}

TEST(Density, FarFromEverythingScoresStayFinite) {
  for (const auto& density : all_densities())
    for (const Marginal at : {Marginal{1.0, 0.01}, Marginal{1e-3, 1.0}}) {
      Point x(static_cast<std::size_t>(density->dim()), 300.0), score(x.size()), product(x.size());
      density->at(at)->score_product(x, x, score, product);
      double inwards = 0.0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        inwards -= score[i];
        EXPECT_TRUE(std::isfinite(score[i]) && std::isfinite(product[i])) << density->name();
      }
      EXPECT_GT(inwards, 0.0) << density->name();
      x[0] = std::nan("");
      EXPECT_TRUE(std::isnan(density->log_prob(x, at))) << density->name();
    }
}

TEST(Density, TheCheckerboardWithoutNoiseIsUniform) {
  const auto board = of_file("checkerboard");
  EXPECT_NEAR(board->log_prob(Point{-1.5, -1.5}), -std::log(8.0), 1e-12);
  EXPECT_EQ(board->log_prob(Point{-0.5, -1.5}), -INFINITY);
  Point score(2, 7.0);
  board->score(Point{-0.5, -1.5}, kData, score);
  EXPECT_EQ(score, (Point{0.0, 0.0}));
}

TEST(Density, ExactScoresOfBatches) {
  const auto context = create_context("cpu");
  const auto density = of_file("mixture");
  const auto sde = make_sde("vpsde", 100);
  const ScoreFn score = exact_score(*density, *sde);
  const ScoreProductFn product = exact_score_product(*density, *sde);
  const Tensor x = sample_tensor(*density, *context, 5, 1), v = sample_tensor(*density, *context, 5, 2);
  EXPECT_EQ(x.shape(), (Shape{5, 1, 1, 2}));
  std::vector<ImageTime> times;
  for (int i = 0; i < 5; ++i) times.push_back({{.t = 0.1 + 0.2 * (i % 3)}, i});
  const Tensor result = score(x, times);
  EXPECT_EQ(result.dtype(), DType::f32);
  const ScoreAndProduct both = product(x.to(DType::f64), v.to(DType::f64), times);
  for (std::size_t i = 0; i < 5; ++i) {
    const Marginal at{sde->mean_coeff(times[i].t), sde->marginal_std(times[i].t)};
    const Point here = x.to_host_f64(), along = v.to_host_f64();
    Point s(2), p(2);
    density->at(at)->score_product(std::span(here).subspan(2 * i, 2), std::span(along).subspan(2 * i, 2), s,
                                   p);
    for (std::size_t j = 0; j < 2; ++j) {
      EXPECT_NEAR(result.to_host_f64()[2 * i + j], s[j], 1e-6 * (1.0 + std::abs(s[j])));
      EXPECT_EQ(both.score.to_host_f64()[2 * i + j], s[j]);
      EXPECT_EQ(both.product.to_host_f64()[2 * i + j], p[j]);
    }
  }
  EXPECT_EQ(score(x.reshape({5, 2}), times).to_host(), result.to_host());
  expect_error({"density", "[5, 2]", "[10, 1]"}, [&] { score(x.reshape({10, 1}), times); });
}

TEST(Density, BadFilesAreRefused) {
  const std::string mixture = "kind = 'gaussian_mixture'\n";
  const std::pair<std::string, std::vector<std::string>> cases[] = {
      {"", {"density.toml", "kind", "missing"}},
      {"kind = 'ring'", {"density.toml:1", "'ring' is unknown", "rings"}},
      {"kind = 'rings'\nradius = 1", {"density.toml:2", "unknown key radius", "radii"}},
      {"kind = 'rings'\nradii = [1, 'x']", {"density.toml:2", "radii", "string"}},
      {"kind = 'rings'\nradii = [1]\nwidth = 0", {"width", "positive"}},
      {"kind = 'rings'\nradii = [1e5]\nwidth = 1e-4", {"width", "too fine"}},
      {"kind = 'swiss_roll'\ninner = 2\nouter = 1", {"inner", "outer"}},
      {"kind = 'checkerboard'\ncells = 1", {"density.toml:2", "cells", "1"}},
      {"kind = 'two_moons'\nrange = [2, 1]", {"range", "low < high"}},
      {mixture + "weights = [0.5, 0.4]\nmeans = [[0], [1]]\nstds = [1, 1]",
       {"density.toml", "sum to 1", "0.9"}},
      {mixture + "weights = [1.5, -0.5]\nmeans = [[0], [1]]\nstds = [1, 1]", {"negative", "-0.5"}},
      {mixture + "weights = [1]\nmeans = [[0], [1]]\nstds = [1, 1]", {"weights", "2 means", "1"}},
      {mixture + "weights = [0.5, 0.5]\nmeans = [[0, 1], [1]]\nstds = [1, 1]", {"means", "same length"}},
      {mixture + "weights = [0.5, 0.5]\nmeans = [[0, 1], [1, 1]]\nstds = [1]", {"stds", "2 components"}},
      {mixture + "weights = [1]\nmeans = [[0, 1]]\nstds = [-1]", {"stds", "positive"}},
      {mixture + "weights = [1]\nmeans = [[0, 1]]\ncovariances = [[[1]]]", {"covariances", "2 x 2"}},
      {mixture + "weights = [1]\nmeans = [[0, 1]]\ncovariances = [[[1, 2], [2, 1]]]",
       {"component 1", "not positive definite"}},
      {mixture + "weights = [1]\nmeans = [[0, 1]]\ncovariances = [[[1, 2], [0, 9]]]",
       {"component 1", "not symmetric"}},
      {mixture + "weights = [1]\nmeans = [[0, 1]]", {"covariances", "stds"}},
      {mixture + "weights = [1]\nmeans = [[0, nan]]\nstds = [1]", {"means", "finite"}},
      {"kind = 'points'\nfile = 'no_such.csv'", {"no_such.csv"}},
  };
  for (const auto& [text, parts] : cases) {
    SCOPED_TRACE(text);
    expect_error(parts, [&, &source = text] { of_text(source); });
  }
}

TEST(Density, BadPointsAreRefused) {
  const TempFolder folder;
  const auto of_points = [&](const std::string& points) {
    std::ofstream(folder.path() / "p.csv") << points;
    return parse_density("kind = 'points'\nfile = 'p.csv'\nbandwidth = 0.1", folder.path() / "d.toml");
  };
  const auto density = of_points("# x, y\n1, 2\r\n\n3,4.5\n");
  EXPECT_EQ(density->dim(), 2);
  EXPECT_EQ(density->mean(), (Point{2.0, 3.25}));
  expect_error({"p.csv:2", "3 numbers", "2"}, [&] { of_points("1,2\n1,2,3\n"); });
  expect_error({"p.csv:2", "'x'"}, [&] { of_points("1,2\n1,x\n"); });
  expect_error({"p.csv:1", "''"}, [&] { of_points("1,\n"); });
  expect_error({"p.csv:1", "inf"}, [&] { of_points("1,inf\n"); });
  expect_error({"p.csv", "1 points"}, [&] { of_points("1,2\n"); });
}

// ---- two-sample tests -------------------------------------------------------------------------------------

TEST(TwoSample, ChiSquaredTails) {
  EXPECT_NEAR(chi_squared_tail(2.0 * std::log(20.0), 2.0), 0.05, 1e-14);  // an exponential
  EXPECT_NEAR(chi_squared_tail(3.841458820694124, 1.0), 0.05, 1e-12);
  EXPECT_NEAR(chi_squared_tail(20.0, 45.0) + 1.0, 1.9995, 1e-3);
  EXPECT_NEAR(chi_squared_tail(18.307038053275146, 10.0), 0.05, 1e-12);
  EXPECT_EQ(chi_squared_tail(NAN, 3.0), 0.0);
}

std::unique_ptr<Density> three_modes(double weight_off, double mean_off, double std_factor = 1.0) {
  std::vector<double> means = {1.5, 0.0, -1.2, 1.0, -0.5, -1.6}, covariances;
  const double stds[] = {0.4, 0.3, 0.25};
  for (std::size_t k = 0; k < 3; ++k) {
    means[2 * k] += mean_off * stds[k];
    const double v = std::pow(stds[k] * std_factor, 2);
    for (const double value : {v, 0.0, 0.0, v}) covariances.push_back(value);
  }
  return gaussian_mixture("modes", {0.5 + weight_off, 0.3 - weight_off, 0.2}, means, covariances);
}

TEST(TwoSample, RejectsSmallErrorsAndNothingElse) {
  constexpr std::int64_t kPoints = 50'000;
  const Point truth = three_modes(0, 0)->sample(kPoints, 1);
  const auto p = [&](const Density& density) {
    return two_sample_test(density.sample(kPoints, 2), truth, 2).p;
  };
  EXPECT_GT(p(*three_modes(0, 0)), 0.01);
  EXPECT_LT(p(*three_modes(0.02, 0)), 1e-3) << "weights";
  EXPECT_LT(p(*three_modes(0, 0.05)), 1e-3) << "means";
  EXPECT_LT(p(*three_modes(0, 0, 1.03)), 1e-3) << "widths";
  Point broken = truth;
  broken[77] = NAN;
  EXPECT_EQ(two_sample_test(broken, truth, 2).p, 0.0);
}

TEST(TwoSample, PValuesOfEqualDistributionsAreUniform) {
  std::vector<double> p_values, of_ks;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const Point a = three_modes(0, 0)->sample(1500, 2 * seed),
                b = three_modes(0, 0)->sample(1500, 2 * seed + 1);
    p_values.push_back(two_sample_test(a, b, 2, seed).p);
    of_ks.push_back(ks_test(Point(a.begin(), a.begin() + 1500), Point(b.begin(), b.begin() + 1500)).p);
  }
  const auto uniform = [](double p) { return p; };
  EXPECT_GT(ks_test(p_values, uniform).p, 1e-3);
  EXPECT_GT(ks_test(of_ks, uniform).p, 1e-3);
  for (double& p : p_values) p = p * p;
  EXPECT_LT(ks_test(p_values, uniform).p, 1e-3);
}

// ---- Fokker-Planck ----------------------------------------------------------------------------------------

/// Largest difference from the exact marginal after [0.1, 0.6].
double fokker_planck_error(const SDE& sde, const Density& density, int cells, int steps) {
  const auto exact = [&](double t) {
    return
        [perturbed = std::shared_ptr<PerturbedDensity>(density.at({sde.mean_coeff(t), sde.marginal_std(t)}))](
            double x) { return std::exp(perturbed->log_prob(Point{x})); };
  };
  const double half = sde.drift(0.5) == 0.0 ? 40.0 : 8.0;
  const GridDensity start = grid_density(-half, half, cells, exact(0.1));
  const GridDensity end = fokker_planck(sde, start, 0.1, 0.6, steps),
                    truth = grid_density(-half, half, cells, exact(0.6));
  EXPECT_NEAR(end.mass(), 1.0, 1e-12);
  double error = 0.0;
  for (std::size_t i = 0; i < end.p.size(); ++i) {
    EXPECT_GE(end.p[i], -1e-15);
    error = std::max(error, std::abs(end.p[i] - truth.p[i]));
  }
  return error;
}

TEST(FokkerPlanck, SecondOrderInSpaceAndTime) {
  const auto density = mixture_of_dim(1);
  for (const std::string& name : sde_names()) {
    SCOPED_TRACE(name);
    SDEConfig config;
    config.name = name;
    config.sigma_min = 0.2, config.sigma_max = 5.0;
    const auto sde = create_sde(config);
    const double in_space = std::log2(fokker_planck_error(*sde, *density, 500, 2000) /
                                      fokker_planck_error(*sde, *density, 1000, 2000));
    EXPECT_NEAR(in_space, 2.0, 0.1);
    const double in_time = std::log2(fokker_planck_error(*sde, *density, 8000, 20) /
                                     fokker_planck_error(*sde, *density, 8000, 40));
    EXPECT_NEAR(in_time, 2.0, 0.2);
    EXPECT_LT(fokker_planck_error(*sde, *density, 4000, 1000), 2e-5);
  }
}

TEST(FokkerPlanck, NothingLeavesThroughTheEnds) {
  // A domain far too narrow: mass stays, and under VP it settles where the flux vanishes, exp(-x^2 / 2).
  SDEConfig config;
  config.name = "vpsde";
  const auto sde = create_sde(config);
  const GridDensity start = grid_density(-1.0, 1.5, 101, [](double x) { return x > 1.0 ? 1.0 : 0.0; });
  const GridDensity end = fokker_planck(*sde, start, 0.0, 1.0, 4000);
  EXPECT_NEAR(end.mass(), 1.0, 1e-12);
  const GridDensity settled = grid_density(-1.0, 1.5, 101, [](double x) { return std::exp(-0.5 * x * x); });
  for (std::size_t i = 0; i < end.p.size(); ++i) EXPECT_NEAR(end.p[i], settled.p[i], 1e-4);
  expect_error({"fokker_planck", "3 cells"}, [] { grid_density(0.0, 1.0, 2, [](double) { return 1.0; }); });
}

}  // namespace
}  // namespace sgm
