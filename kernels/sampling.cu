// Noise is drawn where it is used: a thread owns whole Philox blocks of four elements of one image, so that
// elements are the same numbers as on the CPU, bit for bit, whatever the batch and the element type.

#include "kernels/sampling.h"

#include <algorithm>

#include "kernels/draw.h"
#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;
constexpr int kNormThreads = 1024;

/// Elements of a thread where these types are accessed: at least one Philox block and one pack of each.
template <class... T>
constexpr int kSpan = std::max({kPhiloxBlock, Pack<T>::kSize...});

/// The elements of a thread: `size` of them from `begin` of an image; size <= 0: none.
struct ImageSpan {
  std::int64_t image, begin, size, offset;  // offset: of the first in the batch
};

template <int N>
__device__ ImageSpan image_span(std::int64_t n, std::int64_t per_image) {
  const std::int64_t spans = (per_image + N - 1) / N;
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= n * spans) return {0, 0, 0, 0};
  const std::int64_t image = quotient(index, spans), begin = (index - image * spans) * N;
  return {image, begin, per_image - begin, image * per_image + begin};
}

template <int N>
unsigned span_blocks(std::int64_t n, std::int64_t per_image) {
  return blocks_for(n * ((per_image + N - 1) / N), kThreads);
}

template <class T>
__global__ void __launch_bounds__(kThreads) normal_kernel(Normal op, bool packed) {
  using A = Accumulator<T>;
  constexpr int N = kSpan<T>;
  const ImageSpan span = image_span<N>(op.n, op.per_image);
  if (span.size <= 0) return;
  A z[N];
  draw_normals(op.key, span.image, span.begin, z);
  for (int k = 0; k < N; ++k) z[k] *= static_cast<A>(op.std);
  store_span(static_cast<T*>(op.y.data) + span.offset, span.size, packed, z);
}

template <class T, class S>
__global__ void __launch_bounds__(kThreads) affine_step_kernel(AffineStep op, bool packed) {
  using A = Accumulator<T>;
  constexpr int N = kSpan<T, S>;
  const ImageSpan span = image_span<N>(op.n, op.per_image);
  if (span.size <= 0) return;
  const auto load = [&](const ConstBuffer& from, A(&v)[N]) {
    load_span(static_cast<const T*>(from.data) + span.offset, span.size, packed, v);
  };
  const A a = static_cast<A>(op.a.at(span.image));
  A v[N], z[N];
  load(op.x, v);
  if (op.score.data) {
    const A b = static_cast<A>(op.b.at(span.image));
    load_span(static_cast<const S*>(op.score.data) + span.offset, span.size, packed, z);
    for (int k = 0; k < N; ++k) v[k] = fma(a, v[k], b * z[k]);
  } else {
    for (int k = 0; k < N; ++k) v[k] *= a;
  }
  if (op.y_mean.data) store_span(static_cast<T*>(op.y_mean.data) + span.offset, span.size, packed, v);
  if (op.has_noise) {
    if (op.noise.given.data)
      load(op.noise.given, z);
    else
      draw_normals(op.noise.key, span.image, span.begin, z);
    const A c = static_cast<A>(op.c.at(span.image));
    for (int k = 0; k < N; ++k) v[k] = fma(c, z[k], v[k]);
  }
  store_span(static_cast<T*>(op.y.data) + span.offset, span.size, packed, v);
}

/// A block per image; every thread adds its elements in an order that only per_image determines.
template <class T, bool kDraw>
__global__ void __launch_bounds__(kNormThreads) squared_norms_kernel(SquaredNorms op, bool packed) {
  constexpr int N = kSpan<T>;
  __shared__ double partial[kWarp];
  const std::int64_t image = blockIdx.x;
  double sum = 0.0;
  for (std::int64_t begin = std::int64_t{threadIdx.x} * N; begin < op.per_image;
       begin += std::int64_t{kNormThreads} * N) {
    float drawn[N];
    Accumulator<T> v[N];
    if constexpr (kDraw)
      draw_normals(op.x.key, image, begin, drawn);
    else
      load_span(static_cast<const T*>(op.x.given.data) + image * op.per_image + begin, op.per_image - begin,
                packed, v);
    for (int k = 0; k < N; ++k) {
      const double value = static_cast<double>(kDraw ? drawn[k] : v[k]);
      if (begin + k < op.per_image) sum = fma(value, value, sum);
    }
  }
  sum = block_sum(sum, partial);
  if (threadIdx.x == 0) static_cast<double*>(op.norms.data)[image] = sum;
}

