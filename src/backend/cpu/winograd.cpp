#include "backend/cpu/winograd.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "backend/cpu/cpu_context.h"
#include "backend/scratch.h"

namespace sgm::winograd {
namespace {

constexpr int kLanes = 16;
/// Sixteen channels at a time.
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

void store(float* to, const Lanes& lanes) { std::memcpy(to, &lanes, sizeof(lanes)); }

/// Sixteen bfloat16, and the integers that hold their bits while they are widened and rounded.
using Halves = std::uint16_t __attribute__((vector_size(kLanes * sizeof(std::uint16_t))));
using Words = std::uint32_t __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));

Lanes load(const bfloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return std::bit_cast<Lanes>(__builtin_convertvector(halves, Words) << 16);
}

/// Rounds to nearest even; a NaN stays one.
void store(bfloat16* to, const Lanes& lanes) {
  const Words bits = std::bit_cast<Words>(lanes);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  const Halves halves = __builtin_convertvector(lanes == lanes ? rounded : quiet, Halves);
  std::memcpy(to, &halves, sizeof(halves));
}

/// One-dimensional transforms: out[i] for i < rows of the matrix from in[j], with the given element strides.
/// input: B^T, n -> n. output: A^T, n -> m. filter: G, 3 -> n. output_t: A, m -> n. filter_t: G^T, n -> 3.
template <int M>
struct Transform;

template <>
struct Transform<2> {
  static constexpr int m = 2, n = 4;
  static void input(const Lanes* d, int s, Lanes* v, int t) {
    v[0] = d[0] - d[2 * s];
    v[t] = d[s] + d[2 * s];
    v[2 * t] = d[2 * s] - d[s];
    v[3 * t] = d[s] - d[3 * s];
  }
  static void output(const Lanes* p, int s, Lanes* y, int t) {
    y[0] = p[0] + p[s] + p[2 * s];
    y[t] = p[s] - p[2 * s] - p[3 * s];
  }
  static void filter(const Lanes* g, int s, Lanes* u, int t) {
    const Lanes even = 0.5f * (g[0] + g[2 * s]), odd = 0.5f * g[s];
    u[0] = g[0];
    u[t] = even + odd;
    u[2 * t] = even - odd;
    u[3 * t] = g[2 * s];
  }
  static void output_t(const Lanes* y, int s, Lanes* p, int t) {
    p[0] = y[0];
    p[t] = y[0] + y[s];
    p[2 * t] = y[0] - y[s];
    p[3 * t] = -y[s];
  }
  static void filter_t(const Lanes* u, int s, Lanes* g, int t) {
    const Lanes sum = 0.5f * (u[s] + u[2 * s]);
    g[0] = u[0] + sum;
    g[t] = 0.5f * (u[s] - u[2 * s]);
    g[2 * t] = sum + u[3 * s];
  }
};

