#include "backend/cpu/winograd.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "backend/cpu/cpu_context.h"
#include "backend/cpu/tile_product.h"
#include "backend/cpu/winograd_transform.h"
#include "backend/scratch.h"

namespace sgm::winograd {
namespace {

constexpr std::int64_t kColumns = TileProduct::kColumns;

/// How transformed numbers are held. f32: as they are, one a word. bf16: two a word, as 16-bit integers that
/// count units of their row or column, of which the products' sums are exact. A row's norm is 2^15 units at
/// most, so that no sum leaves 32 bits (Cauchy-Schwarz), and its rounding errors are a tenth of bf16's.
template <class T>
constexpr bool kFixedPoint = std::is_same_v<T, bfloat16>;
template <class T>
constexpr int kPerWord = kFixedPoint<T> ? 2 : 1;
constexpr float kMaxNorm = 32000.0f;

/// The integer nearest to each lane, in the low halves of the words: below 2^15.
Words nearest(const Lanes& lanes) { return std::bit_cast<Words>(lanes + 12582912.0f); }

Halves integers(const Lanes& lanes) { return __builtin_convertvector(nearest(lanes), Halves); }

Words pair(const Words& low, const Words& high) { return (low & 0xffffu) | (high << 16); }

/// What a unit stands for in a row whose squares have this sum; returns its inverse.
float find_unit(float squares, float* unit) {
  *unit = std::sqrt(squares) / kMaxNorm;
  return *unit > 0.0f ? 1.0f / *unit : 0.0f;
}

/// The same for sixteen columns.
Lanes find_units(const Lanes& squares, float* units) {
  Lanes inverse;
  for (int i = 0; i < kLanes; ++i) inverse[i] = find_unit(squares[i], units + i);
  return inverse;
}

float sum_of(const Lanes& lanes) {
  float sum = 0.0f;
  for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

/// Planes of points lie this much further apart than they are large: caches hold few lines that are a power
/// of two apart.
constexpr std::int64_t kGap = 5 * kLanes;

/// A matrix [rows of words][columns] for every point, in panels of kColumns columns that are dense each.
struct Panels {
  std::uint32_t* words;
  float* units;  // [points, columns], of fixed point
  std::int64_t rows, columns;

  static std::int64_t size(std::int64_t rows, std::int64_t columns) {
    return kPoints * (rows * columns + kGap + columns);
  }
  Panels(void* memory, std::int64_t rows_, std::int64_t columns_)
      : words(static_cast<std::uint32_t*>(memory)),
        units(static_cast<float*>(memory) + kPoints * (rows_ * columns_ + kGap)),
        rows(rows_),
        columns(columns_) {}

  std::int64_t count() const { return (columns + kColumns - 1) / kColumns; }
  std::int64_t width(std::int64_t panel) const { return std::min(kColumns, columns - panel * kColumns); }
  std::uint32_t* at(int point, std::int64_t panel) const {
    return words + point * (rows * columns + kGap) + panel * kColumns * rows;
  }
  float* units_at(int point, std::int64_t column) const { return units + point * columns + column; }
};

/// Memory of a number of words, or floats.
std::size_t bytes(std::int64_t words) { return static_cast<std::size_t>(words) * sizeof(float); }

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

/// Where the pixels of a tile of Size x Size lie in the images; those outside of them are left out.
template <int Size>
class Tile {
 public:
  Tile(const Tiling& t, std::int64_t number) {
    const std::int64_t row = number / t.tiles_x, image = row / t.tiles_y;
    const std::int64_t y0 = row % t.tiles_y * kOutputs - t.pad, x0 = number % t.tiles_x * kOutputs - t.pad;
    for (int i = 0; i < Size; ++i)
      for (int j = 0; j < Size; ++j) {
        const std::int64_t y = y0 + i, x = x0 + j;
        const bool inside = y >= 0 && y < t.h && x >= 0 && x < t.w;
        at_[i * Size + j] = inside ? ((image * t.h + y) * t.w + x) * t.channels : -1;
      }
  }

  /// Sixteen channels, transformed by F to points.
  template <OneDimensional F, class T>
  [[gnu::always_inline]] void transform(const T* image, std::int64_t channel, Lanes* out) const {
    Lanes in[Size * Size];
#pragma GCC unroll 36
    for (int i = 0; i < Size * Size; ++i) in[i] = at_[i] >= 0 ? load(image + at_[i] + channel) : Lanes{};
    both_axes<F, Size, kSide>(in, out);
  }

  /// Calls f(pixel, number within the tile) for all inside.
  template <class F>
  [[gnu::always_inline]] void for_each(F&& f) const {
#pragma GCC unroll 16
    for (int i = 0; i < Size * Size; ++i)
      if (at_[i] >= 0) f(at_[i], i);
  }

 private:
  std::int64_t at_[Size * Size];
};

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

/// Transforms tile `number` into row i. `row` holds [points][channels] for a while, points a gap apart.
template <class T>
void gather_row(const Tiling& t, std::int64_t number, const T* image, float* row, const Rows& out,
                std::int64_t i) {
  const Tile<kSide> tile(t, number);
  const std::int64_t row_plane = t.channels + kGap;
  std::uint32_t* const to = out.words + i * out.length;
  Lanes values[kPoints], squares[kPoints] = {};
  for (std::int64_t c = 0; c < t.channels; c += kLanes) {
    tile.template transform<input>(image, c, values);
    for (int p = 0; p < kPoints; ++p) {
      if constexpr (kFixedPoint<T>) {
        store(row + p * row_plane + c, values[p]);
        squares[p] += values[p] * values[p];
      } else {
        store(to + p * out.plane + c, std::bit_cast<Words>(values[p]));
      }
    }
  }
  if constexpr (kFixedPoint<T>)
    for (int p = 0; p < kPoints; ++p) {
      const float inverse = find_unit(sum_of(squares[p]), out.units + p * out.tiles + i);
      for (std::int64_t c = 0; c < t.channels; c += kLanes)
        store(to + p * out.plane + c / 2, integers(inverse * load(row + p * row_plane + c)));
    }
}

/// A panel of the matrix whose rows are tiles and whose columns are channels, transformed by F.
template <OneDimensional F, int Size, class T>
void gather_panel(const Tiling& t, Tiles range, const T* image, const Panels& out, std::int64_t panel) {
  constexpr int kHalves = kColumns / kLanes;
  const std::int64_t width = out.width(panel), halves = width / kLanes;
  Lanes inverse[kHalves][kPoints], squares[kHalves][kPoints] = {}, even[kPoints], odd[kPoints];
  const T* const channels = image + panel * kColumns;
  if constexpr (kFixedPoint<T>) {
    for (std::int64_t i = range.first; i < range.last; ++i) {
      const Tile<Size> tile(t, i);
      for (int h = 0; h < halves; ++h) {
        tile.template transform<F>(channels, h * kLanes, even);
        for (int p = 0; p < kPoints; ++p) squares[h][p] += even[p] * even[p];
      }
    }
    for (int h = 0; h < halves; ++h)
      for (int p = 0; p < kPoints; ++p)
        inverse[h][p] = find_units(squares[h][p], out.units_at(p, panel * kColumns + h * kLanes));
  }
  for (std::int64_t k = 0; k < out.rows; ++k) {
    const std::int64_t i = range.first + k * kPerWord<T>;
    const bool alone = i + 1 == range.last;
    const Tile<Size> one(t, i), other(t, alone ? i : i + 1);
    for (int h = 0; h < halves; ++h) {
      one.template transform<F>(channels, h * kLanes, even);
      if constexpr (kFixedPoint<T>) {
        other.template transform<F>(channels, h * kLanes, odd);
        if (alone) std::fill_n(odd, kPoints, Lanes{});
      }
      for (int p = 0; p < kPoints; ++p) {
        Words words = std::bit_cast<Words>(even[p]);
        if constexpr (kFixedPoint<T>)
          words = pair(nearest(inverse[h][p] * even[p]), nearest(inverse[h][p] * odd[p]));
        store(out.at(p, panel) + k * width + h * kLanes, words);
      }
    }
  }
}

/// Filters [rows][3][3] of sixteen columns: taps `tap` floats apart, rows `row` floats apart.
struct Filters {
  const float* taps;
  std::int64_t rows, row, tap;
  bool rotated;  // by half a turn

  [[gnu::always_inline]] void transform(std::int64_t r, Lanes* out) const {
    Lanes g[kTaps];
    for (int i = 0; i < kTaps; ++i) g[i] = load(taps + r * row + (rotated ? kTaps - 1 - i : i) * tap);
    both_axes<filter, 3, kSide>(g, out);
  }
};

/// Transforms filters into the columns of `out` from `at` on, words along the rows.
template <class T>
void gather_filters(const Filters& filters, const Panels& out, std::int64_t at) {
  const std::int64_t panel = at / kColumns, width = out.width(panel);
  Lanes inverse[kPoints], squares[kPoints] = {}, even[kPoints], odd[kPoints];
  if constexpr (kFixedPoint<T>) {
    for (std::int64_t r = 0; r < filters.rows; ++r) {
      filters.transform(r, even);
      for (int p = 0; p < kPoints; ++p) squares[p] += even[p] * even[p];
    }
    for (int p = 0; p < kPoints; ++p) inverse[p] = find_units(squares[p], out.units_at(p, at));
  }
  for (std::int64_t row = 0; row < out.rows; ++row) {
    filters.transform(row * kPerWord<T>, even);
    if constexpr (kFixedPoint<T>) filters.transform(2 * row + 1, odd);
    for (int p = 0; p < kPoints; ++p) {
      Words words = std::bit_cast<Words>(even[p]);
      if constexpr (kFixedPoint<T>) words = pair(nearest(inverse[p] * even[p]), nearest(inverse[p] * odd[p]));
      store(out.at(p, panel) + row * width + at % kColumns, words);
    }
  }
}

/// Sixteen filters [3][3][c] side by side: [c][3][3][16].
void interleave(const float* weights, std::int64_t c, float* out) {
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

template <class T>
void multiply(const TileProduct& product) {
  kFixedPoint<T> ? multiply_integers(product) : multiply_floats(product);
}

/// Geometry of a convolution: how its input and output planes are cut.
struct Plan {
  std::int64_t tiles_y, tiles_x, tiles;
  Tiling input, output;

  explicit Plan(const ConvShape& s)
      : tiles_y((s.oh + kOutputs - 1) / kOutputs),
        tiles_x((s.ow + kOutputs - 1) / kOutputs),
        tiles(s.n * tiles_y * tiles_x),
        input{s.h, s.w, s.c, tiles_y, tiles_x, s.pad_begin},
        output{s.oh, s.ow, s.k, tiles_y, tiles_x, 0} {}

  /// Tiles that are transformed at a time: those of some megabytes, which stay in the last cache.
  std::int64_t at_a_time(std::int64_t words_per_tile) const {
    constexpr std::int64_t kBudget = std::int64_t{8} << 20;
    const std::int64_t chunks =
        (tiles * static_cast<std::int64_t>(bytes(words_per_tile)) + kBudget - 1) / kBudget;
    return (tiles + chunks - 1) / std::max<std::int64_t>(1, chunks);
  }
};

/// Tiles whose products with one panel stay in a thread's cache.
constexpr std::int64_t kGroup = 48;
constexpr std::int64_t kGroupPlane = kGroup * kColumns + kGap;

/// Inverse-transforms products [points][tiles][width] and hands every output to `write`; `channel` is the
/// first of the width.
template <class Write>
void scatter(const Tiling& t, Tiles range, const float* products, std::int64_t width, std::int64_t channel,
             Write&& write) {
  for (std::int64_t i = 0; i < range.count(); ++i) {
    const Tile<kOutputs> tile(t, range.first + i);
    for (std::int64_t k = 0; k < width; k += kLanes) {
      Lanes in[kPoints], out[kOutputs * kOutputs];
      for (int p = 0; p < kPoints; ++p) in[p] = load(products + p * kGroupPlane + i * width + k);
      both_axes<output, kSide, kOutputs>(in, out);
      tile.for_each([&](std::int64_t pixel, int j) { write(pixel + channel + k, channel + k, out[j]); });
    }
  }
}

/// Tiles `range` of the rows against a panel of transformed filters.
template <class T, class Write>
void filter_group(const Tiling& output, Tiles range, const Rows& rows, std::int64_t row,
                  const Panels& filters, std::int64_t panel, std::int64_t channel, float* products,
                  Write&& write) {
  const std::int64_t width = filters.width(panel);
  for (int p = 0; p < kPoints; ++p)
    multiply<T>({rows.words + p * rows.plane + row * rows.length, rows.length, 1, filters.at(p, panel),
                 products + p * kGroupPlane, width,
                 kFixedPoint<T> ? rows.units + p * rows.tiles + row : nullptr,
                 kFixedPoint<T> ? filters.units_at(p, panel * kColumns) : nullptr, range.count(), rows.length,
                 width, p + 1 < kPoints ? rows.plane : 0});
  scatter(output, range, products, width, channel, write);
}

/// Runs tiles of `image` against filters: the body of both convolution and gradient in the input. Each thread
/// transforms the filters of its own output channels into its own cache, or all threads transform all filters
/// first, where they would otherwise be idle or do so again.
/// filters_at(first, buffer) are those of sixteen output channels, for which it may use `buffer`.
template <class T, class FiltersAt, class Write>
void filter_tiles(const Plan& plan, Context& context, const T* image, FiltersAt&& filters_at, Write&& write) {
  const std::int64_t c = plan.input.channels, k = plan.output.channels, length = c / kPerWord<T>;
  const std::int64_t size = plan.at_a_time(kPoints * length), threads = omp_get_max_threads();
  const std::int64_t panels = (k + kColumns - 1) / kColumns;
  const bool shared = size < plan.tiles || panels < threads;
  const std::int64_t columns = shared ? k : std::min(k, kColumns),
                     row = std::max(kPoints * (c + kGap), kTaps * kLanes * c);
  const std::int64_t filters_size = Panels::size(length, columns), own_size = row + kPoints * kGroupPlane;
  const Scratch filters_memory(context, bytes(filters_size * (shared ? 1 : threads)));
  const Scratch own_memory(context, bytes(own_size * threads)),
      rows_memory(context, bytes(Rows::size(size, length)));
  if (context.is_dry()) return;
#pragma omp parallel
  {
    const std::int64_t me = omp_get_thread_num();
    float* const filters_at_hand = filters_memory.as<float>() + (shared ? 0 : me * filters_size);
    float *const own = own_memory.as<float>() + me * own_size, *const products = own + row;
    if (shared) {
      const Panels filters(filters_at_hand, length, k);
#pragma omp for schedule(static)
      for (std::int64_t i = 0; i < k; i += kLanes) gather_filters<T>(filters_at(i, own), filters, i);
    }
    for (std::int64_t first = 0; first < plan.tiles; first += size) {
      const Tiles chunk{first, std::min(plan.tiles, first + size)};
      const Rows rows(rows_memory.data(), chunk.count(), length);
#pragma omp for schedule(static)
      for (std::int64_t i = 0; i < chunk.count(); ++i) gather_row(plan.input, first + i, image, own, rows, i);
      const std::int64_t groups = (chunk.count() + kGroup - 1) / kGroup, parts = shared ? groups : 1;
#pragma omp for collapse(2) schedule(static)
      for (std::int64_t panel = 0; panel < panels; ++panel)
        for (std::int64_t part = 0; part < parts; ++part) {
          const std::int64_t channel = panel * kColumns;
          const Panels filters(filters_at_hand, length, shared ? k : std::min(kColumns, k - channel));
          if (!shared)
            for (std::int64_t i = 0; i < filters.columns; i += kLanes)
              gather_filters<T>(filters_at(channel + i, own), filters, i);
          for (std::int64_t g = part; g < groups; g += parts) {
            const Tiles range{first + g * kGroup, std::min(chunk.last, first + (g + 1) * kGroup)};
            filter_group<T>(plan.output, range, rows, g * kGroup, filters, shared ? panel : 0, channel,
                            products, write);
          }
        }
    }
  }
}

template <class T>
void forward(const Conv2d& op, Context& context) {
  const ConvShape& s = op.shape;
  const auto filters_at = [&](std::int64_t first, float* buffer) {
    interleave(op.weight.as<float>() + first * kTaps * s.c, s.c, buffer);
    return Filters{buffer, s.c, kTaps * kLanes, kLanes, false};
  };
  const auto scale = static_cast<float>(op.scale);
  const float* bias = op.bias.as<float>();
  const auto write = [&]<class U>(U* y) {
    const U* residual = op.residual.as<U>();
    filter_tiles(Plan(s), context, op.x.as<T>(), filters_at, [=](std::int64_t i, std::int64_t k, Lanes sum) {
      if (bias) sum += load(bias + k);
      if (residual) sum += load(residual + i);
      store(y + i, scale * sum);
    });
  };
  if (op.y.dtype == DType::bf16)
    write(op.y.as<bfloat16>());
  else
    write(op.y.as<float>());
}

template <class T>
void grad_input(const Conv2dGradInput& op, Context& context) {
  const ConvShape& s = op.shape;
  // The gradient is a convolution of dy with the rotated filter, channels exchanged.
  const ConvShape back{s.n, s.oh, s.ow, s.k, s.c, 3, 3, s.h, s.w, 1, 2 - s.pad_begin, 2 - s.pad_end};
  const auto filters_at = [&](std::int64_t first, float*) {
    return Filters{op.weight.as<float>() + first, s.k, kTaps * s.c, s.c, true};
  };
  T* dx = op.dx.as<T>();
  const auto scale = static_cast<float>(op.scale);
  filter_tiles(Plan(back), context, op.dy.as<T>(), filters_at,
               [=](std::int64_t i, std::int64_t, const Lanes& sum) { store(dx + i, scale * sum); });
}

constexpr std::int64_t kSumsPlane = kColumns * kColumns + kGap;

/// Inverse-transforms products [points][k of a panel][c of a panel] into the weights they are the gradient
/// of.
void scatter_filters(const ConvShape& s, const float* products, std::int64_t k0, std::int64_t ks,
                     std::int64_t c0, std::int64_t cs, float scale, bool add, float* dweight) {
  for (std::int64_t k = 0; k < ks; ++k)
    for (std::int64_t c = 0; c < cs; c += kLanes) {
      Lanes u[kPoints], g[kTaps];
      for (int p = 0; p < kPoints; ++p) u[p] = load(products + p * kSumsPlane + k * cs + c);
      both_axes<filter_t, kSide, 3>(u, g);
      for (int i = 0; i < kTaps; ++i) {
        float* to = dweight + ((k0 + k) * kTaps + i) * s.c + c0 + c;
        store(to, add ? load(to) + scale * g[i] : scale * g[i]);
      }
    }
}

/// The gradient of the bias: sums over pixels.
template <class T>
void sum_pixels(const Conv2dGradWeight& op) {
  const ConvShape& s = op.shape;
  const std::int64_t pixels = s.n * s.oh * s.ow;
  const T* dy = op.dy.as<T>();
#pragma omp parallel for
  for (std::int64_t k = 0; k < s.k; k += kLanes) {
    double total[kLanes] = {};
    for (std::int64_t begin = 0; begin < pixels; begin += 256) {
      Lanes sum{};
      for (std::int64_t i = begin; i < std::min(pixels, begin + 256); ++i) sum += load(dy + i * s.k + k);
      for (int j = 0; j < kLanes; ++j) total[j] += sum[j];
    }
    for (int j = 0; j < kLanes; ++j) op.dbias.as<float>()[k + j] = static_cast<float>(op.scale * total[j]);
  }
}

template <class T>
void grad_weight(const Conv2dGradWeight& op, Context& context) {
  const ConvShape& s = op.shape;
  const Plan plan(s);
  const std::int64_t size = plan.at_a_time(kPoints * (s.c + s.k) / kPerWord<T>);
  const auto words = [](std::int64_t tiles) { return (tiles + kPerWord<T> - 1) / kPerWord<T>; };
  constexpr std::int64_t kShare = kPoints * kSumsPlane;
  const Scratch x_memory(context, bytes(Panels::size(words(size), s.c)));
  const Scratch dy_memory(context, bytes(Panels::size(words(size), s.k)));
  const Scratch products(context, bytes(omp_get_max_threads() * kShare));
  if (context.is_dry()) return;
  const auto scale = static_cast<float>(op.scale);
#pragma omp parallel
  for (std::int64_t first = 0; first < plan.tiles; first += size) {
    const Tiles range{first, std::min(plan.tiles, first + size)};
    const Panels x(x_memory.data(), words(range.count()), s.c), dy(dy_memory.data(), x.rows, s.k);
#pragma omp for schedule(static, 1)
    for (std::int64_t i = 0; i < x.count() + dy.count(); ++i)  // those of x take longer
      if (i < x.count())
        gather_panel<input, kSide>(plan.input, range, op.x.as<T>(), x, i);
      else
        gather_panel<output_t, kOutputs>(plan.output, range, op.dy.as<T>(), dy, i - x.count());
    float* const sums = products.as<float>() + omp_get_thread_num() * kShare;
#pragma omp for collapse(2) schedule(static)
    for (std::int64_t k = 0; k < dy.count(); ++k)
      for (std::int64_t c = 0; c < x.count(); ++c) {
        const std::int64_t ks = dy.width(k), cs = x.width(c);
        for (int p = 0; p < kPoints; ++p)
          multiply<T>({dy.at(p, k), 1, ks, x.at(p, c), sums + p * kSumsPlane, cs,
                       kFixedPoint<T> ? dy.units_at(p, k * kColumns) : nullptr,
                       kFixedPoint<T> ? x.units_at(p, c * kColumns) : nullptr, ks, x.rows, cs});
        scatter_filters(s, sums, k * kColumns, ks, c * kColumns, cs, scale, first > 0,
                        op.dweight.as<float>());
      }
  }
  if (op.dbias) sum_pixels<T>(op);
}

}  // namespace

bool suits(const ConvShape& s, DType dtype) {
  if (s.c2 || s.r != 3 || s.s != 3 || s.stride != 1 || s.dilation != 1 || s.c % kLanes || s.k % kLanes ||
      s.pad_begin > 2 || s.pad_end > 2)
    return false;
  const bool half = dtype == DType::bf16;
  if (!(half ? integers_are_fast() : floats_are_fast())) return false;
  const double tiles = static_cast<double>(s.n) * std::ceil(static_cast<double>(s.oh) / kOutputs) *
                       std::ceil(static_cast<double>(s.ow) / kOutputs);
  const double weights = static_cast<double>(s.c) * static_cast<double>(s.k);
  const double pixels = static_cast<double>(s.n * s.oh * s.ow), size = half ? 2 : 4;
  // Multiplications, and bytes that the transforms move at what that many multiplications cost on usual CPUs.
  const double per_byte = half ? 6 : 3;
  const double direct = pixels * 9 * weights;
  const double weight_bytes = weights * kPoints * size * 2.0;
  const double tile_bytes = tiles * kPoints * static_cast<double>(s.c * 2 * (half ? 2 : 4) + s.k * 2 * 4);
  return tiles * kPoints * weights + per_byte * (weight_bytes + 0.5 * tile_bytes) < 0.9 * direct;
}

void convolve(const Conv2d& op, Context& context) {
  op.x.dtype == DType::bf16 ? forward<bfloat16>(op, context) : forward<float>(op, context);
}

void convolve_grad_input(const Conv2dGradInput& op, Context& context) {
  op.dy.dtype == DType::bf16 ? grad_input<bfloat16>(op, context) : grad_input<float>(op, context);
}

void convolve_grad_weight(const Conv2dGradWeight& op, Context& context) {
  op.x.dtype == DType::bf16 ? grad_weight<bfloat16>(op, context) : grad_weight<float>(op, context);
}

}  // namespace sgm::winograd
