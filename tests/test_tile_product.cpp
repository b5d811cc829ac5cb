// The matrix product inside convolutions: all kinds, with and without wide vectors, against plain loops.

#include "backend/cpu/tile_product.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <vector>

namespace sgm {
namespace {

struct ProductCase {
  std::int64_t rows, words, columns, a_row, a_word, c_row;
};

// Rows of a by words, or by rows; one more, one less than a block of 12 rows; both widths of a panel.
const ProductCase kProducts[] = {{1, 1, 16, 1, 1, 16},   {11, 7, 32, 7, 1, 32},  {12, 64, 32, 70, 1, 48},
                                 {13, 5, 16, 1, 13, 32}, {32, 9, 32, 1, 32, 32}, {29, 3, 32, 3, 1, 64}};

enum class Kind { floats, integers, bfloats };

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

std::vector<std::uint32_t> words(std::int64_t count, std::uint32_t seed, Kind kind) {
  std::vector<std::uint32_t> values(static_cast<std::size_t>(count));
  for (std::uint32_t& value : values) {
    seed = seed * 1664525u + 1013904223u;
    const float one = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f, other = 0.3f - one;
    value = kind == Kind::integers ? seed
            : kind == Kind::floats ? bits_of(one)
                                   : bits_of(one) >> 16 | (bits_of(other) & 0xffff0000u);
  }
  return values;
}

/// A word of either kind times another.
double dot(std::uint32_t a, std::uint32_t b, Kind kind) {
  if (kind == Kind::floats) return double{std::bit_cast<float>(a)} * std::bit_cast<float>(b);
  const auto low = [kind](std::uint32_t word) {
    return kind == Kind::integers ? double(static_cast<std::int16_t>(word))
                                  : double{std::bit_cast<float>(word << 16)};
  };
  return low(a) * low(b) + low(a >> 16) * low(b >> 16);
}

void expect_products(void (*multiply)(const TileProduct&), Kind kind, double tolerance,
                     bool accumulate = false) {
  const bool integers = kind == Kind::integers;
  constexpr float kBefore = -7.0f;
  for (const ProductCase& test : kProducts) {
    SCOPED_TRACE(testing::Message() << test.rows << " x " << test.words << " x " << test.columns);
    // Sums of 16-bit integers may not leave 32 bits: a's are small.
    std::vector<std::uint32_t> a = words(test.rows * test.a_row + test.words * test.a_word, 1, kind);
    if (integers)
      for (std::uint32_t& word : a) word = (word & 0x00ff00ffu) - 0x00400040u;
    const std::vector<std::uint32_t> b = words(test.words * test.columns, 2, kind);
    std::vector<float> c(static_cast<std::size_t>(test.rows * test.c_row), kBefore);
    std::vector<float> row_unit(static_cast<std::size_t>(test.rows)), column_unit(32);
    for (std::size_t i = 0; i < row_unit.size(); ++i) row_unit[i] = 0.5f + static_cast<float>(i);
    for (std::size_t i = 0; i < column_unit.size(); ++i)
      column_unit[i] = 1.0f / (1.0f + static_cast<float>(i));
    multiply({a.data(), test.a_row, test.a_word, b.data(), c.data(), test.c_row,
              integers ? row_unit.data() : nullptr, integers ? column_unit.data() : nullptr, test.rows,
              test.words, test.columns, 0, accumulate});
    for (std::int64_t m = 0; m < test.rows; ++m)
      for (std::int64_t n = 0; n < test.c_row; ++n) {
        const float actual = c[static_cast<std::size_t>(m * test.c_row + n)];
        if (n >= test.columns) {
          EXPECT_EQ(actual, kBefore) << "beyond the panel, at " << m << ", " << n;
          continue;
        }
        double expected = accumulate ? kBefore : 0, magnitude = std::abs(expected);
        for (std::int64_t k = 0; k < test.words; ++k) {
          const double product = dot(a[static_cast<std::size_t>(m * test.a_row + k * test.a_word)],
                                     b[static_cast<std::size_t>(k * test.columns + n)], kind);
          expected += product, magnitude += std::abs(product);
        }
        const double unit = integers ? double{row_unit[static_cast<std::size_t>(m)]} *
                                           column_unit[static_cast<std::size_t>(n)]
                                     : 1;
        EXPECT_NEAR(actual, unit * expected, unit * (tolerance * magnitude)) << "at " << m << ", " << n;
      }
  }
}

// Sums of integers are exact: what remains is their conversion to float and two factors.
TEST(TileProduct, OfIntegersIsExactInAllItsForms) {
  expect_products(multiply_integers, Kind::integers, 4 * 0x1p-24);
  expect_products(multiply_integers_plainly, Kind::integers, 4 * 0x1p-24);
}

TEST(TileProduct, OfFloatsIsTheSumInAllItsForms) {
  for (const bool accumulate : {false, true}) {
    expect_products(multiply_floats, Kind::floats, 64 * 0x1p-24, accumulate);
    expect_products(multiply_floats_plainly, Kind::floats, 64 * 0x1p-24, accumulate);
  }
}

TEST(TileProduct, OfBfloatsIsTheSumInAllItsForms) {
  for (const bool accumulate : {false, true}) {
    expect_products(multiply_bfloats, Kind::bfloats, 128 * 0x1p-24, accumulate);
    expect_products(multiply_bfloats_plainly, Kind::bfloats, 128 * 0x1p-24, accumulate);
  }
}

}  // namespace
}  // namespace sgm
