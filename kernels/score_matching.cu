#include "kernels/score_matching.h"

#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;

template <class T>
constexpr int kSpan = Pack<T>::kSize;

/// First element of this thread's pack.
template <class T>
__device__ std::int64_t span_begin() {
  return (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kSpan<T>;
}

template <class T>
unsigned span_blocks(std::int64_t n) {
  return blocks_for(n, std::int64_t{kThreads} * kSpan<T>);
}

// ---- products with derivatives of activations: a thread owns a pack of x, and its copies ------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    derivative_product_kernel(const T* x, const T* v, T* y, std::int64_t n, std::int64_t copies, Derivative f,
                              bool packed) {
  const std::int64_t begin = span_begin<T>(), size = n - begin;
  if (size <= 0) return;
  Accumulator<T> factor[kSpan<T>], value[kSpan<T>];
  load_span(x + begin, size, packed, factor);
  for (int i = 0; i < kSpan<T>; ++i) factor[i] = f.of(factor[i]);
  for (std::int64_t k = 0; k < copies; ++k) {
    load_span(v + k * n + begin, size, packed, value);
    for (int i = 0; i < kSpan<T>; ++i) value[i] *= factor[i];
    store_span(y + k * n + begin, size, packed, value);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    derivative_product_grad_kernel(const T* x, const T* v, const T* dy, T* dx, std::int64_t n,
                                   std::int64_t copies, Derivative f, bool packed) {
  const std::int64_t begin = span_begin<T>(), size = n - begin;
  if (size <= 0) return;
  Accumulator<T> sum[kSpan<T>] = {}, value[kSpan<T>], grad[kSpan<T>];
  for (std::int64_t k = 0; k < copies; ++k) {
    load_span(v + k * n + begin, size, packed, value);
    load_span(dy + k * n + begin, size, packed, grad);
    for (int i = 0; i < kSpan<T>; ++i) sum[i] += value[i] * grad[i];
  }
  load_span(x + begin, size, packed, value);
  for (int i = 0; i < kSpan<T>; ++i) sum[i] *= f.of(value[i]);
  store_span(dx + begin, size, packed, sum);
}

// ---- directions: a thread owns one Philox block of four elements ------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads) random_signs_kernel(RandomSigns op) {
  const std::int64_t blocks = (op.per_image + 3) / 4;
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= op.n * blocks) return;
  const std::int64_t image = quotient(index, blocks), block = index - image * blocks;
  const PhiloxWords words =
      philox(op.key, static_cast<std::uint32_t>(image), static_cast<std::uint32_t>(block));
  Accumulator<T> signs[4];
  for (int k = 0; k < 4; ++k) signs[k] = words.word[k] >> 31 ? 1.0f : -1.0f;
  store_span(static_cast<T*>(op.y.data) + image * op.per_image + 4 * block, op.per_image - 4 * block, false,
             signs);
}

// ---- loss -------------------------------------------------------------------------------------------------

/// One block for each image; arithmetic in double, as on the CPU.
template <class T>
__global__ void __launch_bounds__(kThreads) directional_loss_kernel(DirectionalLoss op) {
  __shared__ double partial[kWarp];
  __shared__ double products[DirectionalLoss::kMostCopies];  // <v_k, net>
  const std::int64_t image = blockIdx.x, per = op.per;
  const double a = static_cast<const double*>(op.a.data)[image],
               weight = static_cast<const double*>(op.weight.data)[image];
  const double reduction = op.reduce_mean ? 1.0 / static_cast<double>(per) : 0.5;
  const double slope = 2.0 * reduction * weight * a / static_cast<double>(op.n);
  const auto value = [](T x) { return static_cast<double>(static_cast<Accumulator<T>>(x)); };
  const auto stored = [](double x) { return rounded_to<T>(static_cast<Accumulator<T>>(x)); };
  const T* net = static_cast<const T*>(op.net.data) + image * per;

  double sum = 0;
  for (std::int64_t k = 0; k < op.copies; ++k) {
    const std::int64_t row = (k * op.n + image) * per;
    const T *tangent = static_cast<const T*>(op.tangent.data) + row,
            *v = static_cast<const T*>(op.v.data) + row;
    T* dtangent = static_cast<T*>(op.dtangent.data) + row;
    double product = 0, derivative = 0, square = 0;
    for (std::int64_t j = threadIdx.x; j < per; j += kThreads) {
      product += value(v[j]) * value(net[j]);
      derivative += value(v[j]) * value(tangent[j]);
      square += value(net[j]) * value(net[j]);
      dtangent[j] = stored(slope * value(v[j]));
    }
    product = block_sum(product, partial);
    derivative = block_sum(derivative, partial);
    square = block_sum(square, partial);
    sum += a * a * (op.projected ? product * product : square) + 2.0 * a * derivative;
    if (threadIdx.x == 0) products[k] = product;
  }
  __syncthreads();
  T* dnet = static_cast<T*>(op.dnet.data) + image * per;
  for (std::int64_t j = threadIdx.x; j < per; j += kThreads) {
    double gradient = 0;
    for (std::int64_t k = 0; k < op.copies; ++k)
      gradient +=
          slope * a *
          (op.projected ? products[k] * value(static_cast<const T*>(op.v.data)[(k * op.n + image) * per + j])
                        : value(net[j]));
    dnet[j] = stored(gradient);
  }
  if (threadIdx.x == 0) static_cast<double*>(op.loss.data)[image] = weight * reduction * sum;
}

}  // namespace

void DerivativeProduct::cuda(Context& context) const {
  dispatch_storage(x.dtype, "derivative_product", [&]<class T>(T) {
    launch(sgm::cuda(context), {"derivative_product", span_blocks<T>(n), kThreads, cost().bytes},
           derivative_product_kernel<T>, x.as<T>(), v.as<T>(), y.as<T>(), n, copies, f,
           packs<T>({x.data, v.data, y.data}, n));
  });
}

void DerivativeProductGrad::cuda(Context& context) const {
  dispatch_storage(x.dtype, "derivative_product_grad", [&]<class T>(T) {
    launch(sgm::cuda(context), {"derivative_product_grad", span_blocks<T>(n), kThreads, cost().bytes},
           derivative_product_grad_kernel<T>, x.as<T>(), v.as<T>(), dy.as<T>(), dx.as<T>(), n, copies, f,
           packs<T>({x.data, v.data, dy.data, dx.data}, n));
  });
}

void RandomSigns::cuda(Context& context) const {
  dispatch_storage(y.dtype, "random_signs", [&]<class T>(T) {
    launch(sgm::cuda(context),
           {"random_signs", blocks_for(n * ((per_image + 3) / 4), kThreads), kThreads, cost().bytes},
           random_signs_kernel<T>, *this);
  });
}

void DirectionalLoss::cuda(Context& context) const {
  check(copies <= kMostCopies, "loss: at most ", kMostCopies, " directions, got ", copies);
  dispatch_storage(net.dtype, "loss", [&]<class T>(T) {
    launch(sgm::cuda(context), {"directional_loss", static_cast<unsigned>(n), kThreads, cost().bytes},
           directional_loss_kernel<T>, *this);
  });
}

}  // namespace sgm