template <>
struct Transform<4> {
  static constexpr int m = 4, n = 6;
  static constexpr float a = 0.70710678f, b = 1.41421356f;  // a^2 = 1/2, b^2 = 2
  static void input(const Lanes* d, int s, Lanes* v, int t) {
    const Lanes &d1 = d[s], &d2 = d[2 * s], &d3 = d[3 * s], &d4 = d[4 * s];
    const Lanes even_a = d4 - 2.0f * d2, odd_a = a * (d3 - 2.0f * d1);
    const Lanes even_b = d4 - 0.5f * d2, odd_b = b * (d3 - 0.5f * d1);
    v[0] = d[0] - 2.5f * d2 + d4;
    v[t] = even_a + odd_a;
    v[2 * t] = even_a - odd_a;
    v[3 * t] = even_b + odd_b;
    v[4 * t] = even_b - odd_b;
    v[5 * t] = d1 - 2.5f * d3 + d[5 * s];
  }
  static void output(const Lanes* p, int s, Lanes* y, int t) {
    const Lanes sum_a = p[s] + p[2 * s], diff_a = a * (p[s] - p[2 * s]);
    const Lanes sum_b = p[3 * s] + p[4 * s], diff_b = b * (p[3 * s] - p[4 * s]);
    y[0] = p[0] + sum_a + sum_b;
    y[t] = diff_a + diff_b;
    y[2 * t] = 0.5f * sum_a + 2.0f * sum_b;
    y[3 * t] = 0.5f * diff_a + 2.0f * diff_b + p[5 * s];
  }
  static void filter(const Lanes* g, int s, Lanes* u, int t) {
    const Lanes even_a = (-2.0f / 3.0f) * (g[0] + 0.5f * g[2 * s]), odd_a = (-2.0f / 3.0f * a) * g[s];
    const Lanes even_b = (1.0f / 6.0f) * (g[0] + 2.0f * g[2 * s]), odd_b = (1.0f / 6.0f * b) * g[s];
    u[0] = g[0];
    u[t] = even_a + odd_a;
    u[2 * t] = even_a - odd_a;
    u[3 * t] = even_b + odd_b;
    u[4 * t] = even_b - odd_b;
    u[5 * t] = g[2 * s];
  }
  static void output_t(const Lanes* y, int s, Lanes* p, int t) {
    const Lanes &y1 = y[s], &y2 = y[2 * s], &y3 = y[3 * s];
    const Lanes even_a = y[0] + 0.5f * y2, odd_a = a * (y1 + 0.5f * y3);
    const Lanes even_b = y[0] + 2.0f * y2, odd_b = b * (y1 + 2.0f * y3);
    p[0] = y[0];
    p[t] = even_a + odd_a;
    p[2 * t] = even_a - odd_a;
    p[3 * t] = even_b + odd_b;
    p[4 * t] = even_b - odd_b;
    p[5 * t] = y3;
  }
  static void filter_t(const Lanes* u, int s, Lanes* g, int t) {
    const Lanes sum_a = (-2.0f / 3.0f) * (u[s] + u[2 * s]), diff_a = (-2.0f / 3.0f * a) * (u[s] - u[2 * s]);
    const Lanes sum_b = (1.0f / 6.0f) * (u[3 * s] + u[4 * s]),
                diff_b = (1.0f / 6.0f * b) * (u[3 * s] - u[4 * s]);
    g[0] = u[0] + sum_a + sum_b;
    g[t] = diff_a + diff_b;
    g[2 * t] = 0.5f * sum_a + 2.0f * sum_b + u[5 * s];
  }
};

using OneDimensional = void (*)(const Lanes*, int, Lanes*, int);

/// Applies f along both axes: in [rows][rows] -> out [cols][cols].
template <OneDimensional F, int In, int Out>
void both_axes(const Lanes* in, Lanes* out) {
  Lanes half[Out * In];
  for (int j = 0; j < In; ++j) F(in + j, In, half + j, In);
  for (int i = 0; i < Out; ++i) F(half + i * In, 1, out + i * Out, 1);
}

/// Rows of tiles [first, last) of all images, numbered through, and the images they lie in.
struct TileRows {
  std::int64_t first, last;
};

/// A plane of images cut into tiles: `h` x `w` pixels with `channels` channels, of which tile (ty, tx) covers
/// `size` x `size` pixels from (ty step - pad, tx step - pad); what lies outside the image is zero.
struct Tiling {
  std::int64_t h, w, channels, tiles_y, tiles_x, step, size, pad;

  std::int64_t tiles(TileRows rows) const { return (rows.last - rows.first) * tiles_x; }

  /// Calls f(tile number in the chunk, image, y, x of the tile's corner) in parallel.
  template <class F>
  void for_each(TileRows rows, F&& f) const {
#pragma omp parallel for collapse(2)
    for (std::int64_t row = rows.first; row < rows.last; ++row)
      for (std::int64_t tx = 0; tx < tiles_x; ++tx)
        f((row - rows.first) * tiles_x + tx, row / tiles_y, (row % tiles_y) * step - pad, tx * step - pad);
  }
};

