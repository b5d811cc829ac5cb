// The judge of the other tests: what it must not let pass.

#include <gtest/gtest-spi.h>

#include <limits>
#include <numeric>

#include "check.h"

namespace sgm {
namespace {

const double kNan = std::numeric_limits<double>::quiet_NaN();
const double kInf = std::numeric_limits<double>::infinity();

TEST(Check, PassesEqualAndNearlyEqualNumbers) {
  const std::vector<double> expected = {1.0, -2.0, 0.0}, close = {1.0, -2.0, 1e-7};
  EXPECT_TRUE(compare(expected, expected, {0.0}).passes);
  EXPECT_TRUE(compare(close, expected, {1e-6}).passes);
  EXPECT_TRUE(compare(std::vector<double>(), std::vector<double>(), {0.0}).passes);
}

TEST(Check, FailsNanAndInfinityWhereverTheyAre) {
  for (const double bad : {kNan, kInf, -kInf})
    for (std::size_t at = 0; at < 3; ++at) {
      const std::vector<double> good = {1.0, 2.0, 3.0};
      std::vector<double> wrong = good;
      wrong[at] = bad;
      EXPECT_FALSE(compare(wrong, good, {1e30}).passes);
      EXPECT_FALSE(compare(good, wrong, {1e30}).passes);
      EXPECT_FALSE(compare(wrong, wrong, {1e30}).passes);
    }
  const std::vector<double> all(5, kNan);
  EXPECT_FALSE(compare(all, all, {1.0}).passes);
}

TEST(Check, ReportsNanAsAFailureWithItsIndex) {
  static const std::vector<double> wrong = {1.0, kNan}, expected = {1.0, 2.0};
  EXPECT_NONFATAL_FAILURE(expect_close(wrong, expected, {1.0}), "worst element 1 of 2: nan, expected 2");
}

TEST(Check, FailsOtherSizes) {
  EXPECT_FALSE(compare(std::vector<double>(2), std::vector<double>(3), {1.0}).passes);
}

TEST(Check, FindsOneWrongElementThatTheNormDoesNotSee) {
  const std::vector<double> expected = random_values(1'000'000, 1);
  std::vector<double> wrong = expected;
  wrong[123'456] += 0.5;  // 5e-4 of the norm
  EXPECT_FALSE(compare(wrong, expected, {1e-3, 1e-2}).passes);
  EXPECT_TRUE(compare(wrong, expected, {1e-3, 1.0}).passes);
}

TEST(Check, FindsASmallBiasEverywhereThatNoElementShows) {
  const std::vector<double> expected = random_values(10'000, 1);
  std::vector<double> wrong = expected;
  for (double& value : wrong) value += 0.01;
  EXPECT_FALSE(compare(wrong, expected, {5e-3, 1e-2}).passes);
  EXPECT_TRUE(compare(wrong, expected, {2e-2, 1e-2}).passes);
}

TEST(Check, WantsExactZeroWithoutAFloor) {
  const std::vector<double> zero(3), small(3, 1e-9);
  EXPECT_FALSE(compare(small, zero, {1.0}).passes);
  EXPECT_TRUE(compare(small, zero, {1e-6, 1e-6, 1.0}).passes);
}

TEST(Check, RandomValuesAreStandardNormalAndDifferBetweenStreams) {
  const std::vector<double> a = random_values(40'000, 1), b = random_values(40'000, 2);
  EXPECT_LT(std::abs(std::accumulate(a.begin(), a.end(), 0.0)), 5 * 200.0);
  EXPECT_LT(std::abs(dot(a, a) - 40'000), 5 * std::sqrt(2.0) * 200);
  EXPECT_LT(std::abs(dot(a, b)), 5 * 200.0);
}

TEST(Check, GuardsNoticeWhatIsWrittenOutsideAnOutputOrIntoAnInput) {
  static const std::unique_ptr<Context> context = create_context("cpu");
  EXPECT_NONFATAL_FAILURE(
      {
        const Guarded y(*context, 3, DType::f32);
        y.buffer().as<float>()[3] = 1.0f;
      },
      "written after the 3 f32 elements");
  EXPECT_NONFATAL_FAILURE(
      {
        const Guarded y(*context, 3, DType::bf16);
        y.buffer().as<std::uint16_t>()[-1] = 1;
      },
      "written before");
  EXPECT_NONFATAL_FAILURE(
      {
        const Guarded x(*context, std::vector<double>{1.0, 2.0}, DType::f64);
        x.buffer().as<double>()[0] = 3.0;
      },
      "an input has changed");
  const Guarded untouched(*context, 2, DType::f32);
  EXPECT_TRUE(std::isnan(untouched.values()[0]) && std::isnan(untouched.values()[1]));
}

TEST(Check, GradientChecksFailAWrongGradient) {
  static const std::unique_ptr<Context> context = create_context("cpu");
  static const Function f = [](std::span<const Var> v) {
    return record("wrong", v[0].value().clone(), {v[0]}, [](const Gradient& dy, InputGradients& into) {
      const Tensor right = dy.value();
      std::vector<double> grad = right.to_host_f64();
      grad[2] *= 1.0 + 1e-5;
      into.add(0, {tensor_of(right.context(), grad, right.shape(), right.dtype())});
    });
  };
  static const std::vector<Values> inputs = {{{5}, random_values(5, 1)}};
  EXPECT_NONFATAL_FAILURE(expect_gradients(*context, f, inputs, 1), "difference quotient");
  EXPECT_NONFATAL_FAILURE(expect_adjoint(*context, f, inputs, 0), "<Ax, u>");
}

}  // namespace
}  // namespace sgm
