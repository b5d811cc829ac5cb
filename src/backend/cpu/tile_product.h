#pragma once
// The matrix product inside convolutions and attention: small enough for one thread's caches, of words that
// lie in the order in which it reads them.

#include <cstdint>

namespace sgm {

/// c(m, n) = row_unit[m] column_unit[n] sum over k of a(m, k) . b(k, n).
/// a and b hold words of 32 bits: of a float, of two bfloat16, or of two 16-bit integers, the inner product
/// of which counts. Sums of integers must stay below 2^31; the others have no units.
struct TileProduct {
  /// What words lie in may hold numbers of another type.
  using Word [[gnu::may_alias]] = std::uint32_t;
  static constexpr int kColumns = 32;  // of a panel, at most
  static constexpr int kRows = 12;  // that are multiplied at a time: two vectors of each fill the registers

  const Word* a;  // [rows, words], rows a_row words apart and words a_word
  std::int64_t a_row, a_word;
  const std::uint32_t* b;  // [words, columns], dense: one panel
  float* c;                // [rows, columns], rows c_row apart
  std::int64_t c_row;
  const float *row_unit, *column_unit;
  std::int64_t rows, words, columns;  // columns: 16 or 32
  std::int64_t a_next = 0;  // words from a to rows that are wanted next, which are fetched meanwhile
  bool accumulate = false;  // add to what c holds; not of integers
};

void multiply_floats(const TileProduct& product);
void multiply_integers(const TileProduct& product);
void multiply_bfloats(const TileProduct& product);

/// The same on processors without AVX-512 and its products of halves, which take bfloat16 below 2^-126 for
/// zero.
void multiply_floats_plainly(const TileProduct& product);
void multiply_integers_plainly(const TileProduct& product);
void multiply_bfloats_plainly(const TileProduct& product);

/// Whether this processor multiplies them faster than by one number at a time.
bool floats_are_fast();
bool integers_are_fast();
bool bfloats_are_fast();

}  // namespace sgm
