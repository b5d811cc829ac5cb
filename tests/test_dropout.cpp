// Dropout: a mask is a pure function of key, sample and element.

#include <gtest/gtest.h>

#include "check.h"
#include "devices.h"
#include "naive.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

constexpr double kRate = 0.3;
const NoiseKey kKey{77, static_cast<Purpose>(static_cast<std::uint32_t>(Purpose::dropout) + 3), 1234, 0};

/// The factors 0 and 1 / (1 - rate) themselves: a norm whose gamma is 0 and beta 1.
Var masked(Context& context, const Shape& shape, double rate, const NoiseKey& key, const Var& beta) {
  const Var x(Tensor::zeros(context, shape)), gamma(Tensor::zeros(context, {shape[3]}));
  return group_norm(x, gamma, beta, {1, 1e-6, Activation::none, rate, key});
}

std::vector<double> mask(Context& context, const Shape& shape, const NoiseKey& key, double rate = kRate) {
  const Var ones(Tensor::full(context, {shape[3]}, 1.0));
  return masked(context, shape, rate, key, ones).value().to_host_f64();
}

double share_of_equals(const std::vector<double>& a, const std::vector<double>& b) {
  double equal = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  return equal / static_cast<double>(a.size());
}

using Dropout = DeviceTest;
INSTANTIATE_TEST_SUITE_P(Devices, Dropout, testing::ValuesIn(test_devices()), device_name);

TEST_P(Dropout, IsWhatTheDefinitionOfTheMaskSays) {
  for (const Shape& shape : {Shape{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 4, 4, 64}, {2, 3, 3, 130}}) {
    std::vector<double> expected;
    for (std::int64_t n = 0; n < shape[0]; ++n)
      for (std::int64_t e = 0; e < shape.numel() / shape[0]; ++e)
        expected.push_back(rounded(naive::keep_factor(kRate, kKey, n, e), DType::f32));
    EXPECT_EQ(mask(context(), shape, kKey), expected);
  }
}

TEST_P(Dropout, KeepsAtItsRateAndKeepsTheMean) {
  const Shape shape{16, 16, 16, 64};
  const double n = static_cast<double>(shape.numel());
  for (const double rate : {0.1, 0.5, 0.9}) {
    double kept = 0.0, sum = 0.0, both = 0.0;
    const std::vector<double> factors = mask(context(), shape, kKey, rate);
    for (std::size_t i = 0; i < factors.size(); ++i) {
      EXPECT_TRUE(factors[i] == 0.0 || factors[i] == rounded(1.0 / (1.0 - rate), DType::f32));
      kept += factors[i] != 0.0, sum += factors[i];
      both += i > 0 && factors[i] != 0.0 && factors[i - 1] != 0.0;
    }
    const double keep = 1.0 - rate, sigma = std::sqrt(rate * keep / n);
    EXPECT_NEAR(kept / n, keep, 5 * sigma);
    EXPECT_NEAR(sum / n, 1.0, 5 * sigma / keep);
    // Neighbours are independent; the count of pairs has a variance below three times a single one's.
    EXPECT_NEAR(both / n, keep * keep, 5 * std::sqrt(3.0) * sigma);
  }
}

TEST_P(Dropout, DependsOnEveryPartOfTheKeyAndOnNothingElse) {
  const auto one_thread = create_context(GetParam(), 1), two_threads = create_context(GetParam(), 2);
  const Shape shape{4, 8, 8, 16};
  const std::vector<double> reference = mask(*one_thread, shape, kKey);
  EXPECT_EQ(mask(*one_thread, shape, kKey), reference);
  EXPECT_EQ(mask(*two_threads, shape, kKey), reference);
  NoiseKey seed = kKey, purpose = kKey, step = kKey, sample = kKey;
  ++seed.seed, ++step.step, ++sample.first_sample;
  purpose.purpose = Purpose::dropout;
  // Independent masks agree at the share of keep^2 + rate^2 = 0.58; 4096 elements, sigma 0.008.
  for (const NoiseKey& other : {seed, purpose, step, sample})
    EXPECT_NEAR(share_of_equals(mask(*one_thread, shape, other), reference), 0.58, 0.04);
}

TEST_P(Dropout, FollowsTheSampleNotItsPlaceInTheBatch) {
  const std::vector<double> all = mask(context(), {6, 5, 5, 3}, kKey);
  for (std::uint32_t first = 0; first < 6; ++first) {
    NoiseKey key = kKey;
    key.first_sample = first;
    const std::vector<double> alone = mask(context(), {1, 5, 5, 3}, key);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + first * 75)) << first;
  }
}

TEST_P(Dropout, PassesGradientsThroughTheSameMask) {
  const Shape shape{3, 5, 7, 6};
  const Var beta(Tensor::full(context(), {6}, 1.0), true);
  const Var y = masked(context(), shape, kRate, kKey, beta);
  const std::vector<double> factors = y.value().to_host_f64(), dy = random_values(shape.numel(), 1);
  y.backward(tensor_of(context(), dy, shape, DType::f32));
  std::vector<double> expected(6);
  for (std::size_t i = 0; i < dy.size(); ++i) expected[i % 6] += factors[i] * dy[i];
  expect_close(beta.grad().to_host_f64(), expected, {1e-6});
}

TEST_P(Dropout, AtRateZeroLeavesEverything) {
  for (const double factor : mask(context(), {2, 5, 5, 3}, kKey, 0.0)) EXPECT_EQ(factor, 1.0);
}

}  // namespace
}  // namespace sgm
