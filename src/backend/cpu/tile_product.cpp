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
        p.c[(first + m) * p.c_row + n] = unit * static_cast<float>(sums[m][n]);
      }
  }
}

#ifdef __x86_64__

constexpr int kRows = 12;  // times two vectors of columns: 24 of the 32 registers hold sums

/// R rows, V vectors of columns. The two kinds differ in one instruction and in what follows the last one.
template <bool Integers, int R, int V>
[[gnu::target("avx512f,avx512vnni")]] void multiply_block(const TileProduct& p, std::int64_t first) {
  const std::uint32_t *a = p.a + first * p.a_row, *b = p.b;
  __m512i sums[R][V];
  for (int m = 0; m < R; ++m)
    for (int v = 0; v < V; ++v) sums[m][v] = _mm512_setzero_si512();
  constexpr std::int64_t kLine = 16;  // words
  for (std::int64_t begin = 0; begin < p.words; begin += kLine) {
    if (p.a_next)
      for (int m = 0; m < R; ++m)
        _mm_prefetch(reinterpret_cast<const char*>(a + m * p.a_row + p.a_next), _MM_HINT_T1);
    const std::int64_t end = std::min(p.words, begin + kLine);
    for (std::int64_t k = begin; k < end; ++k, a += p.a_word, b += 16 * V) {
      __m512i columns[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) columns[v] = _mm512_loadu_si512(b + 16 * v);
#pragma GCC unroll 12
      for (int m = 0; m < R; ++m) {
        const __m512i row = _mm512_set1_epi32(static_cast<int>(a[m * p.a_row]));
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v)
          if constexpr (Integers)
            sums[m][v] = _mm512_dpwssd_epi32(sums[m][v], row, columns[v]);
          else
            sums[m][v] = _mm512_castps_si512(_mm512_fmadd_ps(
                _mm512_castsi512_ps(row), _mm512_castsi512_ps(columns[v]), _mm512_castsi512_ps(sums[m][v])));
      }
    }
  }
  for (int m = 0; m < R; ++m)
    for (int v = 0; v < V; ++v) {
      __m512 c = _mm512_castsi512_ps(sums[m][v]);
      if constexpr (Integers) {
        const __m512 unit =
            _mm512_mul_ps(_mm512_set1_ps(p.row_unit[first + m]), _mm512_loadu_ps(p.column_unit + 16 * v));
        // GCC 12 takes the unmasked conversion for the use of an uninitialised value (PR 105593).
        c = _mm512_mul_ps(unit, _mm512_maskz_cvtepi32_ps(0xffff, sums[m][v]));
      }
      _mm512_storeu_ps(p.c + (first + m) * p.c_row + 16 * v, c);
    }
}

using Block = void (*)(const TileProduct&, std::int64_t);

template <bool Integers, int V, int... R>
constexpr std::array<Block, kRows> blocks(std::integer_sequence<int, R...>) {
  return {multiply_block<Integers, R + 1, V>...};
}

template <bool Integers>
void multiply_by_vectors(const TileProduct& p) {
  using Rows = std::make_integer_sequence<int, kRows>;
  static constexpr std::array<Block, kRows> kBlocks[] = {blocks<Integers, 1>(Rows()),
                                                         blocks<Integers, 2>(Rows())};
  const auto& of_rows = kBlocks[p.columns / 16 - 1];
  for (std::int64_t first = 0; first < p.rows; first += kRows)
    of_rows[static_cast<std::size_t>(std::min<std::int64_t>(kRows, p.rows - first) - 1)](p, first);
}

bool has_vectors() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni"); }

#else

template <bool Integers>
void multiply_by_vectors(const TileProduct&) {}

bool has_vectors() { return false; }

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

void multiply_floats(const TileProduct& product) {
  has_vectors() ? multiply_by_vectors<false>(product) : multiply_floats_plainly(product);
}

void multiply_integers(const TileProduct& product) {
  has_vectors() ? multiply_by_vectors<true>(product) : multiply_integers_plainly(product);
}

bool floats_are_fast() {
#ifdef __FMA__
  return true;
#else
  return has_vectors();
#endif
}

bool integers_are_fast() { return has_vectors(); }

}  // namespace sgm