/// One block.
__global__ void __launch_bounds__(kThreads) langevin_step_kernel(LangevinStepSize op) {
  __shared__ double partial[kWarp];
  double mean_score = 0.0, mean_noise = 0.0;
  if (op.batch_mean) {
    for (std::int64_t i = threadIdx.x; i < op.n; i += kThreads) {
      mean_score += sqrt(op.score_norms[i]) / static_cast<double>(op.n);
      mean_noise += sqrt(op.noise_norms[i]) / static_cast<double>(op.n);
    }
    mean_score = block_sum(mean_score, partial);
    mean_noise = block_sum(mean_noise, partial);
  }
  for (std::int64_t i = threadIdx.x; i < op.n; i += kThreads) {
    const double score = op.batch_mean ? mean_score : sqrt(op.score_norms[i]);
    const double noise = op.batch_mean ? mean_noise : sqrt(op.noise_norms[i]);
    const double ratio = op.snr * noise / score;
    op.b[i] = score == 0.0 ? 0.0 : 2.0 * op.alpha.at(i) * ratio * ratio;
    op.c[i] = sqrt(2.0 * op.b[i]);
  }
}

/// One thread for each four pixels.
__global__ void __launch_bounds__(kThreads) to_bytes_kernel(ToBytes op, bool packed) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * 4;
  if (i >= op.n) return;
  float values[4];
  load_span(static_cast<const float*>(op.x.data) + i, op.n - i, packed, values);
  for (int k = 0; k < 4 && i + k < op.n; ++k) op.y[i + k] = op.of(values[k]);
}

}  // namespace

void Normal::cuda(Context& context) const {
  dispatch_float(y.dtype, "normal", [&]<class T>(T) {
    launch(sgm::cuda(context), {"normal", span_blocks<kSpan<T>>(n, per_image), kThreads, cost().bytes},
           normal_kernel<T>, *this, packs<T>({y.data}, per_image));
  });
}

void AffineStep::cuda(Context& context) const {
  dispatch_float(x.dtype, "affine_step", [&]<class T>(T) {
    dispatch_float(score ? score.dtype : x.dtype, "affine_step", [&]<class S>(S) {
      const bool packed = packs<T>({x.data, noise.given.data, y.data, y_mean.data}, per_image) &&
                          packs<S>({score.data}, per_image);
      launch(sgm::cuda(context),
             {"affine_step", span_blocks<kSpan<T, S>>(n, per_image), kThreads, cost().bytes},
             affine_step_kernel<T, S>, *this, packed);
    });
  });
}

void SquaredNorms::cuda(Context& context) const {
  LaunchSpec spec{"squared_norms", blocks_for(n, 1), kNormThreads, cost().bytes};
  if (!x.given) return launch(sgm::cuda(context), spec, squared_norms_kernel<float, true>, *this, false);
  dispatch_float(x.given.dtype, "squared_norms", [&]<class T>(T) {
    launch(sgm::cuda(context), spec, squared_norms_kernel<T, false>, *this,
           packs<T>({x.given.data}, per_image));
  });
}

void LangevinStepSize::cuda(Context& context) const {
  launch(sgm::cuda(context), {"langevin_step_size", n > 0 ? 1u : 0u, kThreads, cost().bytes},
         langevin_step_kernel, *this);
}

void ToBytes::cuda(Context& context) const {
  launch(sgm::cuda(context), {"to_bytes", blocks_for(n, 4 * kThreads), kThreads, cost().bytes},
         to_bytes_kernel, *this, packs<float>({x.data}, 4));
}

}  // namespace sgm
