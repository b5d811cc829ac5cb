#include "kernels/fill.h"

#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;
constexpr int kSpan = 8;  // elements of a thread

template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(T* y, std::int64_t n, T value) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) y[i] = value;
}

template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    cast_kernel(const From* x, To* y, std::int64_t n, bool packed, Accumulator<From> scale) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kSpan;
  if (i >= n) return;
  Accumulator<From> values[kSpan];
  load_span(x + i, n - i, packed, values);
  for (int k = 0; k < kSpan; ++k) values[k] *= scale;
  store_span(y + i, n - i, packed, values);
}

}  // namespace

void Fill::cuda(Context& context) const {
  dispatch_float(y.dtype, "fill", [&]<class T>(T) {
    launch(sgm::cuda(context), {"fill", blocks_for(n, kThreads), kThreads, cost().bytes}, fill_kernel<T>,
           y.as<T>(), n, static_cast<T>(static_cast<Accumulator<T>>(value)));
  });
}

void Cast::cuda(Context& context) const {
  dispatch_float(x.dtype, "cast", [&]<class From>(From) {
    dispatch_float(y.dtype, "cast", [&]<class To>(To) {
      const bool packed = packs<From>({x.data}, kSpan) && packs<To>({y.data}, kSpan);
      launch(sgm::cuda(context), {"cast", blocks_for(n, kThreads * kSpan), kThreads, cost().bytes},
             cast_kernel<From, To>, x.as<From>(), y.as<To>(), n, packed,
             static_cast<Accumulator<From>>(scale));
    });
  });
}

}  // namespace sgm
