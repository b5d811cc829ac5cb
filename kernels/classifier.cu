// One block standardises an image, and one averages it; a warp owns a row of the cross entropy.

#include "kernels/classifier.h"

#include <cmath>

#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;
constexpr int kSpan = 8;  // elements of a thread's turn: a pack of bf16 or two of f32

/// u of an image where a thread stands: elements i .. i + kSpan - 1 of [per], of which those past the end are
/// of no meaning.
struct ScaledImage {
  const double *scale, *shift;  // [c]
  std::int64_t per, c;
  bool packed;

  template <class T>
  __device__ void load(const T* x, std::int64_t i, double (&u)[kSpan]) const {
    load_span(x + i, per - i, packed, u);
    for (int k = 0; k < kSpan; ++k) {
      const std::int64_t channel = (i + k) % c;
      u[k] = scale[channel] * u[k] + shift[channel];
    }
  }
};

__device__ inline std::int64_t first_of_thread() { return std::int64_t{threadIdx.x} * kSpan; }

/// Whether a thread's element k from i on is one of `per`.
__device__ inline bool within(std::int64_t i, int k, std::int64_t per) { return i + k < per; }

template <class T>
__global__ void __launch_bounds__(kThreads)
    standardise_kernel(const T* x, const ScaledImage image, T* y, double* mean, double* rstd) {
  __shared__ double partial[kWarp];
  const std::int64_t per = image.per;
  x += blockIdx.x * per, y += blockIdx.x * per;
  double u[kSpan], sum = 0, squares = 0;
  for (std::int64_t i = first_of_thread(); i < per; i += kThreads * kSpan) {
    image.load(x, i, u);
    for (int k = 0; k < kSpan; ++k) sum += within(i, k, per) ? u[k] : 0.0;
  }
  const double center = block_sum(sum, partial) / static_cast<double>(per);
  for (std::int64_t i = first_of_thread(); i < per; i += kThreads * kSpan) {
    image.load(x, i, u);
    for (int k = 0; k < kSpan; ++k) squares += within(i, k, per) ? (u[k] - center) * (u[k] - center) : 0.0;
  }
  squares = block_sum(squares, partial);
  // Written so that NaN stays NaN.
  const double slope = std::sqrt(static_cast<double>(per) / (squares < 1.0 ? 1.0 : squares));
  for (std::int64_t i = first_of_thread(); i < per; i += kThreads * kSpan) {
    image.load(x, i, u);
    for (int k = 0; k < kSpan; ++k) u[k] = (u[k] - center) * slope;
    store_span(y + i, per - i, image.packed, u);
  }
  if (threadIdx.x == 0) mean[blockIdx.x] = center, rstd[blockIdx.x] = slope;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    standardise_grad_kernel(const T* x, const ScaledImage image, const double* mean, const double* rstd,
                            const T* dy, T* dx) {
  __shared__ double partial[kWarp];
  const std::int64_t per = image.per;
  x += blockIdx.x * per, dy += blockIdx.x * per, dx += blockIdx.x * per;
  const double center = mean[blockIdx.x], slope = rstd[blockIdx.x], count = static_cast<double>(per);
  double u[kSpan], grad[kSpan], sum = 0, dot = 0;
  for (std::int64_t i = first_of_thread(); i < per; i += kThreads * kSpan) {
    image.load(x, i, u);
    load_span(dy + i, per - i, image.packed, grad);
    for (int k = 0; k < kSpan; ++k)
      if (within(i, k, per)) sum += grad[k], dot += grad[k] * (u[k] - center) * slope;
  }
  sum = block_sum(sum, partial) / count;
  dot = block_sum(dot, partial) / count;
  if (!(slope < std::sqrt(count))) dot = 0;
  for (std::int64_t i = first_of_thread(); i < per; i += kThreads * kSpan) {
    image.load(x, i, u);
    load_span(dy + i, per - i, image.packed, grad);
    for (int k = 0; k < kSpan; ++k)
      grad[k] = image.scale[(i + k) % image.c] * slope * (grad[k] - sum - (u[k] - center) * slope * dot);
    store_span(dx + i, per - i, image.packed, grad);
  }
}

/// Threads stand side by side over the channels, kSpan each.
template <class T>
__global__ void __launch_bounds__(kThreads)
    mean_pixels_kernel(const T* x, Accumulator<T>* y, std::int64_t pixels, std::int64_t c, bool packed) {
  using A = Accumulator<T>;
  x += blockIdx.x * pixels * c, y += blockIdx.x * c;
  for (std::int64_t i = first_of_thread(); i < c; i += kThreads * kSpan) {
    A v[kSpan], sum[kSpan] = {};
    for (std::int64_t p = 0; p < pixels; ++p) {
      load_span(x + p * c + i, c - i, packed, v);
      for (int k = 0; k < kSpan; ++k) sum[k] += v[k];
    }
    for (int k = 0; k < kSpan; ++k) sum[k] /= static_cast<A>(pixels);
    store_span(y + i, c - i, packed, sum);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    mean_pixels_grad_kernel(const Accumulator<T>* dy, T* dx, std::int64_t pixels, std::int64_t c,
                            Accumulator<T> share, bool packed) {
  dy += blockIdx.x * c, dx += blockIdx.x * pixels * c;
  for (std::int64_t i = first_of_thread(); i < c; i += kThreads * kSpan) {
    Accumulator<T> v[kSpan];
    load_span(dy + i, c - i, packed, v);
    for (int k = 0; k < kSpan; ++k) v[k] *= share;
    for (std::int64_t p = 0; p < pixels; ++p) store_span(dx + p * c + i, c - i, packed, v);
  }
}

constexpr int kRows = kThreads / kWarp;

/// The larger one; NaN gives way.
__device__ inline float larger(float a, float b) { return a < b ? b : a; }

__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(const float* x, const double* label, double* loss, float* dx, double* correct,
                         std::int64_t rows, std::int64_t cols) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kRows + threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (row >= rows) return;
  x += row * cols, dx += row * cols;
  const double wanted = label[row];
  const bool known = wanted >= 0 && wanted < static_cast<double>(cols);
  const std::int64_t chosen = known ? static_cast<std::int64_t>(wanted) : 0;
  const float own = known ? x[chosen] : NAN;
  float largest = -INFINITY;
  int ahead = 0;  // of the wanted class
  for (std::int64_t k = lane; k < cols; k += kWarp) {
    largest = larger(largest, x[k]);
    ahead += !(x[k] < own || (x[k] == own && k >= chosen));
  }
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    largest = larger(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  ahead = warp_sum(ahead);
  double sum = 0;
  for (std::int64_t k = lane; k < cols; k += kWarp) sum += std::exp(static_cast<double>(x[k]) - largest);
  sum = warp_sum(sum);
  for (std::int64_t k = lane; k < cols; k += kWarp) {
    const double p = std::exp(static_cast<double>(x[k]) - largest) / sum;
    dx[k] = known ? static_cast<float>(p - (k == chosen)) : own;
  }
  if (lane == 0) {
    loss[row] = std::log(sum) + largest - own;
    correct[row] = ahead == 0 ? 1.0 : 0.0;
  }
}

}  // namespace

void Standardise::cuda(Context& context) const {
  dispatch_storage(x.dtype, "standardise", [&]<class T>(T) {
    const ScaledImage image{scale.as<double>(), shift.as<double>(), per, c, packs<T>({x.data, y.data}, per)};
    launch(sgm::cuda(context), {"standardise", static_cast<unsigned>(n), kThreads, cost().bytes},
           standardise_kernel<T>, x.as<T>(), image, y.as<T>(), mean.as<double>(), rstd.as<double>());
  });
}

void StandardiseGrad::cuda(Context& context) const {
  dispatch_storage(x.dtype, "standardise", [&]<class T>(T) {
    const ScaledImage image{scale.as<double>(), shift.as<double>(), per, c,
                            packs<T>({x.data, dy.data, dx.data}, per)};
    launch(sgm::cuda(context), {"standardise_grad", static_cast<unsigned>(n), kThreads, cost().bytes},
           standardise_grad_kernel<T>, x.as<T>(), image, mean.as<double>(), rstd.as<double>(), dy.as<T>(),
           dx.as<T>());
  });
}

void MeanPixels::cuda(Context& context) const {
  dispatch_storage(x.dtype, "mean_pixels", [&]<class T>(T) {
    using A = Accumulator<T>;
    launch(sgm::cuda(context), {"mean_pixels", static_cast<unsigned>(n), kThreads, cost().bytes},
           mean_pixels_kernel<T>, x.as<T>(), y.as<A>(), pixels, c, packs<T>({x.data, y.data}, c));
  });
}

void MeanPixelsGrad::cuda(Context& context) const {
  dispatch_storage(dx.dtype, "mean_pixels", [&]<class T>(T) {
    using A = Accumulator<T>;
    launch(sgm::cuda(context), {"mean_pixels_grad", static_cast<unsigned>(n), kThreads, cost().bytes},
           mean_pixels_grad_kernel<T>, dy.as<A>(), dx.as<T>(), pixels, c,
           static_cast<A>(factor / static_cast<double>(pixels)), packs<T>({dy.data, dx.data}, c));
  });
}

void CrossEntropy::cuda(Context& context) const {
  check(x.dtype == DType::f32, "cross_entropy: on a GPU numbers are f32, got ", x.dtype,
        "; use --device cpu");
  launch(sgm::cuda(context), {"cross_entropy", blocks_for(rows, kRows), kThreads, cost().bytes},
         cross_entropy_kernel, x.as<float>(), label.as<double>(), loss.as<double>(), dx.as<float>(),
         correct.as<double>(), rows, cols);
}

}  // namespace sgm
