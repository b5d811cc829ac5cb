// Softmax of attention: a warp owns a row. Rows of up to 1024 columns stay in registers, longer ones and
// those that allow no 16-byte accesses are read again.

#include <cmath>

#include "kernels/elementwise.h"
#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256, kRows = kThreads / kWarp;
constexpr int kSpan = 8;  // columns of a lane at a time: 16 bytes of bf16, twice 16 of f32

__device__ inline std::int64_t row_of_warp() {
  return std::int64_t{blockIdx.x} * kRows + threadIdx.x / kWarp;
}
__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarp; }

/// The larger one; NaN gives way.
__device__ inline float larger(float a, float b) { return a < b ? b : a; }

__device__ inline float warp_largest(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = larger(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

template <class T>
__device__ float as_float(T value) {
  return static_cast<float>(value);
}

/// Rows of at most kSteps * 256 columns, a multiple of 8.
template <class T, class U, int kSteps>
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(const T* x, U* y, std::int64_t rows, std::int64_t cols, float scale) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  const std::int64_t first = row * cols, lane = lane_of_warp() * kSpan;
  float v[kSteps][kSpan], largest = -INFINITY, sum = 0.0f;
  for (int step = 0; step < kSteps; ++step) {
    const std::int64_t col = step * kWarp * kSpan + lane;
    if (col >= cols) continue;
    load_span(x + first + col, kSpan, true, v[step]);
    for (int k = 0; k < kSpan; ++k) largest = larger(largest, v[step][k]);
  }
  largest = warp_largest(largest);
  for (int step = 0; step < kSteps; ++step) {
    if (step * kWarp * kSpan + lane >= cols) continue;
    for (int k = 0; k < kSpan; ++k) sum += v[step][k] = exp_value(scale * (v[step][k] - largest));
  }
  const float inverse = 1.0f / warp_sum(sum);
  for (int step = 0; step < kSteps; ++step) {
    const std::int64_t col = step * kWarp * kSpan + lane;
    if (col >= cols) continue;
    for (int k = 0; k < kSpan; ++k) v[step][k] *= inverse;
    store_span(y + first + col, kSpan, true, v[step]);
  }
}

template <class T, class U>
__global__ void __launch_bounds__(kThreads)
    softmax_reread_kernel(const T* x, U* y, std::int64_t rows, std::int64_t cols, float scale) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  x += row * cols, y += row * cols;
  float largest = -INFINITY, sum = 0.0f;
  for (std::int64_t c = lane_of_warp(); c < cols; c += kWarp) largest = larger(largest, as_float(x[c]));
  largest = warp_largest(largest);
  for (std::int64_t c = lane_of_warp(); c < cols; c += kWarp)
    sum += exp_value(scale * (as_float(x[c]) - largest));
  const float inverse = 1.0f / warp_sum(sum);
  for (std::int64_t c = lane_of_warp(); c < cols; c += kWarp)
    y[c] = rounded_to<U>(exp_value(scale * (as_float(x[c]) - largest)) * inverse);
}

template <class T, class U, int kSteps>
__global__ void __launch_bounds__(kThreads)
    softmax_grad_kernel(const T* y, const U* dy, T* dx, std::int64_t rows, std::int64_t cols, float scale) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  const std::int64_t first = row * cols, lane = lane_of_warp() * kSpan;
  float p[kSteps][kSpan], g[kSteps][kSpan], dot = 0.0f;
  for (int step = 0; step < kSteps; ++step) {
    const std::int64_t col = step * kWarp * kSpan + lane;
    if (col >= cols) continue;
    load_span(y + first + col, kSpan, true, p[step]);
    load_span(dy + first + col, kSpan, true, g[step]);
    for (int k = 0; k < kSpan; ++k) dot += p[step][k] * g[step][k];
  }
  dot = warp_sum(dot);
  for (int step = 0; step < kSteps; ++step) {
    const std::int64_t col = step * kWarp * kSpan + lane;
    if (col >= cols) continue;
    for (int k = 0; k < kSpan; ++k) p[step][k] = scale * p[step][k] * (g[step][k] - dot);
    store_span(dx + first + col, kSpan, true, p[step]);
  }
}

template <class T, class U>
__global__ void __launch_bounds__(kThreads)
    softmax_grad_reread_kernel(const T* y, const U* dy, T* dx, std::int64_t rows, std::int64_t cols,
                               float scale) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  y += row * cols, dy += row * cols, dx += row * cols;
  float dot = 0.0f;
  for (std::int64_t c = lane_of_warp(); c < cols; c += kWarp) dot += as_float(y[c]) * as_float(dy[c]);
  dot = warp_sum(dot);
  for (std::int64_t c = lane_of_warp(); c < cols; c += kWarp)
    dx[c] = rounded_to<T>(scale * as_float(y[c]) * (as_float(dy[c]) - dot));
}

/// 1 or 4 where a warp can hold a row in as many spans per lane, else 0.
int steps_for(std::initializer_list<const void*> pointers, std::int64_t cols) {
  if (!packs<bfloat16>(pointers, cols)) return 0;
  return cols <= kWarp * kSpan ? 1 : cols <= 4 * kWarp * kSpan ? 4 : 0;
}

}  // namespace

void Softmax::cuda(Context& context) const {
  dispatch_storage(x.dtype, "softmax", [&]<class T>(T) {
    dispatch_storage(y.dtype, "softmax", [&]<class U>(U) {
      const int steps = steps_for({x.data, y.data}, cols);
      const auto kernel = steps == 1   ? softmax_kernel<T, U, 1>
                          : steps == 4 ? softmax_kernel<T, U, 4>
                                       : softmax_reread_kernel<T, U>;
      launch(sgm::cuda(context), {"softmax", blocks_for(rows, kRows), kThreads, cost().bytes}, kernel,
             x.as<T>(), y.as<U>(), rows, cols, static_cast<float>(scale));
    });
  });
}

void SoftmaxGrad::cuda(Context& context) const {
  dispatch_storage(y.dtype, "softmax", [&]<class T>(T) {
    dispatch_storage(dy.dtype, "softmax", [&]<class U>(U) {
      const int steps = steps_for({y.data, dy.data, dx.data}, cols);
      const auto kernel = steps == 1   ? softmax_grad_kernel<T, U, 1>
                          : steps == 4 ? softmax_grad_kernel<T, U, 4>
                                       : softmax_grad_reread_kernel<T, U>;
      launch(sgm::cuda(context), {"softmax_grad", blocks_for(rows, kRows), kThreads, cost().bytes}, kernel,
             y.as<T>(), dy.as<U>(), dx.as<T>(), rows, cols, static_cast<float>(scale));
    });
  });
}

}  // namespace sgm
