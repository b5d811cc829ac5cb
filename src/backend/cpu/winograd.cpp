#include "backend/cpu/winograd.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "backend/cpu/cpu_context.h"
#include "backend/cpu/pixel_sums.h"
#include "backend/cpu/winograd_gather.h"
#include "backend/scratch.h"

namespace sgm::winograd {
namespace {

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
    const Pixels<std::int64_t, kOutputs> pixels(t, range.first + i, 0, -1);
    for (std::int64_t k = 0; k < width; k += kLanes) {
      const float* const from = products + i * width + k;
      both_axes<output, kSide, kOutputs>([&](int p) { return load(from + p * kGroupPlane); },
                                         [&](int j, const Lanes& value) {
                                           if (pixels.at[j] >= 0)
                                             write(pixels.at[j] + channel + k, channel + k, value);
                                         });
    }
  }
}

/// Tiles `range`, from place `row` of the rows on, against a panel of transformed filters.
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

/// What a thread needs for itself: memory for filters [rows][3][3][16] or a transformed tile, which takes
/// less; for products; and a pixel outside of the images.
template <class T>
struct Own {
  float *tile, *products;
  T* zeros;

  static std::int64_t size(std::int64_t channels) {
    return kTaps * kLanes * channels + kPoints * kGroupPlane + channels;
  }
  Own(float* memory, std::int64_t channels)
      : tile(memory),
        products(tile + kTaps * kLanes * channels),
        zeros(reinterpret_cast<T*>(products + kPoints * kGroupPlane)) {
    std::fill_n(zeros, channels, T{});
  }
};

/// Many tiles: threads transform the filters together, then each its own tiles, some at a time, which stay in
/// its cache until they are multiplied.
template <class T, class FiltersAt, class Write>
void filter_own_tiles(const Plan& plan, Context& context, const T* image, FiltersAt&& filters_at,
                      Write&& write) {
  const std::int64_t c = plan.input.channels, k = plan.output.channels, length = c / kPerWord<T>;
  const std::int64_t threads = omp_get_max_threads(), own_size = Own<T>::size(c);
  constexpr std::int64_t kCached = std::int64_t{512} << 10;
  const std::int64_t blocks =
      kCached / static_cast<std::int64_t>(bytes(kPoints * length * TileProduct::kRows));
  const std::int64_t group =
      std::clamp<std::int64_t>(blocks * TileProduct::kRows, 2 * TileProduct::kRows, kGroup);
  const std::int64_t rows_size = Rows::size(group, length);
  const Scratch filters_memory(context, bytes(Panels::size(length, k)));
  const Scratch own_memory(context, bytes(own_size * threads)),
      rows_memory(context, bytes(rows_size * threads));
  if (context.is_dry()) return;
  const Panels filters(filters_memory.data(), length, k);
#pragma omp parallel
  {
    const std::int64_t me = omp_get_thread_num();
    const Own<T> own(own_memory.as<float>() + me * own_size, c);
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < k; i += kLanes) gather_filters<T>(filters_at(i, own.tile), filters, i);
#pragma omp for schedule(static)
    for (std::int64_t part = 0; part < threads; ++part) {
      const std::int64_t end = plan.tiles * (part + 1) / threads;
      for (std::int64_t first = plan.tiles * part / threads; first < end; first += group) {
        const Tiles range{first, std::min(end, first + group)};
        const Rows rows(rows_memory.as<float>() + me * rows_size, range.count(), length);
        for (std::int64_t i = 0; i < range.count(); ++i)
          gather_row<T>(plan.input, first + i, image, own.zeros, own.tile, rows, i);
        for (std::int64_t panel = 0; panel < filters.count(); ++panel)
          filter_group<T>(plan.output, range, rows, 0, filters, panel, panel * kColumns, own.products, write);
      }
    }
  }
}

