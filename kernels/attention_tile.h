#pragma once
// What attention and its gradient share: tiles of tokens in shared memory, and their products. For kernel
// sources only.
//
// A block holds kTile tokens of its own and walks over all others, kTile at a time. Two kinds of products
// alternate: of tokens with tokens over channels, [kTile, kTile], whose parts belong to warps; and of those
// numbers, which have passed through shared memory, with tokens, [kTile, c], where each warp has 32 channels
// or fewer of all rows.

#include "kernels/attention.h"
#include "kernels/tensor_core.h"

namespace sgm {

constexpr int kAttentionWarps = 8, kAttentionThreads = kAttentionWarps * kWarp;
constexpr int kAttentionChannels = 256;  // at the most
constexpr int kChannelGroup = 16;        // channels that a warp takes at a time
constexpr int kGroupsOfWarp = kAttentionChannels / (kAttentionWarps * kChannelGroup);

constexpr float kLog2E = 1.4426950408889634f;

__device__ inline int attention_warp() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ inline int attention_lane() { return static_cast<int>(threadIdx.x) % kWarp; }

/// Rows in shared memory, 16 bytes further apart than they are long: with lengths that are multiples of 32
/// bytes, eight rows below each other lie in different banks.
struct TileRows {
  bfloat16* data;
  int pitch;

  static constexpr int pitch_of(int columns) { return columns + 8; }
  __device__ bfloat16* at(int row) const { return data + row * pitch; }
  /// Columns col and col + 1; col is even.
  __device__ BFloat16Pair& pair(int row, int col) const {
    return *reinterpret_cast<BFloat16Pair*>(at(row) + col);
  }
};

/// Hands out shared memory.
struct TileMemory {
  bfloat16* next;

  __device__ TileRows rows(int count, int columns) {
    const TileRows result{next, TileRows::pitch_of(columns)};
    next += count * result.pitch;
    return result;
  }
  __device__ float* floats(int count) {
    float* const result = reinterpret_cast<float*>(next);
    next += 2 * count;
    return result;
  }
};

/// Tokens in global memory, ld elements apart.
struct TokenRows {
  const bfloat16* data;
  std::int64_t ld;

  __device__ TokenRows from(int row) const { return {data + row * ld, ld}; }
};

/// Begins to copy kTile tokens of c channels; from the count-th on they are zeros.
template <int kTile>
__device__ inline void fetch(const TileRows& to, const TokenRows& from, int count, int c) {
  for (int row = attention_warp(); row < kTile; row += kAttentionWarps)
    for (int col = attention_lane() * 8; col < c; col += kWarp * 8)
      copy_beside(to.at(row) + col, row < count ? from.data + row * from.ld + col : from.data, row >= count);
}

/// The reverse, by all threads.
template <int kTile>
__device__ inline void store_rows(bfloat16* to, std::int64_t ld, const TileRows& from, int count, int c) {
  for (int row = attention_warp(); row < kTile && row < count; row += kAttentionWarps)
    for (int col = attention_lane() * 8; col < c; col += kWarp * 8)
      store16(to + row * ld + col, load16(from.at(row) + col));
}

/// A warp's [16 kM, 8 kN] part of a b^T, where it begins at `row` and `col`. In each of its [16, 8] parts a
/// lane has four numbers, see row_of() and col_of().
template <int kM, int kN>
struct Scores {
  float at[kM][kN][4] = {};
  int row, col;

  __device__ Scores(int first_row, int first_col) : row(first_row), col(first_col) {}
  __device__ int row_of(int m, int i) const { return row + 16 * m + attention_lane() / 4 + i / 2 * 8; }
  __device__ int col_of(int n, int i) const { return col + 8 * n + attention_lane() % 4 * 2 + i % 2; }

