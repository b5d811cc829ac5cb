// Types and random numbers.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "sgm/core/error.h"
#include "sgm/core/random.h"
#include "sgm/core/types.h"

namespace sgm {
namespace {

TEST(Philox, MatchesThePublishedKnownAnswers) {
  const PhiloxWords zero = philox(0, 0, 0, 0, 0);
  EXPECT_EQ(zero.word[0], 0x6627e8d5u);
  EXPECT_EQ(zero.word[1], 0xe169c58du);
  EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
  const PhiloxWords ones = philox(~0u, ~0u, ~0u, ~0u, ~std::uint64_t{0});
  EXPECT_EQ(ones.word[0], 0x408f276du);
  EXPECT_EQ(ones.word[1], 0x41c83b0eu);
  EXPECT_EQ(ones.word[2], 0xa20bc7c6u);
  EXPECT_EQ(ones.word[3], 0x6d5451fdu);
  const PhiloxWords pi = philox(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0x299f31d0a4093822ull);
  EXPECT_EQ(pi.word[0], 0xd16cfe09u);
  EXPECT_EQ(pi.word[1], 0x94fdccebu);
  EXPECT_EQ(pi.word[2], 0x5001e420u);
  EXPECT_EQ(pi.word[3], 0x24126ea1u);
}

TEST(BoxMuller, AgreesWithLibmEverywhere) {
  double worst = 0;
  for (std::uint64_t i = 0; i < 2'000'000; ++i) {
    const PhiloxWords w = philox(static_cast<std::uint32_t>(i), 0, 0, 0, 7);
    const double u = static_cast<double>(uniform_from(w.word[0]));
    const double angle = 2.0 * M_PI * (static_cast<double>(w.word[1]) + 0.5) / 4294967296.0;
    const double radius = std::sqrt(-2.0 * std::log(u));
    const NormalPair n = normals_from(w.word[0], w.word[1]);
    worst = std::max(worst, std::abs(n.first - radius * std::sin(angle)));
    worst = std::max(worst, std::abs(n.second - radius * std::cos(angle)));
  }
  EXPECT_LT(worst, 2e-6);
}

TEST(BoxMuller, IsFiniteAtTheEndsOfTheRange) {
  for (const std::uint32_t a : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xfffffffeu, 0xffffffffu})
    for (const std::uint32_t b : {0u, 1u, 0x20000000u, 0x3fffffffu, 0x40000000u, 0x80000000u, 0xffffffffu}) {
      const NormalPair n = normals_from(a, b);
      EXPECT_TRUE(std::isfinite(n.first) && std::isfinite(n.second)) << a << ' ' << b;
      EXPECT_LT(std::hypot(n.first, n.second), 6.8);
    }
}

TEST(BoxMuller, HasTheMomentsOfTheStandardNormal) {
  constexpr int kBlocks = 1'000'000;
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  for (std::uint32_t i = 0; i < kBlocks; ++i) {
    float z[4];
    normals_of(philox(NoiseKey{.seed = 11}, i, 3), z);
    for (const float value : z) {
      const double v = value;
      m1 += v, m2 += v * v, m3 += v * v * v, m4 += v * v * v * v;
    }
  }
  const double n =
      4.0 * kBlocks;  // standard errors: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt n; bounds at 5 of them
  EXPECT_LT(std::abs(m1 / n), 5 / std::sqrt(n));
  EXPECT_LT(std::abs(m2 / n - 1), 5 * std::sqrt(2 / n));
  EXPECT_LT(std::abs(m3 / n), 5 * std::sqrt(15 / n));
  EXPECT_LT(std::abs(m4 / n - 3), 5 * std::sqrt(96 / n));
}

TEST(Bfloat16, RoundsToNearestEvenAndKeepsNaN) {
  EXPECT_EQ(float(bfloat16(1.0f)), 1.0f);
  EXPECT_EQ(float(bfloat16(1.00390625f)), 1.0f);       // halfway, even below
  EXPECT_EQ(float(bfloat16(1.01171875f)), 1.015625f);  // halfway, even above
  EXPECT_TRUE(std::isnan(float(bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(float(bfloat16(std::numeric_limits<float>::infinity()))));
}

TEST(Shape, CountsAndPrints) {
  const Shape shape{2, 3, 5, 7};
  EXPECT_EQ(shape.numel(), 210);
  EXPECT_EQ(shape[-1], 7);
  EXPECT_EQ(Shape{}.numel(), 1);
  std::ostringstream text;
  text << shape;
  EXPECT_EQ(text.str(), "[2, 3, 5, 7]");
}

TEST(Error, CarriesItsParts) {
  try {
    check(1 + 1 == 3, "op: expected ", 3, ", got ", 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "op: expected 3, got 2");
  }
}

}  // namespace
}  // namespace sgm