/// Few tiles: threads transform them together, then each the filters of its own output channels, which stay
/// in its cache until they are multiplied.
template <class T, class FiltersAt, class Write>
void filter_with_own_filters(const Plan& plan, Context& context, const T* image, FiltersAt&& filters_at,
                             Write&& write) {
  const std::int64_t c = plan.input.channels, k = plan.output.channels, length = c / kPerWord<T>;
  const std::int64_t threads = omp_get_max_threads(), own_size = Own<T>::size(c);
  const std::int64_t filters_size = Panels::size(length, std::min(k, kColumns));
  const Scratch filters_memory(context, bytes(filters_size * threads));
  const Scratch own_memory(context, bytes(own_size * threads)),
      rows_memory(context, bytes(Rows::size(plan.tiles, length)));
  if (context.is_dry()) return;
  const Rows rows(rows_memory.data(), plan.tiles, length);
#pragma omp parallel
  {
    const std::int64_t me = omp_get_thread_num();
    const Own<T> own(own_memory.as<float>() + me * own_size, c);
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < plan.tiles; ++i)
      gather_row<T>(plan.input, i, image, own.zeros, own.tile, rows, i);
#pragma omp for schedule(static)
    for (std::int64_t channel = 0; channel < k; channel += kColumns) {
      const Panels filters(filters_memory.as<float>() + me * filters_size, length,
                           std::min(kColumns, k - channel));
      for (std::int64_t i = 0; i < filters.columns; i += kLanes)
        gather_filters<T>(filters_at(channel + i, own.tile), filters, i);
      for (std::int64_t first = 0; first < plan.tiles; first += kGroup)
        filter_group<T>(plan.output, {first, std::min(plan.tiles, first + kGroup)}, rows, first, filters, 0,
                        channel, own.products, write);
    }
  }
}

/// Runs tiles of `image` against filters: the body of both convolution and gradient in the input.
/// filters_at(first, buffer) are those of sixteen output channels, for which it may use `buffer`.
template <class T, class FiltersAt, class Write>
void filter_tiles(const Plan& plan, Context& context, const T* image, FiltersAt&& filters_at, Write&& write) {
  const std::int64_t k = plan.output.channels;
  if (plan.tiles > k || (k + kColumns - 1) / kColumns < omp_get_max_threads())
    filter_own_tiles<T>(plan, context, image, filters_at, write);
  else
    filter_with_own_filters<T>(plan, context, image, filters_at, write);
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
  const auto filters_at = [&](std::int64_t first, float* buffer) {
    const Filters apart{op.weight.as<float>() + first, s.k, kTaps * s.c, s.c, true};
    return kFixedPoint<T> ? close_together(apart, buffer) : apart;  // read once, or four times
  };
  T* dx = op.dx.as<T>();
  const auto scale = static_cast<float>(op.scale);
  filter_tiles(Plan(back), context, op.dy.as<T>(), filters_at,
               [=](std::int64_t i, std::int64_t, const Lanes& sum) { store(dx + i, scale * sum); });
}

/// Sums of a panel's output channels and another's input channels at one point.
constexpr std::int64_t kSumsPlane = kColumns * kColumns + kGap;

/// Inverse-transforms products [points][k of a panel][c of a panel] into the weights they are the gradient
/// of.
template <class W>
void scatter_filters(const ConvShape& s, const float* products, std::int64_t k0, std::int64_t ks,
                     std::int64_t c0, std::int64_t cs, float scale, bool add, W* dweight) {
  const std::int64_t tap = s.c;
  for (std::int64_t k = 0; k < ks; ++k)
    for (std::int64_t c = 0; c < cs; c += kLanes) {
      const float* const from = products + k * cs + c;
      W* const first = dweight + (k0 + k) * kTaps * tap + c0 + c;
      both_axes<filter_t, kSide, 3>([&](int p) { return load(from + p * kSumsPlane); },
                                    [&](int i, const Lanes& g) {
                                      W* const to = first + i * tap;
                                      store(to, add ? load(to) + scale * g : scale * g);
                                    });
    }
}

/// Of a multiple of sixteen numbers.
template <class W>
void round(const float* from, std::int64_t count, W* to) {
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < count; i += kLanes) store(to + i, load(from + i));
}

template <class T, class W>
void grad_weight(const Conv2dGradWeight& op, Context& context) {
  const ConvShape& s = op.shape;
  const Plan plan(s);
  const std::int64_t size = plan.at_a_time(kPoints * (s.c + s.k) / kPerWord<T>);
  if (size < plan.tiles && sizeof(W) < sizeof(float)) {  // what several add to is f32
    const Scratch sums(context, bytes(s.weights()));
    Conv2dGradWeight first = op;
    first.dweight = {sums.data(), DType::f32};
    grad_weight<T, float>(first, context);
    return context.is_dry() ? void() : round(sums.as<float>(), s.weights(), op.dweight.as<W>());
  }
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
        scatter_filters(s, sums, k * kColumns, ks, c * kColumns, cs, scale, first > 0, op.dweight.as<W>());
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
  const double per_byte = half ? 2 : 1;
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
  op.x.dtype == DType::bf16 ? grad_weight<bfloat16, bfloat16>(op, context)
                            : grad_weight<float, float>(op, context);
}

}  // namespace sgm::winograd