  __device__ void multiply(const TileRows& a, const TileRows& b, int c) {
    const int lane = attention_lane();
    const bfloat16* const a_row = a.at(row + lane % 16) + lane / 16 * 8;
    const bfloat16* const b_row = b.at(col + lane % 8 + lane / 16 * 8) + lane / 8 % 2 * 8;
#pragma unroll 2
    for (int k = 0; k < c; k += 16) {
      BFloat16Pair a_parts[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) load_matrices(a_parts[m], a_row + 16 * m * a.pitch + k);
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        BFloat16Pair b_parts[4];
        load_matrices(b_parts, b_row + 8 * n * b.pitch + k);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          multiply_add(at[m][n], a_parts[m], b_parts[0], b_parts[1]);
          multiply_add(at[m][n + 1], a_parts[m], b_parts[2], b_parts[3]);
        }
      }
    }
  }

  /// f(value, row, col) in place of every value.
  template <class F>
  __device__ void apply(F&& f) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) at[m][n][i] = f(at[m][n][i], row_of(m, i), col_of(n, i));
  }

  /// body(row, col, values there and in the next column).
  template <class Body>
  __device__ void each_pair(Body&& body) const {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 4; i += 2) body(row_of(m, i), col_of(n, i), at[m][n][i], at[m][n][i + 1]);
  }
  __device__ void store(const TileRows& tile) const {
    each_pair([&](int r, int c, float first, float second) { tile.pair(r, c) = pair_of(first, second); });
  }
};

/// A warp's channels of a sum of products [kTile, kTile] x [kTile, c].
template <int kTile>
struct Mixture {
  static constexpr int kM = kTile / 16;
  float at[kGroupsOfWarp][kM][2][4] = {};

  /// body(group, its first channel) for the warp's groups of channels.
  template <class Body>
  __device__ static void each_group(int c, Body&& body) {
#pragma unroll
    for (int group = 0; group < kGroupsOfWarp; ++group) {
      const int first = (attention_warp() + group * kAttentionWarps) * kChannelGroup;
      if (first < c) body(group, first);
    }
  }

  __device__ void add_product(const TileRows& weights, const TileRows& tokens, int c) {
    const int lane = attention_lane();
#pragma unroll
    for (int k = 0; k < kTile; k += 16) {
      BFloat16Pair a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) load_matrices(a[m], weights.at(16 * m + lane % 16) + k + lane / 16 * 8);
      each_group(c, [&](int group, int first) {
        BFloat16Pair b[4];
        load_transposed(b, tokens.at(k + lane % 16) + first + lane / 16 * 8);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          multiply_add(at[group][m][0], a[m], b[0], b[1]);
          multiply_add(at[group][m][1], a[m], b[2], b[3]);
        }
      });
    }
  }

  /// Row m of the tile is multiplied by factor(m).
  template <class Factor>
  __device__ void scale_rows(Factor&& factor) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float by = factor(16 * m + attention_lane() / 4 + 8 * h);
#pragma unroll
        for (int group = 0; group < kGroupsOfWarp; ++group)
#pragma unroll
          for (int part = 0; part < 2; ++part) {
            at[group][m][part][2 * h] *= by;
            at[group][m][part][2 * h + 1] *= by;
          }
      }
  }

  __device__ void store(const TileRows& tile, int c) const {
    each_group(c, [&](int group, int first) {
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int part = 0; part < 2; ++part)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const float* const values = at[group][m][part] + 2 * h;
            tile.pair(16 * m + attention_lane() / 4 + 8 * h, first + 8 * part + attention_lane() % 4 * 2) =
                pair_of(values[0], values[1]);
          }
    });
  }

  /// sums[channel] = the sum over the tile's rows.
  __device__ void sum_rows(float* sums, int c) const {
    each_group(c, [&](int group, int first) {
#pragma unroll
      for (int part = 0; part < 2; ++part)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float sum = 0.0f;
#pragma unroll
          for (int m = 0; m < kM; ++m) sum += at[group][m][part][i] + at[group][m][part][i + 2];
          for (int offset = kWarp / 2; offset >= 4; offset /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, offset);
          if (attention_lane() < 4) sums[first + 8 * part + attention_lane() * 2 + i] = sum;
        }
    });
  }
};

}  // namespace sgm
