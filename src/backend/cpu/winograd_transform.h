#pragma once
// The one-dimensional transforms of Winograd's F(4, 3), sixteen channels at a time, and what moves those.

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#include "sgm/core/types.h"

namespace sgm::winograd {

inline constexpr int kLanes = 16;
/// Sixteen channels; sixteen bfloat16 or 16-bit integers; sixteen words that hold bits of either.
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));
using Halves = std::uint16_t __attribute__((vector_size(kLanes * sizeof(std::uint16_t))));
using Words = std::uint32_t __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));

/// Memory of a number of words, or floats.
inline std::size_t bytes(std::int64_t words) { return static_cast<std::size_t>(words) * sizeof(float); }

// GCC 12 takes conversions of this width apart, and warns of unmasked ones (PR 105593).
inline Words widen(const Halves& halves) {
#ifdef __AVX512F__
  return std::bit_cast<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, std::bit_cast<__m256i>(halves)));
#else
  return __builtin_convertvector(halves, Words);
#endif
}

inline Halves narrow(const Words& words) {
#ifdef __AVX512F__
  return std::bit_cast<Halves>(_mm512_maskz_cvtepi32_epi16(0xffff, std::bit_cast<__m512i>(words)));
#else
  return __builtin_convertvector(words, Halves);
#endif
}

inline Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

/// The bits of sixteen bfloat16, each in the low half of a word.
inline Words load_halves(const bfloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return widen(halves);
}

inline Lanes load(const bfloat16* from) { return std::bit_cast<Lanes>(load_halves(from) << 16); }

/// Of 32 numbers those at even and at odd places.
inline Lanes load_even(const bfloat16* from) {
  Words words;
  std::memcpy(&words, from, sizeof(words));
  return std::bit_cast<Lanes>(words << 16);
}
inline Lanes load_odd(const bfloat16* from) {
  Words words;
  std::memcpy(&words, from, sizeof(words));
  return std::bit_cast<Lanes>(words & 0xffff0000u);
}

inline void store(float* to, const Lanes& lanes) { std::memcpy(to, &lanes, sizeof(lanes)); }
inline void store(std::uint32_t* to, const Words& words) { std::memcpy(to, &words, sizeof(words)); }
inline void store(std::uint32_t* to, const Halves& halves) { std::memcpy(to, &halves, sizeof(halves)); }

/// The bits of bfloat16 in the low halves of words, rounded to nearest even; a NaN stays one.
inline Words rounded(const Lanes& lanes) {
  const Words bits = std::bit_cast<Words>(lanes);
  const Words near = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  return lanes == lanes ? near : quiet;
}

/// As the others, but for numbers below 2^-126, which may become zero.
inline void store(bfloat16* to, const Lanes& lanes) {
#ifdef __AVX512BF16__
  const auto halves = std::bit_cast<Halves>(_mm512_cvtneps_pbh(std::bit_cast<__m512>(lanes)));
#else
  const Halves halves = narrow(rounded(lanes));
#endif
  std::memcpy(to, &halves, sizeof(halves));
}

/// Lane j of row i becomes lane i of row j.
namespace detail {
template <unsigned D, std::size_t... J>
void exchange(Words& a, Words& b, std::index_sequence<J...>) {
  const Words low = __builtin_shufflevector(a, b, ((J & D) ? int(J - D + kLanes) : int(J))...);
  b = __builtin_shufflevector(a, b, ((J & D) ? int(J + kLanes) : int(J + D))...);
  a = low;
}

template <unsigned D>
void exchange_all(Words* rows) {
  for (unsigned i = 0; i < kLanes; ++i)
    if (!(i & D)) exchange<D>(rows[i], rows[i + D], std::make_index_sequence<kLanes>());
}
}  // namespace detail

inline void transpose(Words* rows) {
  detail::exchange_all<1>(rows);
  detail::exchange_all<2>(rows);
  detail::exchange_all<4>(rows);
  detail::exchange_all<8>(rows);
}

