// One thread computes one element, in the order of memory: neighbours in a warp are neighbouring channels.

#include "kernels/pooling.h"

#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;

/// Where an element of [n, h, w, c] lies: its image's first element of the same channel, its row and column.
struct Place {
  std::int64_t origin, y, x;
};

__device__ inline Place place_of(std::int64_t i, std::int64_t h, std::int64_t w, std::int64_t c) {
  const std::int64_t pixel = quotient(i, c), row = quotient(pixel, w), image = quotient(row, h);
  return {image * h * w * c + i - pixel * c, row - image * h, pixel - row * w};
}

/// The rows or columns within `radius` of `at`.
__device__ inline BilinearAxis::Range around(std::int64_t at, std::int64_t radius, std::int64_t size) {
  return {at < radius ? 0 : at - radius, at + radius < size ? at + radius : size - 1};
}

template <class T>
__global__ void __launch_bounds__(kThreads) max_pool_kernel(const MaxPool op, std::int64_t elements) {
  using A = Accumulator<T>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= elements) return;
  const Place at = place_of(i, op.h, op.w, op.c);
  const T* x = elements_of<T>(op.x) + at.origin;
  const BilinearAxis::Range rows = around(at.y, op.radius, op.h), cols = around(at.x, op.radius, op.w);
  A most = -INFINITY;
  for (std::int64_t row = rows.first; row <= rows.last; ++row)
    for (std::int64_t col = cols.first; col <= cols.last; ++col) {
      const A value = static_cast<A>(x[(row * op.w + col) * op.c]);
      if (value > most || value != value) most = value;
    }
  elements_of<T>(op.y)[i] = rounded_to<T>(most);
}

/// Whether pixel (y, x) is the first of the window around (row, col) with its value, or the first NaN.
template <class T>
__device__ inline bool is_first(const MaxPoolGrad& op, const T* image, std::int64_t row, std::int64_t col,
                                std::int64_t y, std::int64_t x) {
  using A = Accumulator<T>;
  const A most = static_cast<A>(image[(y * op.w + x) * op.c]);
  const BilinearAxis::Range cols = around(col, op.radius, op.w);
  for (std::int64_t r = around(row, op.radius, op.h).first; r <= y; ++r)
    for (std::int64_t q = cols.first; q <= (r == y ? x - 1 : cols.last); ++q) {
      const A value = static_cast<A>(image[(r * op.w + q) * op.c]);
      if (value == most || value != value) return false;
    }
  return true;
}

/// A thread sums over the windows that its pixel is in.
template <class T>
__global__ void __launch_bounds__(kThreads)
    max_pool_grad_kernel(const MaxPoolGrad op, std::int64_t elements) {
  using A = Accumulator<T>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= elements) return;
  const Place at = place_of(i, op.h, op.w, op.c);
  const T *x = elements_of<T>(op.x) + at.origin, *y = elements_of<T>(op.y) + at.origin,
          *dy = elements_of<T>(op.dy) + at.origin;
  const A value = static_cast<A>(elements_of<T>(op.x)[i]);
  const BilinearAxis::Range rows = around(at.y, op.radius, op.h), cols = around(at.x, op.radius, op.w);
  A sum = 0;
  for (std::int64_t row = rows.first; row <= rows.last; ++row)
    for (std::int64_t col = cols.first; col <= cols.last; ++col) {
      const std::int64_t window = (row * op.w + col) * op.c;
      if ((value == static_cast<A>(y[window]) || value != value) && is_first(op, x, row, col, at.y, at.x))
        sum += static_cast<A>(dy[window]);
    }
  elements_of<T>(op.dx)[i] = rounded_to<T>(sum);
}

template <class T>
__global__ void __launch_bounds__(kThreads) bilinear_kernel(const Bilinear op, std::int64_t elements) {
  using A = Accumulator<T>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= elements) return;
  const BilinearAxis rows{op.h, op.oh}, cols{op.w, op.ow};
  const std::int64_t pixel = quotient(i, op.c), out_w = op.adjoint ? op.w : op.ow,
                     out_h = op.adjoint ? op.h : op.oh, in_w = op.adjoint ? op.ow : op.w,
                     in_h = op.adjoint ? op.oh : op.h;
  const std::int64_t line = quotient(pixel, out_w), image = quotient(line, out_h), row = line - image * out_h,
                     col = pixel - line * out_w;
  const T* x = elements_of<T>(op.x) + image * in_h * in_w * op.c + i - pixel * op.c;
  const BilinearAxis::Range from_rows = op.adjoint ? rows.outputs_of(row) : rows.inputs_of(row),
                            from_cols = op.adjoint ? cols.outputs_of(col) : cols.inputs_of(col);
  A sum = 0;
  for (std::int64_t r = from_rows.first; r <= from_rows.last; ++r)
    for (std::int64_t q = from_cols.first; q <= from_cols.last; ++q) {
      const A down = op.adjoint ? rows.weight<A>(r, row) : rows.weight<A>(row, r),
              right = op.adjoint ? cols.weight<A>(q, col) : cols.weight<A>(col, q);
      sum += down * right * static_cast<A>(x[(r * in_w + q) * op.c]);
    }
  elements_of<T>(op.y)[i] = rounded_to<T>(static_cast<A>(op.scale) * sum);
}

}  // namespace

void MaxPool::cuda(Context& context) const {
  const std::int64_t elements = n * h * w * c;
  dispatch_storage(x.dtype, "max_pool", [&]<class T>(T) {
    launch(sgm::cuda(context), {"max_pool", blocks_for(elements, kThreads), kThreads, cost().bytes},
           max_pool_kernel<T>, *this, elements);
  });
}

void MaxPoolGrad::cuda(Context& context) const {
  const std::int64_t elements = n * h * w * c;
  dispatch_storage(x.dtype, "max_pool", [&]<class T>(T) {
    launch(sgm::cuda(context), {"max_pool_grad", blocks_for(elements, kThreads), kThreads, cost().bytes},
           max_pool_grad_kernel<T>, *this, elements);
  });
}

void Bilinear::cuda(Context& context) const {
  const std::int64_t elements = n * c * (adjoint ? h * w : oh * ow);
  dispatch_storage(x.dtype, "resize_bilinear", [&]<class T>(T) {
    launch(sgm::cuda(context), {"bilinear", blocks_for(elements, kThreads), kThreads, cost().bytes},
           bilinear_kernel<T>, *this, elements);
  });
}

}  // namespace sgm
