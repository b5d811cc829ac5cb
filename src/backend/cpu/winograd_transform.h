#pragma once
// The one-dimensional transforms of Winograd's F(4, 3), sixteen channels at a time, and what moves those.

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

inline Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

inline Lanes load(const bfloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return std::bit_cast<Lanes>(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float* to, const Lanes& lanes) { std::memcpy(to, &lanes, sizeof(lanes)); }
inline void store(std::uint32_t* to, const Words& words) { std::memcpy(to, &words, sizeof(words)); }
inline void store(std::uint32_t* to, const Halves& halves) { std::memcpy(to, &halves, sizeof(halves)); }

/// Rounds to nearest even; a NaN stays one.
inline void store(bfloat16* to, const Lanes& lanes) {
  const Words bits = std::bit_cast<Words>(lanes);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  const Halves halves = __builtin_convertvector(lanes == lanes ? rounded : quiet, Halves);
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

/// Applies F along both axes: in [In][In] -> out [Out][Out].
template <OneDimensional F, int In, int Out>
[[gnu::always_inline]] inline void both_axes(const Lanes* in, Lanes* out) {
  Lanes half[Out * In];
#pragma GCC unroll 6
  for (int j = 0; j < In; ++j) F(in + j, In, half + j, In);
#pragma GCC unroll 6
  for (int i = 0; i < Out; ++i) F(half + i * In, 1, out + i * Out, 1);
}

}  // namespace sgm::winograd
