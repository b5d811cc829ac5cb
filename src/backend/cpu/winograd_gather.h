#pragma once
// Transformed tiles and filters as the matrices that TileProduct multiplies.

#include <algorithm>
#include <array>
#include <cmath>

#include "backend/cpu/tile_product.h"
#include "backend/cpu/winograd_transform.h"

namespace sgm::winograd {

inline constexpr std::int64_t kColumns = TileProduct::kColumns;

/// How transformed numbers are held. f32: as they are, one a word. bf16: two a word, as 16-bit integers that
/// count units of their row or column, of which the products' sums are exact. A row's norm is 2^15 units at
/// most, so that no sum leaves 32 bits (Cauchy-Schwarz), and its rounding errors are a tenth of bf16's.
template <class T>
inline constexpr bool kFixedPoint = std::is_same_v<T, bfloat16>;
template <class T>
inline constexpr int kPerWord = kFixedPoint<T> ? 2 : 1;

/// The integer nearest to each lane, in the low halves of the words: below 2^15.
inline Words nearest(const Lanes& lanes) { return std::bit_cast<Words>(lanes + 12582912.0f); }

inline Words pair(const Words& low, const Words& high) { return (low & 0xffffu) | (high << 16); }

/// What a unit stands for in sixteen rows or columns whose squares have these sums; returns the inverses.
inline Lanes find_units(const Lanes& squares, float* units) {
  constexpr float kMaxNorm = 32000.0f, kLeast = 1e-30f;  // of zeros
  float inverse[kLanes];
  store(inverse, squares);  // lanes one by one are taken from memory, or compilers do not vectorise
#pragma omp simd
  for (int i = 0; i < kLanes; ++i) {
    const float unit = std::sqrt(inverse[i]) * (1.0f / kMaxNorm);
    units[i] = unit < kLeast ? kLeast : unit;  // a NaN stays one
    inverse[i] = 1.0f / units[i];
  }
  return load(inverse);
}

/// Rows of filters that are fetched ahead of the one at hand.
inline constexpr std::int64_t kRowsAhead = 6;

/// Planes of points lie this much further apart than they are large: caches hold few lines that are a power
/// of two apart.
inline constexpr std::int64_t kGap = 5 * kLanes;

/// A matrix [rows of words][columns] for every point, in panels of kColumns columns that are dense each.
struct Panels {
  std::uint32_t* words;
  float* units;  // [points, columns], of fixed point
  std::int64_t rows, columns, plane;

  static std::int64_t size(std::int64_t rows, std::int64_t columns) {
    return kPoints * (rows * columns + kGap + columns);
  }
  Panels(void* memory, std::int64_t rows_, std::int64_t columns_)
      : words(static_cast<std::uint32_t*>(memory)),
        units(static_cast<float*>(memory) + kPoints * (rows_ * columns_ + kGap)),
        rows(rows_),
        columns(columns_),
        plane(rows_ * columns_ + kGap) {}

  std::int64_t count() const { return (columns + kColumns - 1) / kColumns; }
  std::int64_t width(std::int64_t panel) const { return std::min(kColumns, columns - panel * kColumns); }
  std::uint32_t* at(int point, std::int64_t panel) const {
    return words + point * plane + panel * kColumns * rows;
  }
  float* units_at(int point, std::int64_t column) const { return units + point * columns + column; }
};

/// Tiles [first, last) of all images, numbered through.
struct Tiles {
  std::int64_t first, last;
  std::int64_t count() const { return last - first; }
};

/// A plane of images cut into tiles: `h` x `w` pixels with `channels` channels, of which tile (ty, tx) covers
/// `size` x `size` pixels from (4 ty - pad, 4 tx - pad); what lies outside the image is zero.
struct Tiling {
  std::int64_t h, w, channels, tiles_y, tiles_x, pad;
};

/// Where the pixels of a tile of Size x Size lie in the images. Addresses are made once a tile and read from
/// memory for every sixteen channels: there are more of them than registers, and compilers made them anew.
/// Place: a pointer, or an index.
template <class Place, int Size>
struct Pixels {
  Place at[Size * Size];