/// tiles -> [points][tiles][channels], each tile transformed by F from Size x Size to Points x Points.
template <OneDimensional F, int Size, int Points, class T>
void gather(const Tiling& t, TileRows rows, const T* image, T* out) {
  const std::int64_t plane = t.tiles(rows) * t.channels;
  t.for_each(rows, [&](std::int64_t tile, std::int64_t n, std::int64_t y0, std::int64_t x0) {
    for (std::int64_t c = 0; c < t.channels; c += kLanes) {
      Lanes in[Size * Size], transformed[Points * Points];
      for (int i = 0; i < Size; ++i)
        for (int j = 0; j < Size; ++j) {
          const std::int64_t y = y0 + i, x = x0 + j;
          const bool inside = y >= 0 && y < t.h && x >= 0 && x < t.w;
          in[i * Size + j] = inside ? load(image + ((n * t.h + y) * t.w + x) * t.channels + c) : Lanes{};
        }
      both_axes<F, Size, Points>(in, transformed);
      T* to = out + tile * t.channels + c;
      for (int p = 0; p < Points * Points; ++p) store(to + p * plane, transformed[p]);
    }
  });
}

/// Weights [k][3][3][c] -> [points][k][c]; rotated by half a turn for the gradient in the input.
template <class X, class T>
void transform_weights(const ConvShape& s, const float* weights, bool rotate, T* out) {
  constexpr int n = X::n;
#pragma omp parallel for
  for (std::int64_t k = 0; k < s.k; ++k)
    for (std::int64_t c = 0; c < s.c; c += kLanes) {
      Lanes g[9], u[n * n];
      for (int i = 0; i < 9; ++i) g[i] = load(weights + (k * 9 + (rotate ? 8 - i : i)) * s.c + c);
      both_axes<X::filter, 3, n>(g, u);
      for (int p = 0; p < n * n; ++p) store(out + (p * s.k + k) * s.c + c, u[p]);
    }
}

/// The batch of matrix products of one chunk: c[p] = a[p] b[p] for every point p, all dense.
Matmul products(ConstBuffer a, ConstBuffer b, Buffer c, std::int64_t points, std::int64_t m, std::int64_t n,
                std::int64_t k, bool trans_a, bool trans_b) {
  return {a, b,     {},    c,     points,  m,      n, k, trans_a ? m : k, trans_b ? k : n,
          n, m * k, k * n, m * n, trans_a, trans_b};
}

/// Chunks of tile rows whose transformed tiles, in and out, take a few megabytes: they should stay in the
/// cache.
template <class F>
void for_each_chunk(std::int64_t rows, std::int64_t bytes_per_row, F&& f) {
  constexpr std::int64_t kBudget = std::int64_t{8} << 20;
  const std::int64_t chunks = std::max<std::int64_t>(1, (rows * bytes_per_row + kBudget - 1) / kBudget);
  const std::int64_t size = (rows + chunks - 1) / chunks;
  for (std::int64_t first = 0; first < rows; first += size) f(TileRows{first, std::min(rows, first + size)});
}

/// Geometry of a convolution: how its input and output planes are cut.
template <class X>
struct Plan {
  std::int64_t tiles_y, tiles_x, rows;
  Tiling input, output;

  explicit Plan(const ConvShape& s)
      : tiles_y((s.oh + X::m - 1) / X::m),
        tiles_x((s.ow + X::m - 1) / X::m),
        rows(s.n * tiles_y),
        input{s.h, s.w, s.c, tiles_y, tiles_x, X::m, X::n, s.pad_begin},
        output{s.oh, s.ow, s.k, tiles_y, tiles_x, X::m, X::m, 0} {}

  std::int64_t bytes_per_row(std::size_t in, std::size_t out) const {
    const std::int64_t points = X::n * X::n;
    return points * tiles_x *
           (input.channels * static_cast<std::int64_t>(in) +
            output.channels * static_cast<std::int64_t>(out));
  }
};