/// The sums over the lanes of up to sixteen vectors.
inline Lanes sums_of(const Lanes* vectors, int count) {
  Words rows[kLanes] = {};
  for (int i = 0; i < count; ++i) rows[i] = std::bit_cast<Words>(vectors[i]);
  transpose(rows);
  Lanes sum{};
  for (int i = 0; i < kLanes; ++i) sum += std::bit_cast<Lanes>(rows[i]);
  return sum;
}

/// The low halves of two vectors of words, one after the other, two a word.
inline Words low_halves(const Words& a, const Words& b) {
  using AllHalves = std::uint16_t __attribute__((vector_size(sizeof(Words))));
  return std::bit_cast<Words>(__builtin_shufflevector(
      std::bit_cast<AllHalves>(a), std::bit_cast<AllHalves>(b), 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24,
      26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62));
}

/// 32 numbers rounded to bfloat16, one after the other, two a word.
inline Words rounded(const Lanes& first, const Lanes& second) {
#ifdef __AVX512BF16__
  return std::bit_cast<Words>(
      _mm512_cvtne2ps_pbh(std::bit_cast<__m512>(second), std::bit_cast<__m512>(first)));
#else
  return low_halves(rounded(first), rounded(second));
#endif
}

/// The same with the i-th of both in word i.
inline Words rounded_pairs(const Lanes& low, const Lanes& high) {
  using AllHalves = std::uint16_t __attribute__((vector_size(sizeof(Words))));
  const auto halves = std::bit_cast<AllHalves>(rounded(low, high));
  return std::bit_cast<Words>(__builtin_shufflevector(halves, halves, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                                      21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                                      13, 29, 14, 30, 15, 31));
}

/// Outputs of a tile, points of a transformed tile, taps of the filter; along one axis and in all.
inline constexpr int kOutputs = 4, kSide = 6, kPoints = kSide * kSide, kTaps = 9;

inline constexpr float kA = 0.70710678f, kB = 1.41421356f;  // a^2 = 1/2, b^2 = 2

// out[i t] for the rows i of a matrix from in[j s] for its columns j.

/// B^T, 6 -> 6: of the input.
[[gnu::always_inline]] inline void input(const Lanes* d, int s, Lanes* v, int t) {
  const Lanes &d1 = d[s], &d2 = d[2 * s], &d3 = d[3 * s], &d4 = d[4 * s];
  const Lanes even_a = d4 - 2.0f * d2, odd_a = kA * (d3 - 2.0f * d1);
  const Lanes even_b = d4 - 0.5f * d2, odd_b = kB * (d3 - 0.5f * d1);
  v[0] = d[0] - 2.5f * d2 + d4;
  v[t] = even_a + odd_a;
  v[2 * t] = even_a - odd_a;
  v[3 * t] = even_b + odd_b;
  v[4 * t] = even_b - odd_b;
  v[5 * t] = d1 - 2.5f * d3 + d[5 * s];
}

/// A^T, 6 -> 4: to the output.
[[gnu::always_inline]] inline void output(const Lanes* p, int s, Lanes* y, int t) {
  const Lanes sum_a = p[s] + p[2 * s], diff_a = kA * (p[s] - p[2 * s]);
  const Lanes sum_b = p[3 * s] + p[4 * s], diff_b = kB * (p[3 * s] - p[4 * s]);
  y[0] = p[0] + sum_a + sum_b;
  y[t] = diff_a + diff_b;
  y[2 * t] = 0.5f * sum_a + 2.0f * sum_b;
  y[3 * t] = 0.5f * diff_a + 2.0f * diff_b + p[5 * s];
}

