#include "backend/cpu/tile_product.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace sgm {
namespace {

/// Any processor: a few rows at a time, in loops that compilers vectorise.
template <class Sum, class MultiplyAdd>
void multiply_plainly(const TileProduct& p, MultiplyAdd&& multiply_add) {
  constexpr int kRows = 3;
  for (std::int64_t first = 0; first < p.rows; first += kRows) {
    const std::int64_t rows = std::min<std::int64_t>(kRows, p.rows - first);
    Sum sums[kRows][TileProduct::kColumns] = {};
    for (std::int64_t k = 0; k < p.words; ++k)
      for (int m = 0; m < kRows; ++m) {
        const std::uint32_t a = p.a[(first + std::min<std::int64_t>(m, rows - 1)) * p.a_row + k * p.a_word];
        const std::uint32_t* b = p.b + k * p.columns;
#pragma omp simd
        for (std::int64_t n = 0; n < p.columns; ++n) sums[m][n] = multiply_add(sums[m][n], a, b[n]);
      }
    for (std::int64_t m = 0; m < rows; ++m)
      for (std::int64_t n = 0; n < p.columns; ++n) {
        const float unit = p.row_unit ? p.row_unit[first + m] * p.column_unit[n] : 1.0f;
        float& c = p.c[(first + m) * p.c_row + n];
        c = (p.accumulate ? c : 0.0f) + unit * static_cast<float>(sums[m][n]);
      }
  }
}

#ifdef __x86_64__

constexpr int kRows = TileProduct::kRows;

enum class Kind { floats, integers, bfloats };

/// sum + row . columns in every lane; not by intrinsics, for which GCC 12 copies sums in every turn.
template <Kind K>
[[gnu::target("avx512f"), gnu::always_inline]] inline __m512i multiply_add(__m512i sum, __m512i row,
                                                                           __m512i columns) {
  if constexpr (K == Kind::integers)
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(row), "v"(columns));
  else if constexpr (K == Kind::bfloats)
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(row), "v"(columns));
  else
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(row), "v"(columns));
  return sum;
}

/// Writes the sums of row m, vector v.
template <Kind K>
[[gnu::target("avx512f"), gnu::always_inline]] inline void finish(const TileProduct& p, std::int64_t m, int v,
                                                                  __m512i sums) {
  float* const to = p.c + m * p.c_row + 16 * v;
  __m512 c = _mm512_castsi512_ps(sums);
  if constexpr (K == Kind::integers) {
    const __m512 unit = _mm512_mul_ps(_mm512_set1_ps(p.row_unit[m]), _mm512_loadu_ps(p.column_unit + 16 * v));
    // GCC 12 takes the unmasked conversion for the use of an uninitialised value (PR 105593).
    c = _mm512_mul_ps(unit, _mm512_maskz_cvtepi32_ps(0xffff, sums));
  } else if (p.accumulate) {
    c = _mm512_add_ps(_mm512_loadu_ps(to), c);
  }
  _mm512_storeu_ps(to, c);
}

/// The vectors I of sums, V a row. Rows are addressed by threes: for twelve pointers there are no registers.
template <Kind K, int V, int... I>
[[gnu::target("avx512f")]] void multiply_block(const TileProduct& p, std::int64_t first,
                                               std::integer_sequence<int, I...>) {
  const std::int64_t a_row = p.a_row, words = p.words;
  const TileProduct::Word* const a[] = {p.a + (first + I / 3 * 3) * a_row...};
  const auto row = [&](int m) __attribute__((always_inline)) { return a[m] + m % 3 * a_row; };
  __m512i sums[sizeof...(I)];
  ((sums[I] = _mm512_setzero_si512()), ...);
  constexpr std::int64_t kLine = 16;  // words
  const std::uint32_t* b = p.b;
  for (std::int64_t begin = 0, at = 0; begin < words; begin += kLine) {
    if (p.a_next) ((I % V == 0 ? __builtin_prefetch(row(I / V) + at + p.a_next, 0, 2) : void()), ...);
    const std::int64_t end = std::min(words, begin + kLine);
    for (std::int64_t k = begin; k < end; ++k, at += p.a_word, b += 16 * V) {
      const __m512i columns[] = {_mm512_loadu_si512(b), _mm512_loadu_si512(b + 16 * (V - 1))};
      ((sums[I] =
            multiply_add<K>(sums[I], _mm512_set1_epi32(static_cast<int>(row(I / V)[at])), columns[I % V])),
       ...);
    }
  }
  (finish<K>(p, first + I / V, I % V, sums[I]), ...);
}

template <Kind K, int R, int V>
void multiply_block(const TileProduct& p, std::int64_t first) {
  multiply_block<K, V>(p, first, std::make_integer_sequence<int, R * V>());
}

using Block = void (*)(const TileProduct&, std::int64_t);

template <Kind K, int V, int... R>
constexpr std::array<Block, kRows> blocks(std::integer_sequence<int, R...>) {
  return {multiply_block<K, R + 1, V>...};
}

template <Kind K>
void multiply_by_vectors(const TileProduct& p) {
  using Rows = std::make_integer_sequence<int, kRows>;
  static constexpr std::array<Block, kRows> kByVectors[] = {blocks<K, 1>(Rows()), blocks<K, 2>(Rows())};
  const auto& of_rows = kByVectors[p.columns / 16 - 1];
  for (std::int64_t first = 0; first < p.rows; first += kRows)
    of_rows[static_cast<std::size_t>(std::min<std::int64_t>(kRows, p.rows - first) - 1)](p, first);
}

bool has_vectors() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni"); }
bool has_bfloats() { return has_vectors() && __builtin_cpu_supports("avx512bf16"); }

#else

template <Kind K>
void multiply_by_vectors(const TileProduct&) {}

bool has_vectors() { return false; }
bool has_bfloats() { return false; }

#endif

}  // namespace

void multiply_floats_plainly(const TileProduct& product) {
  multiply_plainly<float>(product, [](float sum, std::uint32_t a, std::uint32_t b) {
    return sum + std::bit_cast<float>(a) * std::bit_cast<float>(b);
  });
}

void multiply_integers_plainly(const TileProduct& product) {
  multiply_plainly<std::int32_t>(product, [](std::int32_t sum, std::uint32_t a, std::uint32_t b) {
    const auto low = [](std::uint32_t word) { return std::int32_t{static_cast<std::int16_t>(word)}; };
    return sum + (low(a) * low(b) + low(a >> 16) * low(b >> 16));
  });
}

void multiply_bfloats_plainly(const TileProduct& product) {
  multiply_plainly<float>(product, [](float sum, std::uint32_t a, std::uint32_t b) {
    const auto low = [](std::uint32_t word) { return std::bit_cast<float>(word << 16); };
    return sum + (low(a) * low(b) + low(a >> 16) * low(b >> 16));
  });
}

void multiply_floats(const TileProduct& product) {
  has_vectors() ? multiply_by_vectors<Kind::floats>(product) : multiply_floats_plainly(product);
}

void multiply_integers(const TileProduct& product) {
  has_vectors() ? multiply_by_vectors<Kind::integers>(product) : multiply_integers_plainly(product);
}

void multiply_bfloats(const TileProduct& product) {
  has_bfloats() ? multiply_by_vectors<Kind::bfloats>(product) : multiply_bfloats_plainly(product);
}

bool floats_are_fast() {
#ifdef __FMA__
  return true;
#else
  return has_vectors();
#endif
}

bool integers_are_fast() { return has_vectors(); }

bool bfloats_are_fast() { return has_bfloats(); }

}  // namespace sgm
