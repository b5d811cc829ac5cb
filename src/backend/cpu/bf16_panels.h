#pragma once
// Matrices of bf16 as TileProduct multiplies them: panels of 32 columns, words of two rows.

#include "backend/cpu/tile_product.h"
#include "backend/cpu/winograd_transform.h"

namespace sgm::bf16_panels {

using winograd::bytes, winograd::kLanes, winograd::Words;

inline constexpr std::int64_t kColumns = TileProduct::kColumns;

/// 32 numbers, rounded where they are floats, two a word.
inline Words pairs_at(const float* from) {
  return winograd::rounded(winograd::load(from), winograd::load(from + kLanes));
}
inline Words pairs_at(const bfloat16* from) {
  Words words;
  std::memcpy(&words, from, sizeof(words));
  return words;
}

/// Rows of `length` numbers, `ld` apart, become the columns of a panel. length: a multiple of 32.
template <class T>
void pack_rows(const T* rows, std::int64_t ld, std::int64_t length, std::uint32_t* panel) {
  for (std::int64_t first = 0; first < kColumns; first += kLanes)
    for (std::int64_t i = 0; i < length; i += 2 * kLanes) {
      Words block[kLanes];
      for (int k = 0; k < kLanes; ++k) block[k] = pairs_at(rows + (first + k) * ld + i);
      winograd::transpose(block);
      for (int j = 0; j < kLanes; ++j) winograd::store(panel + (i / 2 + j) * kColumns + first, block[j]);
    }
}

/// Has 32 columns of a row on their way to the second cache.
inline void fetch_columns(const float* row) {
  for (std::int64_t c = 0; c < kColumns; c += kLanes) __builtin_prefetch(row + c, 0, 2);
}

/// Rounds two rows of 32 columns into a row of words.
inline void pack_pair(const float* even, const float* odd, std::uint32_t* panel) {
  for (std::int64_t c = 0; c < kColumns; c += kLanes)
    winograd::store(panel + c, winograd::rounded_pairs(winograd::load(even + c), winograd::load(odd + c)));
}

/// Rows [begin, end) of 32 columns of a matrix that has `rows`, `ld` numbers apart; begin is even.
inline void pack_columns(const bfloat16* matrix, std::int64_t ld, std::int64_t rows, std::int64_t begin,
                         std::int64_t end, std::uint32_t* panel) {
  for (std::int64_t p = begin; p < end; p += 2, panel += kColumns)
    for (std::int64_t c = 0; c < kColumns; c += kLanes) {
      const bfloat16* const row = matrix + p * ld + c;
      const Words odd = p + 1 < rows ? winograd::load_halves(row + ld) : Words{};
      winograd::store(panel + c, winograd::load_halves(row) | odd << 16);
    }
}

}  // namespace sgm::bf16_panels
