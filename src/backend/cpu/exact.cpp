#include "backend/cpu/exact.h"

#include <algorithm>
#include <array>

namespace sgm::exact {
namespace {

/// The filter rows (or columns) that an output position reads inside the image.
struct Window {
  std::int64_t first, last, origin;  // taps [first, last); input index = origin + dilation tap
};

Window window(std::int64_t out, std::int64_t in_size, std::int64_t filter, const ConvShape& s) {
  const std::int64_t origin = out * s.stride - s.pad_begin;
  const auto taps_until = [&](std::int64_t end) {  // that read before `end`
    return end <= origin ? 0 : (end - origin - 1) / s.dilation + 1;
  };
  return {taps_until(0), std::min(filter, taps_until(in_size)), origin};
}

/// Calls f(pixel of the input, tap of the filter), both numbered through, for every tap inside the image.
template <class F>
void for_each_tap(const ConvShape& s, std::int64_t n, std::int64_t oy, std::int64_t ox, F&& f) {
  const Window rows = window(oy, s.h, s.r, s), cols = window(ox, s.w, s.s, s);
  for (std::int64_t r = rows.first; r < rows.last; ++r)
    for (std::int64_t q = cols.first; q < cols.last; ++q)
      f((n * s.h + rows.origin + r * s.dilation) * s.w + cols.origin + q * s.dilation, r * s.s + q);
}

/// One input or its gradient: `channels` of the filter's channels, from `first` on.
template <class T>
struct Part {
  T* data;
  std::int64_t channels, first;
};

template <class T>
std::array<Part<T>, 2> parts(const ConvShape& s, T* one, T* two) {
  return {{{one, s.c - s.c2, 0}, {two, s.c2, s.c - s.c2}}};
}

}  // namespace

void convolve(const Conv2d& op) {
  const ConvShape& s = op.shape;
  const double* w = op.weight.as<double>();
  const auto inputs = parts(s, op.x.as<double>(), op.x2.as<double>());
#pragma omp parallel for collapse(2)
  for (std::int64_t n = 0; n < s.n; ++n)
    for (std::int64_t oy = 0; oy < s.oh; ++oy)
      for (std::int64_t ox = 0; ox < s.ow; ++ox)
        for (std::int64_t k = 0; k < s.k; ++k) {
          double sum = op.bias ? op.bias.as<double>()[k] : 0.0;
          for_each_tap(s, n, oy, ox, [&](std::int64_t pixel, std::int64_t tap) {
            for (const auto& in : inputs) {
              const double *xs = in.data + pixel * in.channels,
                           *ws = w + (k * s.r * s.s + tap) * s.c + in.first;
#pragma omp simd reduction(+ : sum)
              for (std::int64_t c = 0; c < in.channels; ++c) sum += xs[c] * ws[c];
            }
          });
          const std::int64_t o = ((n * s.oh + oy) * s.ow + ox) * s.k + k;
          op.y.as<double>()[o] = op.scale * (sum + (op.residual ? op.residual.as<double>()[o] : 0.0));
        }
}

void convolve_grad_input(const Conv2dGradInput& op) {
  const ConvShape& s = op.shape;
  const double *dy = op.dy.as<double>(), *w = op.weight.as<double>();
  const auto gradients = parts(s, op.dx.as<double>(), op.dx2.as<double>());
  for (const auto& out : gradients) std::fill_n(out.data, s.n * s.h * s.w * out.channels, 0.0);
#pragma omp parallel for
  for (std::int64_t n = 0; n < s.n; ++n)
    for (std::int64_t oy = 0; oy < s.oh; ++oy)
      for (std::int64_t ox = 0; ox < s.ow; ++ox)
        for (std::int64_t k = 0; k < s.k; ++k) {
          const double g = op.scale * dy[((n * s.oh + oy) * s.ow + ox) * s.k + k];
          for_each_tap(s, n, oy, ox, [&](std::int64_t pixel, std::int64_t tap) {
            for (const auto& out : gradients) {
              const double* ws = w + (k * s.r * s.s + tap) * s.c + out.first;
              double* dx = out.data + pixel * out.channels;
#pragma omp simd
              for (std::int64_t c = 0; c < out.channels; ++c) dx[c] += g * ws[c];
            }
          });
        }
}

void convolve_grad_weight(const Conv2dGradWeight& op) {
  const ConvShape& s = op.shape;
  const double* dy = op.dy.as<double>();
  const auto inputs = parts(s, op.x.as<double>(), op.x2.as<double>());
#pragma omp parallel for
  for (std::int64_t k = 0; k < s.k; ++k) {
    double* dw = op.dweight.as<double>() + k * s.r * s.s * s.c;
    std::fill_n(dw, s.r * s.s * s.c, 0.0);
    double sum = 0;
    for (std::int64_t n = 0; n < s.n; ++n)
      for (std::int64_t oy = 0; oy < s.oh; ++oy)
        for (std::int64_t ox = 0; ox < s.ow; ++ox) {
          const double g = op.scale * dy[((n * s.oh + oy) * s.ow + ox) * s.k + k];
          sum += g;
          for_each_tap(s, n, oy, ox, [&](std::int64_t pixel, std::int64_t tap) {
            for (const auto& in : inputs) {
              const double* xs = in.data + pixel * in.channels;
              double* ws = dw + tap * s.c + in.first;
#pragma omp simd
              for (std::int64_t c = 0; c < in.channels; ++c) ws[c] += g * xs[c];
            }
          });
        }
    if (op.dbias) op.dbias.as<double>()[k] = sum;
  }
}

void multiply(const Matmul& op) {
  const std::int64_t a_row = op.trans_a ? 1 : op.lda, a_col = op.trans_a ? op.lda : 1;
  const std::int64_t b_row = op.trans_b ? 1 : op.ldb, b_col = op.trans_b ? op.ldb : 1;
#pragma omp parallel for collapse(2)
  for (std::int64_t i = 0; i < op.batch; ++i)
    for (std::int64_t m = 0; m < op.m; ++m)
      for (std::int64_t n = 0; n < op.n; ++n) {
        const double* a = op.a.as<double>() + i * op.stride_a + m * a_row;
        const double* b = op.b.as<double>() + i * op.stride_b + n * b_col;
        double sum = 0.0;
        for (std::int64_t k = 0; k < op.k; ++k) sum += a[k * a_col] * b[k * b_row];
        sum = op.alpha * sum + (op.bias ? op.bias.as<double>()[n] : 0.0);
        double& c = op.c.as<double>()[i * op.stride_c + m * op.ldc + n];
        c = op.accumulate ? c + sum : sum;
      }
}

}  // namespace sgm::exact