/// G, 3 -> 6: of the filter.
[[gnu::always_inline]] inline void filter(const Lanes* g, int s, Lanes* u, int t) {
  const Lanes even_a = (-2.0f / 3.0f) * (g[0] + 0.5f * g[2 * s]), odd_a = (-2.0f / 3.0f * kA) * g[s];
  const Lanes even_b = (1.0f / 6.0f) * (g[0] + 2.0f * g[2 * s]), odd_b = (1.0f / 6.0f * kB) * g[s];
  u[0] = g[0];
  u[t] = even_a + odd_a;
  u[2 * t] = even_a - odd_a;
  u[3 * t] = even_b + odd_b;
  u[4 * t] = even_b - odd_b;
  u[5 * t] = g[2 * s];
}

/// A, 4 -> 6: of the gradient of the output.
[[gnu::always_inline]] inline void output_t(const Lanes* y, int s, Lanes* p, int t) {
  const Lanes &y1 = y[s], &y2 = y[2 * s], &y3 = y[3 * s];
  const Lanes even_a = y[0] + 0.5f * y2, odd_a = kA * (y1 + 0.5f * y3);
  const Lanes even_b = y[0] + 2.0f * y2, odd_b = kB * (y1 + 2.0f * y3);
  p[0] = y[0];
  p[t] = even_a + odd_a;
  p[2 * t] = even_a - odd_a;
  p[3 * t] = even_b + odd_b;
  p[4 * t] = even_b - odd_b;
  p[5 * t] = y3;
}

/// G^T, 6 -> 3: to the gradient of the filter.
[[gnu::always_inline]] inline void filter_t(const Lanes* u, int s, Lanes* g, int t) {
  const Lanes sum_a = (-2.0f / 3.0f) * (u[s] + u[2 * s]), diff_a = (-2.0f / 3.0f * kA) * (u[s] - u[2 * s]);
  const Lanes sum_b = (1.0f / 6.0f) * (u[3 * s] + u[4 * s]),
              diff_b = (1.0f / 6.0f * kB) * (u[3 * s] - u[4 * s]);
  g[0] = u[0] + sum_a + sum_b;
  g[t] = diff_a + diff_b;
  g[2 * t] = 0.5f * sum_a + 2.0f * sum_b + u[5 * s];
}

using OneDimensional = void (*)(const Lanes*, int, Lanes*, int);

namespace detail {
template <OneDimensional F, int In, int Out, class Read>
[[gnu::always_inline]] inline void first_axis(Read&& in, Lanes* half) {
#pragma GCC unroll 6
  for (int j = 0; j < In; ++j) {
    Lanes column[In];
#pragma GCC unroll 6
    for (int i = 0; i < In; ++i) column[i] = in(i * In + j);
    F(column, 1, half + j, In);
  }
}
}  // namespace detail

/// Applies F along both axes: of [In][In], which `in(i)` reads, to [Out][Out], which `out(i, value)` takes in
/// order.
template <OneDimensional F, int In, int Out, class Read, class Write>
[[gnu::always_inline]] inline void both_axes(Read&& in, Write&& out) {
  Lanes half[Out * In];
  detail::first_axis<F, In, Out>(in, half);
#pragma GCC unroll 6
  for (int i = 0; i < Out; ++i) {
    Lanes row[Out];
    F(half + i * In, 1, row, 1);
#pragma GCC unroll 6
    for (int j = 0; j < Out; ++j) out(i * Out + j, row[j]);
  }
}

/// The same for two inputs side by side: out(i, value of one, value of the other).
template <OneDimensional F, int In, int Out, class ReadOne, class ReadOther, class Write>
[[gnu::always_inline]] inline void both_axes(ReadOne&& one, ReadOther&& other, Write&& out) {
  Lanes half[2][Out * In];
  detail::first_axis<F, In, Out>(one, half[0]);
  detail::first_axis<F, In, Out>(other, half[1]);
#pragma GCC unroll 6
  for (int i = 0; i < Out; ++i) {
    Lanes row[2][Out];
    F(half[0] + i * In, 1, row[0], 1);
    F(half[1] + i * In, 1, row[1], 1);
#pragma GCC unroll 6
    for (int j = 0; j < Out; ++j) out(i * Out + j, row[0][j], row[1][j]);
  }
}

}  // namespace sgm::winograd
