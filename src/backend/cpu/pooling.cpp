#include "kernels/pooling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/assign.h"

namespace sgm {
namespace {

/// The pixels of an image within `radius` of (y, x), row by row.
template <class F>
void for_each_neighbour(std::int64_t h, std::int64_t w, int radius, std::int64_t y, std::int64_t x, F&& f) {
  for (std::int64_t i = std::max<std::int64_t>(0, y - radius); i <= std::min(h - 1, y + radius); ++i)
    for (std::int64_t j = std::max<std::int64_t>(0, x - radius); j <= std::min(w - 1, x + radius); ++j)
      f(i * w + j);
}

template <class T>
void pool(const MaxPool& op) {
  using A = Accumulator<T>;
#pragma omp parallel
  {
    std::vector<A> most(static_cast<std::size_t>(op.c));
#pragma omp for collapse(2)
    for (std::int64_t n = 0; n < op.n; ++n)
      for (std::int64_t y = 0; y < op.h; ++y)
        for (std::int64_t x = 0; x < op.w; ++x) {
          const T* image = op.x.as<T>() + n * op.h * op.w * op.c;
          A* best = most.data();
          std::fill_n(best, op.c, -std::numeric_limits<A>::infinity());
          for_each_neighbour(op.h, op.w, op.radius, y, x, [&](std::int64_t pixel) {
            const T* in = image + pixel * op.c;
#pragma omp simd
            for (std::int64_t c = 0; c < op.c; ++c) {
              const A value = A(in[c]);
              best[c] = value > best[c] || value != value ? value : best[c];
            }
          });
          T* out = op.y.as<T>() + ((n * op.h + y) * op.w + x) * op.c;
          for (std::int64_t c = 0; c < op.c; ++c) assign(out[c], best[c]);
        }
  }
}

template <class T>
void pool_grad(const MaxPoolGrad& op) {
  using A = Accumulator<T>;
  const std::int64_t pixels = op.h * op.w;
#pragma omp parallel
  {
    std::vector<A> sums(static_cast<std::size_t>(pixels * op.c));
    std::vector<std::int64_t> source(static_cast<std::size_t>(op.c));
#pragma omp for
    for (std::int64_t n = 0; n < op.n; ++n) {
      const std::int64_t base = n * pixels * op.c;
      const T *image = op.x.as<T>() + base, *most = op.y.as<T>() + base, *dy = op.dy.as<T>() + base;
      std::fill(sums.begin(), sums.end(), A(0));
      for (std::int64_t p = 0; p < pixels; ++p) {
        std::fill(source.begin(), source.end(), -1);
        for_each_neighbour(op.h, op.w, op.radius, p / op.w, p % op.w, [&](std::int64_t pixel) {
          for (std::int64_t c = 0; c < op.c; ++c) {
            const A value = A(image[pixel * op.c + c]);
            const bool largest = value == A(most[p * op.c + c]) || value != value;
            if (largest && source[c] < 0) source[c] = pixel;
          }
        });
        for (std::int64_t c = 0; c < op.c; ++c) sums[source[c] * op.c + c] += A(dy[p * op.c + c]);
      }
      std::transform(sums.begin(), sums.end(), op.dx.as<T>() + base, [](A sum) { return T(sum); });
    }
  }
}

template <class T>
void resize(const Bilinear& op) {
  using A = Accumulator<T>;
  const BilinearAxis rows{op.h, op.oh}, cols{op.w, op.ow};
  const auto sources = [&op](const BilinearAxis& axis, std::int64_t to) {
    return op.adjoint ? axis.outputs_of(to) : axis.inputs_of(to);
  };
  const auto weight = [&op](const BilinearAxis& axis, std::int64_t to, std::int64_t from) {
    return op.adjoint ? axis.weight<A>(from, to) : axis.weight<A>(to, from);
  };
  const std::int64_t in_h = op.adjoint ? op.oh : op.h, in_w = op.adjoint ? op.ow : op.w,
                     out_h = op.adjoint ? op.h : op.oh, out_w = op.adjoint ? op.w : op.ow;
#pragma omp parallel
  {
    std::vector<A> sum(static_cast<std::size_t>(op.c));
#pragma omp for collapse(2)
    for (std::int64_t n = 0; n < op.n; ++n)
      for (std::int64_t y = 0; y < out_h; ++y)
        for (std::int64_t x = 0; x < out_w; ++x) {
          std::fill(sum.begin(), sum.end(), A(0));
          const BilinearAxis::Range from_rows = sources(rows, y), from_cols = sources(cols, x);
          for (std::int64_t i = from_rows.first; i <= from_rows.last; ++i)
            for (std::int64_t j = from_cols.first; j <= from_cols.last; ++j) {
              const A factor = weight(rows, y, i) * weight(cols, x, j);
              const T* in = op.x.as<T>() + ((n * in_h + i) * in_w + j) * op.c;
#pragma omp simd
              for (std::int64_t c = 0; c < op.c; ++c) sum[c] += factor * A(in[c]);
            }
          T* out = op.y.as<T>() + ((n * out_h + y) * out_w + x) * op.c;
          for (std::int64_t c = 0; c < op.c; ++c) assign(out[c], A(op.scale) * sum[c]);
        }
  }
}

}  // namespace

void MaxPool::cpu(Context&) const {
  dispatch_float(x.dtype, "max_pool", [&]<class T>(T) { pool<T>(*this); });
}

void MaxPoolGrad::cpu(Context&) const {
  dispatch_float(x.dtype, "max_pool", [&]<class T>(T) { pool_grad<T>(*this); });
}

void Bilinear::cpu(Context&) const {
  dispatch_float(x.dtype, "resize_bilinear", [&]<class T>(T) { resize<T>(*this); });
}

}  // namespace sgm