  /// Those outside of the images are at `outside`.
  [[gnu::noinline]] Pixels(const Tiling& t, std::int64_t number, Place images, Place outside) {
    const std::int64_t row = number / t.tiles_x, image = row / t.tiles_y;
    const std::int64_t y0 = row % t.tiles_y * kOutputs - t.pad, x0 = number % t.tiles_x * kOutputs - t.pad;
    bool inside[Size];
    for (int j = 0; j < Size; ++j) inside[j] = x0 + j >= 0 && x0 + j < t.w;
    for (int i = 0; i < Size; ++i) {
      const bool row_inside = y0 + i >= 0 && y0 + i < t.h;
      std::int64_t offset = ((image * t.h + y0 + i) * t.w + x0) * t.channels;
      for (int j = 0; j < Size; ++j, offset += t.channels)
        at[i * Size + j] = row_inside && inside[j] ? images + offset : outside;
    }
  }

  /// All outside.
  explicit Pixels(Place outside) { std::fill_n(at, Size * Size, outside); }
};

/// What channels outside of an image are, of one panel.
template <class T>
inline constexpr T kZeros[kColumns] = {};

/// Transformed tiles as rows of words: [points][tiles][words], and of fixed point their units.
struct Rows {
  std::uint32_t* words;
  float* units;  // [points][tiles]
  std::int64_t tiles, length, plane;

  static std::int64_t plane_of(std::int64_t tiles, std::int64_t length) { return tiles * length + kGap; }
  static std::int64_t size(std::int64_t tiles, std::int64_t length) {
    return kPoints * (plane_of(tiles, length) + tiles);
  }
  Rows(void* memory, std::int64_t tiles_, std::int64_t length_)
      : words(static_cast<std::uint32_t*>(memory)),
        units(static_cast<float*>(memory) + kPoints * plane_of(tiles_, length_)),
        tiles(tiles_),
        length(length_),
        plane(plane_of(tiles_, length_)) {}
};

/// Rounds a transformed tile [channels / 16][points][16] into row i. Of every 32 channels those at even
/// places come first.
inline void round_row(const float* tile, std::int64_t channels, const Rows& out, std::int64_t i) {
  Lanes squares[kPoints];  // summed over channels, in sixteen parts
  for (int p = 0; p < kPoints; ++p) {
    Lanes sum{};
    for (std::int64_t c = 0; c < channels; c += kLanes) {
      const Lanes value = load(tile + c * kPoints + p * kLanes);
      sum += value * value;
    }
    squares[p] = sum;
  }
  float units[kPoints + kLanes], inverse[kPoints + kLanes];
  for (int p = 0; p < kPoints; p += kLanes)
    store(inverse + p, find_units(sums_of(squares + p, std::min(kLanes, kPoints - p)), units + p));
  for (int p = 0; p < kPoints; ++p) {
    const auto rounded = [&](std::int64_t c) {
      return nearest(inverse[p] * load(tile + c * kPoints + p * kLanes));
    };
    std::uint32_t* to = out.words + p * out.plane + i * out.length;
    out.units[p * out.tiles + i] = units[p];
    std::int64_t c = 0;
    for (; c + 2 * kLanes <= channels; c += 2 * kLanes)
      store(to + c / 2, pair(rounded(c), rounded(c + kLanes)));
    if (c < channels) store(to + c / 2, narrow(rounded(c)));
  }
}

/// Transforms tile `number` into row i. `tile` is memory for it where it is rounded then; `zeros` are a
/// pixel's channels.
template <class T>
void gather_row(const Tiling& t, std::int64_t number, const T* image, const T* zeros, float* tile,
                const Rows& out, std::int64_t i) {
  const Pixels<const T*, kSide> pixels(t, number, image, zeros);
  if constexpr (!kFixedPoint<T>) {
    for (std::int64_t c = 0; c < t.channels; c += kLanes)
      both_axes<input, kSide, kSide>([&](int k) { return load(pixels.at[k] + c); },
                                     [&](int p, const Lanes& value) {
                                       store(out.words + p * out.plane + i * out.length + c,
                                             std::bit_cast<Words>(value));
                                     });
  } else {
    const auto transform = [&](std::int64_t c, auto&& read) {
      both_axes<input, kSide, kSide>(
          read, [&](int p, const Lanes& value) { store(tile + c * kPoints + p * kLanes, value); });
    };
    std::int64_t c = 0;
    for (; c + 2 * kLanes <= t.channels; c += 2 * kLanes) {
      transform(c, [&](int k) { return load_even(pixels.at[k] + c); });
      transform(c + kLanes, [&](int k) { return load_odd(pixels.at[k] + c); });
      for (int p = 0; p < kPoints; ++p)
        __builtin_prefetch(out.words + p * out.plane + i * out.length + c / 2, 1, 2);
    }
    if (c < t.channels) transform(c, [&](int k) { return load(pixels.at[k] + c); });
    round_row(tile, t.channels, out, i);
  }
}

/// A panel of the matrix whose rows are tiles and whose columns are channels, transformed by F.
template <OneDimensional F, int Size, class T>
void gather_panel(const Tiling& t, Tiles range, const T* image, const Panels& out, std::int64_t panel) {
  constexpr int kHalves = kColumns / kLanes;
  const std::int64_t width = out.width(panel), halves = width / kLanes;
  const T* const channels = image + panel * kColumns;
  using Tile = Pixels<const T*, Size>;
  const T* const zeros = kZeros<T>;
  const auto tile = [&](std::int64_t i) {
    return i < range.last ? Tile(t, i, channels, zeros) : Tile(zeros);
  };
  Lanes inverse[kHalves][kPoints];
  if constexpr (kFixedPoint<T>) {
    Lanes squares[kHalves][kPoints] = {};
    for (std::int64_t i = range.first; i < range.last; ++i) {
      const Tile one = tile(i);
      for (int h = 0; h < halves; ++h)
        both_axes<F, Size, kSide>([&](int k) { return load(one.at[k] + h * kLanes); },
                                  [&](int p, const Lanes& value) { squares[h][p] += value * value; });
    }
    for (int h = 0; h < halves; ++h)
      for (int p = 0; p < kPoints; ++p)
        inverse[h][p] = find_units(squares[h][p], out.units_at(p, panel * kColumns + h * kLanes));
  }
  std::uint32_t* to = out.at(0, panel);
  for (std::int64_t i = range.first; i < range.last; i += kPerWord<T>, to += width) {
    const Tile one = tile(i);
    [[maybe_unused]] const Tile other = kFixedPoint<T> ? tile(i + 1) : one;
    for (int h = 0; h < halves; ++h) {
      const auto first = [&](int k) { return load(one.at[k] + h * kLanes); };
      std::uint32_t* const words = to + h * kLanes;
      if constexpr (kFixedPoint<T>)
        both_axes<F, Size, kSide>(
            first, [&](int k) { return load(other.at[k] + h * kLanes); },
            [&](int p, const Lanes& even, const Lanes& odd) {
              store(words + p * out.plane, pair(nearest(inverse[h][p] * even), nearest(inverse[h][p] * odd)));
            });
      else
        both_axes<F, Size, kSide>(first, [&](int p, const Lanes& value) {
          store(words + p * out.plane, std::bit_cast<Words>(value));
        });
    }
  }
}

/// Filters [rows][3][3] of sixteen columns: taps `tap` floats apart, rows `row` floats apart.
struct Filters {
  const float* taps;
  std::int64_t rows, row, tap;
  bool rotated;  // by half a turn

