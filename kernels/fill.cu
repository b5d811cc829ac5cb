#include "kernels/fill.h"

#include "kernels/device.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(T* y, std::int64_t n, T value) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) y[i] = value;
}

template <class From, class To>
__global__ void __launch_bounds__(kThreads) cast_kernel(const From* x, To* y, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) y[i] = rounded_to<To>(static_cast<Accumulator<To>>(static_cast<Accumulator<From>>(x[i])));
}

}  // namespace

void Fill::cuda(Context& context) const {
  dispatch_float(y.dtype, "fill", [&]<class T>(T) {
    launch(sgm::cuda(context), {"fill", blocks_for(n, kThreads), kThreads, bytes_of(y, n)}, fill_kernel<T>,
           y.as<T>(), n, static_cast<T>(static_cast<Accumulator<T>>(value)));
  });
}

void Cast::cuda(Context& context) const {
  dispatch_float(x.dtype, "cast", [&]<class From>(From) {
    dispatch_float(y.dtype, "cast", [&]<class To>(To) {
      launch(sgm::cuda(context), {"cast", blocks_for(n, kThreads), kThreads, bytes_of(x, n) + bytes_of(y, n)},
             cast_kernel<From, To>, x.as<From>(), y.as<To>(), n);
    });
  });
}

}  // namespace sgm