/// Inverse-transforms products [points][tiles][k] of a chunk and hands every output pixel to `write`.
template <class X, class Write>
void scatter(const Tiling& t, TileRows rows, const float* products, Write&& write) {
  constexpr int m = X::m, n = X::n;
  const std::int64_t plane = t.tiles(rows) * t.channels;
  t.for_each(rows, [&](std::int64_t tile, std::int64_t image, std::int64_t y0, std::int64_t x0) {
    for (std::int64_t k = 0; k < t.channels; k += kLanes) {
      Lanes in[n * n], out[m * m];
      const float* from = products + tile * t.channels + k;
      for (int p = 0; p < n * n; ++p) in[p] = load(from + p * plane);
      both_axes<X::output, n, m>(in, out);
      for (std::int64_t i = 0; i < std::min<std::int64_t>(m, t.h - y0); ++i)
        for (std::int64_t j = 0; j < std::min<std::int64_t>(m, t.w - x0); ++j)
          write(((image * t.h + y0 + i) * t.w + x0 + j) * t.channels + k, k, out[i * m + j]);
    }
  });
}

/// Runs tiles of `image` against transformed weights: the body of both convolution and gradient in the input.
/// Weights are [points][rows][cols] with rows the channels of the image, or its columns if trans_b.
template <class X, class T, class Write>
void filter_tiles(const Plan<X>& plan, Context& context, const T* image, ConstBuffer weights, bool trans_b,
                  Write&& write) {
  constexpr int points = X::n * X::n;
  const std::int64_t c = plan.input.channels, k = plan.output.channels;
  for_each_chunk(plan.rows, plan.bytes_per_row(sizeof(T), sizeof(float)), [&](TileRows rows) {
    const std::int64_t tiles = plan.input.tiles(rows);
    const Scratch in(context, static_cast<std::size_t>(points * tiles * c) * sizeof(T));
    const Scratch out(context, static_cast<std::size_t>(points * tiles * k) * sizeof(float));
    gather<X::input, X::n, X::n>(plan.input, rows, image, in.as<T>());
    products({in.data(), dtype_of<T>()}, weights, {out.data(), DType::f32}, points, tiles, k, c, false,
             trans_b)
        .cpu(context);
    scatter<X>(plan.output, rows, out.as<float>(), write);
  });
}