  [[gnu::always_inline]] const float* at(std::int64_t r, int i) const {
    return taps + r * row + (rotated ? kTaps - 1 - i : i) * tap;
  }
  /// Has those of a row on their way to the second cache.
  void fetch(std::int64_t r) const {
    for (int i = 0; i < kTaps; ++i) __builtin_prefetch(at(r, i), 0, 2);
  }
};

/// A copy without gaps, [rows][3][3][16]. Of lines that lie a power of two apart caches keep few.
inline Filters close_together(const Filters& filters, float* copy) {
  for (std::int64_t r = 0; r < filters.rows; ++r) {
    if (r + kRowsAhead < filters.rows) filters.fetch(r + kRowsAhead);
    for (int i = 0; i < kTaps; ++i) store(copy + (r * kTaps + i) * kLanes, load(filters.at(r, i)));
  }
  return {copy, filters.rows, kTaps * kLanes, kLanes, false};
}

/// sums[i][j], i <= j: what the products of taps i and j of a column's filters add up to.
using TapProducts = Lanes[kTaps][kTaps];

/// Adds rows of filters [rows][3][3][16], of the products whose first tap is one of [First, Last).
template <int First, int Last>
void add_tap_products(const float* filters, std::int64_t rows, TapProducts& sums) {
  Lanes sum[Last - First][kTaps] = {};
  for (std::int64_t r = 0; r < rows; ++r, filters += kTaps * kLanes) {
    Lanes g[kTaps];
#pragma GCC unroll 9
    for (int i = First; i < kTaps; ++i) g[i] = load(filters + i * kLanes);
#pragma GCC unroll 9
    for (int i = First; i < Last; ++i)
#pragma GCC unroll 9
      for (int j = i; j < kTaps; ++j) sum[i - First][j] += g[i] * g[j];
  }
  for (int i = First; i < Last; ++i)
    for (int j = i; j < kTaps; ++j) sums[i][j] += sum[i - First][j];
}

/// What every tap counts for at every point.
inline std::array<std::array<float, kTaps>, kPoints> tap_weights() {
  std::array<std::array<float, kTaps>, kPoints> weights;
  for (int i = 0; i < kTaps; ++i)
    both_axes<filter, 3, kSide>([&](int k) { return Lanes{} + (k == i ? 1.0f : 0.0f); },
                                [&](int p, const Lanes& value) { weights[p][i] = value[0]; });
  return weights;
}

/// Sums over rows of the squares of transformed filters [rows][3][3][16], from products of taps: at a third
/// of what the transform costs.
inline void sum_squares(const float* filters, std::int64_t rows, Lanes* squares) {
  static const std::array<std::array<float, kTaps>, kPoints> kWeights = tap_weights();
  TapProducts sums = {};
  constexpr std::int64_t kBlock = 32;  // rows that stay in the first cache for three readings
  for (std::int64_t begin = 0; begin < rows; begin += kBlock) {
    const float* const block = filters + begin * kTaps * kLanes;
    const std::int64_t count = std::min(kBlock, rows - begin);
    add_tap_products<0, 2>(block, count, sums);
    add_tap_products<2, 4>(block, count, sums);
    add_tap_products<4, kTaps>(block, count, sums);
  }
  Lanes all{};
  for (int i = 0; i < kTaps; ++i) all += sums[i][i];
  for (int p = 0; p < kPoints; ++p) {
    const auto& w = kWeights[p];
    Lanes square{};
    float weight = 0.0f;
    for (int i = 0; i < kTaps; ++i) {
      Lanes row = 0.5f * w[i] * sums[i][i];
      for (int j = i + 1; j < kTaps; ++j) row += w[j] * sums[i][j];
      square += 2.0f * w[i] * row;
      weight += w[i] * w[i];
    }
    // Where taps cancel, the sum is mostly rounding errors, and must not come out too small.
    constexpr float kRounding = 1e-4f;
    squares[p] = (square > 0.0f ? square : Lanes{}) + kRounding * weight * all;
  }
}

/// Transforms filters into the columns of `out` from `column` on, words along the rows.
template <class T>
void gather_filters(const Filters& filters, const Panels& out, std::int64_t column) {
  const std::int64_t panel = column / kColumns, width = out.width(panel);
  Lanes inverse[kPoints];
  if constexpr (kFixedPoint<T>) {
    Lanes squares[kPoints];
    sum_squares(filters.taps, filters.rows, squares);
    for (int p = 0; p < kPoints; ++p) inverse[p] = find_units(squares[p], out.units_at(p, column));
  }
  std::uint32_t* to = out.at(0, panel) + column % kColumns;
  for (std::int64_t r = 0; r < filters.rows; r += kPerWord<T>, to += width) {
    const auto first = [&](int i) { return load(filters.at(r, i)); };
    if constexpr (kFixedPoint<T>) {
      both_axes<filter, 3, kSide>(
          first, [&](int i) { return load(filters.at(r + 1, i)); },
          [&](int p, const Lanes& even, const Lanes& odd) {
            store(to + p * out.plane, pair(nearest(inverse[p] * even), nearest(inverse[p] * odd)));
          });
    } else {
      if (r + kRowsAhead < filters.rows) filters.fetch(r + kRowsAhead);
      both_axes<filter, 3, kSide>(
          first, [&](int p, const Lanes& value) { store(to + p * out.plane, std::bit_cast<Words>(value)); });
    }
  }
}

/// Sixteen filters [3][3][c] side by side: [c][3][3][16].
inline void interleave(const float* weights, std::int64_t c, float* out) {
  for (int i = 0; i < kTaps; ++i)
    for (std::int64_t first = 0; first < c; first += kLanes) {
      Words block[kLanes];
      for (int k = 0; k < kLanes; ++k)
        block[k] = std::bit_cast<Words>(load(weights + (k * kTaps + i) * c + first));
      transpose(block);
      for (int j = 0; j < kLanes; ++j)
        store(out + ((first + j) * kTaps + i) * kLanes, std::bit_cast<Lanes>(block[j]));
    }
}

}  // namespace sgm::winograd
