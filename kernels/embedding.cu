// Noise levels as the networks see them: a few thousand numbers, one thread for each.

#include <cmath>

#include "kernels/device.h"
#include "kernels/elementwise.h"

namespace sgm {
namespace {

constexpr int kThreads = 128;

template <class T>
__global__ void __launch_bounds__(kThreads)
    fourier_kernel(const double* u, const T* w, T* y, std::int64_t n, std::int64_t half) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n * half) return;
  const std::int64_t row = i / half, j = i - row * half;
  const float angle =
      static_cast<float>(log(u[row])) * static_cast<float>(w[j]) * 2.0f * static_cast<float>(M_PI);
  y[row * 2 * half + j] = rounded_to<T>(sinf(angle));
  y[row * 2 * half + half + j] = rounded_to<T>(cosf(angle));
}

/// One thread for each column of y up to the last pair, and one more where dim is odd.
template <class T>
__global__ void __launch_bounds__(kThreads)
    positional_kernel(const double* t, T* y, std::int64_t n, std::int64_t dim, float step) {
  const std::int64_t half = dim / 2, width = dim - half;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n * width) return;
  const std::int64_t row = i / width, j = i - row * width;
  T* out = y + row * dim;
  if (j == half) {
    out[dim - 1] = rounded_to<T>(0.0f);
    return;
  }
  // In double, then rounded: an error of the frequency grows with the angle.
  const float w = static_cast<float>(exp(static_cast<double>(static_cast<float>(j) * step)));
  const float angle = static_cast<float>(t[row]) * w;
  out[j] = rounded_to<T>(sinf(angle));
  out[half + j] = rounded_to<T>(cosf(angle));
}

__global__ void __launch_bounds__(kThreads) inverse_sigma_kernel(InverseSigma op) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < op.n) static_cast<double*>(op.scale.data)[i] = op.of(static_cast<const double*>(op.label.data)[i]);
}

}  // namespace

void FourierEmbedding::cuda(Context& context) const {
  dispatch_storage(y.dtype, "fourier_embedding", [&]<class T>(T) {
    launch(sgm::cuda(context), {"fourier_embedding", blocks_for(n * half, kThreads), kThreads, cost().bytes},
           fourier_kernel<T>, u.as<double>(), w.as<T>(), y.as<T>(), n, half);
  });
}

void PositionalEmbedding::cuda(Context& context) const {
  const float step = -(std::log(10000.0f) / static_cast<float>(dim / 2 - 1));
  dispatch_storage(y.dtype, "positional_embedding", [&]<class T>(T) {
    launch(sgm::cuda(context),
           {"positional_embedding", blocks_for(n * (dim - dim / 2), kThreads), kThreads, cost().bytes},
           positional_kernel<T>, t.as<double>(), y.as<T>(), n, dim, step);
  });
}

void InverseSigma::cuda(Context& context) const {
  launch(sgm::cuda(context), {"inverse_sigma", blocks_for(n, kThreads), kThreads, cost().bytes},
         inverse_sigma_kernel, *this);
}

}  // namespace sgm