template <class X, class T>
void forward(const Conv2d& op, Context& context) {
  constexpr int points = X::n * X::n;
  const ConvShape& s = op.shape;
  // Transformed weights are four times as large as the weights: cheaper to make again than to keep.
  const Scratch weights(context, static_cast<std::size_t>(points * s.k * s.c) * sizeof(T));
  transform_weights<X>(s, op.weight.as<float>(), false, weights.as<T>());
  const auto scale = static_cast<float>(op.scale);
  const float* bias = op.bias.as<float>();
  const auto write = [&]<class U>(U* y) {
    const U* residual = op.residual.as<U>();
    filter_tiles<X>(Plan<X>(s), context, op.x.as<T>(), {weights.data(), dtype_of<T>()}, true,
                    [=](std::int64_t i, std::int64_t k, Lanes sum) {
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

template <class X, class T>
void grad_input(const Conv2dGradInput& op, Context& context) {
  constexpr int points = X::n * X::n;
  const ConvShape& s = op.shape;
  // The gradient is a convolution of dy with the rotated filter, channels exchanged.
  const ConvShape back{s.n, s.oh, s.ow, s.k, s.c, 3, 3, s.h, s.w, 1, 2 - s.pad_begin, 2 - s.pad_end};
  const Scratch weights(context, static_cast<std::size_t>(points * s.k * s.c) * sizeof(T));
  transform_weights<X>(s, op.weight.as<float>(), true, weights.as<T>());
  T* dx = op.dx.as<T>();
  const auto scale = static_cast<float>(op.scale);
  filter_tiles<X>(Plan<X>(back), context, op.dy.as<T>(), {weights.data(), dtype_of<T>()}, false,
                  [=](std::int64_t i, std::int64_t, const Lanes& sum) { store(dx + i, scale * sum); });
}

template <class X, class T>
void grad_weight(const Conv2dGradWeight& op, Context& context) {
  constexpr int n = X::n, points = n * n;
  const ConvShape& s = op.shape;
  const Plan<X> plan(s);
  const Scratch sums(context, static_cast<std::size_t>(points * s.k * s.c) * sizeof(float));
  const auto scale = static_cast<float>(op.scale);
  bool first = true;
  for_each_chunk(plan.rows, plan.bytes_per_row(sizeof(T), sizeof(T)), [&](TileRows rows) {
    const std::int64_t tiles = plan.input.tiles(rows);
    const Scratch x(context, static_cast<std::size_t>(points * tiles * s.c) * sizeof(T));
    const Scratch dy(context, static_cast<std::size_t>(points * tiles * s.k) * sizeof(T));
    gather<X::input, n, n>(plan.input, rows, op.x.as<T>(), x.as<T>());
    gather<X::output_t, X::m, n>(plan.output, rows, op.dy.as<T>(), dy.as<T>());
    Matmul matmul = products({dy.data(), dtype_of<T>()}, {x.data(), dtype_of<T>()}, {sums.data(), DType::f32},
                             points, s.k, s.c, tiles, true, false);
    matmul.accumulate = !std::exchange(first, false);
    matmul.cpu(context);
  });
#pragma omp parallel for
  for (std::int64_t k = 0; k < s.k; ++k)
    for (std::int64_t c = 0; c < s.c; c += kLanes) {
      Lanes u[points], g[9];
      for (int p = 0; p < points; ++p) u[p] = load(sums.as<float>() + (p * s.k + k) * s.c + c);
      both_axes<X::filter_t, n, 3>(u, g);
      for (int i = 0; i < 9; ++i) store(op.dweight.as<float>() + (k * 9 + i) * s.c + c, scale * g[i]);
    }
  if (op.dbias) {
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
}

/// Calls body.template operator()<Transform, T>() with the tile size of an element type.
template <class Body>
void dispatch(DType dtype, Body&& body) {
  if (dtype == DType::bf16) return body.template operator()<Transform<2>, bfloat16>();
  body.template operator()<Transform<4>, float>();
}

}  // namespace

bool suits(const ConvShape& s, DType dtype) {
  if (s.c2 || s.r != 3 || s.s != 3 || s.stride != 1 || s.dilation != 1 || s.c % kLanes || s.k % kLanes ||
      s.pad_begin > 2 || s.pad_end > 2)
    return false;
  const bool half = dtype == DType::bf16;
  const double m = half ? 2 : 4, points = half ? 16 : 36, size = half ? 2 : 4;
  const double tiles = static_cast<double>(s.n) * std::ceil(static_cast<double>(s.oh) / m) *
                       std::ceil(static_cast<double>(s.ow) / m);
  const double weights = static_cast<double>(s.c) * static_cast<double>(s.k);
  const double pixels = static_cast<double>(s.n * s.oh * s.ow);
  // Multiplications, and bytes that the transforms move at what that many multiplications cost on usual CPUs.
  const double per_byte = half ? 6 : 3;
  const double direct = pixels * 9 * weights;
  const double weight_bytes = weights * points * size * 2.0;
  const double tile_bytes = tiles * points * static_cast<double>(s.c * 2 * (half ? 2 : 4) + s.k * 2 * 4);
  return tiles * points * weights + per_byte * (weight_bytes + 0.5 * tile_bytes) < 0.9 * direct;
}

void convolve(const Conv2d& op, Context& context) {
  dispatch(op.x.dtype, [&]<class X, class T>() { forward<X, T>(op, context); });
}

void convolve_grad_input(const Conv2dGradInput& op, Context& context) {
  dispatch(op.dy.dtype, [&]<class X, class T>() { grad_input<X, T>(op, context); });
}

void convolve_grad_weight(const Conv2dGradWeight& op, Context& context) {
  dispatch(op.x.dtype, [&]<class X, class T>() { grad_weight<X, T>(op, context); });
}

}  // namespace sgm::winograd
