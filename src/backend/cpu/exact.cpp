#include "backend/cpu/exact.h"

#include <algorithm>

namespace sgm::exact {
namespace {

/// The filter rows (or columns) that an output position reads inside the image.
struct Window {
  std::int64_t first, last, origin;  // filter indices [first, last); input index = origin + filter index
};

Window window(std::int64_t out, std::int64_t in_size, std::int64_t filter, const ConvShape& s) {
  const std::int64_t origin = out * s.stride - s.pad_begin;
  return {std::max<std::int64_t>(0, -origin), std::min(filter, in_size - origin), origin};
}

/// Calls f(input offset, weight offset) for every filter tap inside the image; both offsets are in elements
/// and stand for c consecutive channels of x and of one output channel's weights.
template <class F>
void for_each_tap(const ConvShape& s, std::int64_t n, std::int64_t oy, std::int64_t ox, F&& f) {
  const Window rows = window(oy, s.h, s.r, s), cols = window(ox, s.w, s.s, s);
  for (std::int64_t r = rows.first; r < rows.last; ++r)
    for (std::int64_t q = cols.first; q < cols.last; ++q)
      f(((n * s.h + rows.origin + r) * s.w + cols.origin + q) * s.c, (r * s.s + q) * s.c);
}

}  // namespace

void convolve(const Conv2d& op) {
  const ConvShape& s = op.shape;
  const double *x = op.x.as<double>(), *w = op.weight.as<double>();
#pragma omp parallel for collapse(2)
  for (std::int64_t n = 0; n < s.n; ++n)
    for (std::int64_t oy = 0; oy < s.oh; ++oy)
      for (std::int64_t ox = 0; ox < s.ow; ++ox)
        for (std::int64_t k = 0; k < s.k; ++k) {
          double sum = op.bias ? op.bias.as<double>()[k] : 0.0;
          for_each_tap(s, n, oy, ox, [&](std::int64_t xi, std::int64_t wi) {
            const double *xs = x + xi, *ws = w + k * s.r * s.s * s.c + wi;
#pragma omp simd reduction(+ : sum)
            for (std::int64_t c = 0; c < s.c; ++c) sum += xs[c] * ws[c];
          });
          const std::int64_t o = ((n * s.oh + oy) * s.ow + ox) * s.k + k;
          op.y.as<double>()[o] = op.scale * (sum + (op.residual ? op.residual.as<double>()[o] : 0.0));
        }
}

void convolve_grad_input(const Conv2dGradInput& op) {
  const ConvShape& s = op.shape;
  const double *dy = op.dy.as<double>(), *w = op.weight.as<double>();
  double* dx = op.dx.as<double>();
  std::fill_n(dx, s.n * s.h * s.w * s.c, 0.0);
#pragma omp parallel for
  for (std::int64_t n = 0; n < s.n; ++n)
    for (std::int64_t oy = 0; oy < s.oh; ++oy)
      for (std::int64_t ox = 0; ox < s.ow; ++ox)
        for (std::int64_t k = 0; k < s.k; ++k) {
          const double g = dy[((n * s.oh + oy) * s.ow + ox) * s.k + k];
          for_each_tap(s, n, oy, ox, [&](std::int64_t xi, std::int64_t wi) {
            const double* ws = w + k * s.r * s.s * s.c + wi;
#pragma omp simd
            for (std::int64_t c = 0; c < s.c; ++c) dx[xi + c] += g * ws[c];
          });
        }
}

void convolve_grad_weight(const Conv2dGradWeight& op) {
  const ConvShape& s = op.shape;
  const double *x = op.x.as<double>(), *dy = op.dy.as<double>();
#pragma omp parallel for
  for (std::int64_t k = 0; k < s.k; ++k) {
    double* dw = op.dweight.as<double>() + k * s.r * s.s * s.c;
    std::fill_n(dw, s.r * s.s * s.c, 0.0);
    double sum = 0;
    for (std::int64_t n = 0; n < s.n; ++n)
      for (std::int64_t oy = 0; oy < s.oh; ++oy)
        for (std::int64_t ox = 0; ox < s.ow; ++ox) {
          const double g = dy[((n * s.oh + oy) * s.ow + ox) * s.k + k];
          sum += g;
          for_each_tap(s, n, oy, ox, [&](std::int64_t xi, std::int64_t wi) {
#pragma omp simd
            for (std::int64_t c = 0; c < s.c; ++c) dw[wi + c] += g * x[xi + c];
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
        double sum = op.bias ? op.bias.as<double>()[n] : 0.0;
        for (std::int64_t k = 0; k < op.k; ++k) sum += a[k * a_col] * b[k * b_row];
        double& c = op.c.as<double>()[i * op.stride_c + m * op.ldc + n];
        c = op.accumulate ? c + sum : sum;
      }
}

}  // namespace sgm::exact
