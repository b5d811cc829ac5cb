// InstanceNorm++ in three steps: sums over the pixels of each channel, what they amount to for each image,
// and one pass over all elements. The gradient likewise; the images' shares of the table's gradient are added
// in the order of the batch.

#include "kernels/instance_norm.h"

#include "backend/scratch.h"
#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256, kLines = kThreads / kWarp;  // a warp takes 32 channels of one pixel

/// sums[k] = the sums of f's terms over the pixels of an image, for the channel of this thread: added in a
/// fixed order, the same in all threads of the channel. f(pixel, terms) adds its terms; channels from `c` on
/// have none. All threads of the block must call.
template <int N, class F>
__device__ inline void sum_pixels(std::int64_t hw, bool has_channel, float (&sums)[N], F&& f) {
  __shared__ float partial[N][kLines][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, line = static_cast<int>(threadIdx.x) / kWarp;
  for (int k = 0; k < N; ++k) sums[k] = 0.0f;
  for (std::int64_t p = line; has_channel && p < hw; p += kLines) f(p, sums);
  __syncthreads();
  for (int k = 0; k < N; ++k) partial[k][line][lane] = sums[k];
  __syncthreads();
  for (int k = 0; k < N; ++k) {
    sums[k] = 0.0f;
    for (int i = 0; i < kLines; ++i) sums[k] += partial[k][i][lane];
  }
}

/// Of a block of 32 channels of one image.
struct ChannelPlace {
  std::int64_t image, channel;
  bool inside;  // the image has this channel
  bool writes;  // one thread of each channel does
};

__device__ inline ChannelPlace channel_place(std::int64_t c) {
  const std::int64_t channel = std::int64_t{blockIdx.y} * kWarp + threadIdx.x % kWarp;
  return {blockIdx.x, channel, channel < c, channel < c && threadIdx.x < kWarp};
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    channel_moments_kernel(const T* x, float* mean, float* rstd, std::int64_t hw, std::int64_t c, float eps) {
  const ChannelPlace at = channel_place(c);
  const T* column = x + at.image * hw * c + at.channel;
  const float count = static_cast<float>(hw);
  float sum[1];
  sum_pixels(hw, at.inside, sum,
             [&](std::int64_t p, float(&s)[1]) { s[0] += static_cast<float>(column[p * c]); });
  const float centre = sum[0] / count;
  // What rounding left of the mean is in the differences from it.
  float of_centred[2];
  sum_pixels(hw, at.inside, of_centred, [&](std::int64_t p, float(&s)[2]) {
    const float centred = static_cast<float>(column[p * c]) - centre;
    s[0] += centred;
    s[1] += centred * centred;
  });
  const float rest = of_centred[0] / count;
  if (!at.writes) return;
  mean[at.image * c + at.channel] = centre + rest;
  rstd[at.image * c + at.channel] = 1.0f / sqrtf(of_centred[1] / count - rest * rest + eps);
}

/// What the passes over all elements compute: y = a dy + b (x - mean) + d for each image and channel.
struct Coefficients {
  float *a, *b, *d;  // [n, c]; a may be null, with dy
};

/// gamma, alpha and beta of the row that an image uses.
struct AffineRow {
  const float *gamma, *alpha, *beta;
};

__device__ inline AffineRow affine_row(const ConstBuffer& table, const ConstBuffer& label, std::int64_t rows,
                                       std::int64_t image, std::int64_t c) {
  const std::int64_t row = label.data ? row_of_label(elements_of<double>(label)[image], rows) : 0;
  const float* gamma = elements_of<float>(table) + row * 3 * c;
  return {gamma, gamma + c, gamma + 2 * c};
}

/// One block an image: levels, and the coefficients of the pass.
__global__ void __launch_bounds__(kThreads) level_kernel(const InstanceNorm op, Coefficients out) {
  __shared__ float partial[kWarp];
  const std::int64_t image = blockIdx.x, c = op.c;
  const float *mean = elements_of<float>(op.mean) + image * c,
              *rstd = elements_of<float>(op.rstd) + image * c;
  float *level = elements_of<float>(op.level) + image * c, sum = 0.0f;
  for (std::int64_t k = threadIdx.x; k < c; k += kThreads) sum += mean[k];
  const float centre = block_sum(sum, partial) / static_cast<float>(c);
  sum = 0.0f;
  for (std::int64_t k = threadIdx.x; k < c; k += kThreads) sum += (mean[k] - centre) * (mean[k] - centre);
  const float level_rstd =
      1.0f / sqrtf(block_sum(sum, partial) / static_cast<float>(c - 1) + static_cast<float>(op.eps));
  if (threadIdx.x == 0) elements_of<float>(op.level_rstd)[image] = level_rstd;
  const AffineRow row = affine_row(op.table, op.label, op.rows, image, c);
  for (std::int64_t k = threadIdx.x; k < c; k += kThreads) {
    level[k] = (mean[k] - centre) * level_rstd;
    out.b[image * c + k] = row.gamma[k] * rstd[k];
    out.d[image * c + k] = row.gamma[k] * row.alpha[k] * level[k] + row.beta[k];
  }
}

/// sums[0] = dy, sums[1] = dy (x - mean) rstd, [2][n, c].
template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient_sums_kernel(const InstanceNormGrad op, float* sums, float scale) {
  const ChannelPlace at = channel_place(op.c);
  const std::int64_t first = at.image * op.hw * op.c + at.channel, index = at.image * op.c + at.channel;
  const T *x = elements_of<T>(op.x) + first, *dy = elements_of<T>(op.dy) + first;
  const float mean = at.inside ? elements_of<float>(op.mean)[index] : 0.0f,
              rstd = at.inside ? elements_of<float>(op.rstd)[index] : 0.0f;
  float sum[2];
  sum_pixels(op.hw, at.inside, sum, [&](std::int64_t p, float(&s)[2]) {
    const float gradient = static_cast<float>(dy[p * op.c]);
    s[0] += gradient;
    s[1] += gradient * ((static_cast<float>(x[p * op.c]) - mean) * rstd);
  });
  if (!at.writes) return;
  sums[index] = scale * sum[0];
  sums[op.n * op.c + index] = scale * sum[1];
}

/// One block an image: the coefficients of dx, and the image's share drows [n, 3 c] of the table's gradient.
__global__ void __launch_bounds__(kThreads) level_grad_kernel(const InstanceNormGrad op, const float* sums,
                                                              float* drows, Coefficients out, float scale) {
  __shared__ float partial[kWarp];
  const std::int64_t image = blockIdx.x, c = op.c;
  const float *rstd = elements_of<float>(op.rstd) + image * c,
              *level = elements_of<float>(op.level) + image * c, *sum = sums + image * c,
              *sum_h = sum + op.n * c, count = static_cast<float>(op.hw);
  const AffineRow row = affine_row(op.table, op.label, op.rows, image, c);
  float one = 0.0f, other = 0.0f;  // the gradient in level, along a constant and along level
  for (std::int64_t k = threadIdx.x; k < c; k += kThreads) {
    const float dlevel = row.gamma[k] * row.alpha[k] * sum[k];
    one += dlevel, other += dlevel * level[k];
  }
  one = block_sum(one, partial) / static_cast<float>(c);
  other = block_sum(other, partial) / static_cast<float>(c - 1);
  const float level_rstd = elements_of<float>(op.level_rstd)[image];
  for (std::int64_t k = threadIdx.x; k < c; k += kThreads) {
    const float slope = row.gamma[k] * rstd[k], dlevel = row.gamma[k] * row.alpha[k] * sum[k];
    const float dmean = level_rstd * (dlevel - one - level[k] * other);
    out.a[image * c + k] = slope * scale;
    out.b[image * c + k] = -slope * rstd[k] * sum_h[k] / count;
    out.d[image * c + k] = (dmean - slope * sum[k]) / count;
    float* drow = drows + image * 3 * c;
    drow[k] = sum_h[k] + row.alpha[k] * level[k] * sum[k];
    drow[c + k] = row.gamma[k] * level[k] * sum[k];
    drow[2 * c + k] = sum[k];
  }
}

/// One thread for each number of the table.
__global__ void __launch_bounds__(kThreads)
    table_grad_kernel(const InstanceNormGrad op, const float* drows, std::int64_t elements) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= elements) return;
  const std::int64_t width = 3 * op.c, row = quotient(i, width), col = i - row * width;
  float sum = 0.0f;
  for (std::int64_t n = 0; n < op.n; ++n)
    if (row == (op.label.data ? row_of_label(elements_of<double>(op.label)[n], op.rows) : 0))
      sum += drows[n * width + col];
  elements_of<float>(op.dtable)[i] = sum;
}

/// One thread for each 16 bytes of y.
template <class T>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(const T* x, const float* mean, const T* dy, T* y, Coefficients by, std::int64_t elements,
                     std::int64_t hw, std::int64_t c, bool packed) {
  constexpr int kSpan = Pack<T>::kSize;
  const std::int64_t begin = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kSpan,
                     size = elements - begin;
  if (size <= 0) return;
  float v[kSpan], gradient[kSpan] = {};
  load_span(x + begin, size, packed, v);
  if (dy) load_span(dy + begin, size, packed, gradient);
  std::int64_t pixel = quotient(begin, c), channel = begin - pixel * c;
  for (int k = 0; k < kSpan && k < size; ++k, ++channel) {
    if (channel == c) channel = 0, ++pixel;
    const std::int64_t at = quotient(pixel, hw) * c + channel;
    v[k] = by.b[at] * (v[k] - mean[at]) + by.d[at];
    if (dy) v[k] += by.a[at] * gradient[k];
  }
  store_span(y + begin, size, packed, v);
}

template <class T>
void normalise(CudaContext& device, const char* name, ConstBuffer x, ConstBuffer mean, ConstBuffer dy,
               Buffer y, const Coefficients& by, std::int64_t n, std::int64_t hw, std::int64_t c) {
  const std::int64_t elements = n * hw * c;
  launch(device,
         {name, blocks_for(elements, std::int64_t{kThreads} * Pack<T>::kSize), kThreads,
          bytes_of(x, elements) + bytes_of(dy, elements) + bytes_of(y, elements)},
         normalise_kernel<T>, x.as<T>(), mean.as<float>(), dy.as<T>(), y.as<T>(), by, elements, hw, c,
         packs<T>({x.data, dy.data, y.data}, 0));
}

/// Blocks of 32 channels of each image; there may be more images than a grid has rows.
dim3 channel_blocks(std::int64_t n, std::int64_t c) {
  return {static_cast<unsigned>(n), blocks_for(c, kWarp)};
}

}  // namespace

void InstanceNorm::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  const std::int64_t elements = n * hw * c, channels = n * c;
  const Scratch scratch(context, static_cast<std::size_t>(2 * channels) * sizeof(float));
  const Coefficients by{nullptr, scratch.as<float>(), scratch.as<float>() + channels};
  dispatch_storage(x.dtype, "instance_norm", [&]<class T>(T) {
    launch(device,
           {"instance norm: moments", channel_blocks(n, c), kThreads,
            bytes_of(x, elements) + 2 * bytes_of(mean, channels)},
           channel_moments_kernel<T>, x.as<T>(), mean.as<float>(), rstd.as<float>(), hw, c,
           static_cast<float>(eps));
    launch(device,
           {"instance norm: levels", static_cast<unsigned>(n), kThreads, 8 * bytes_of(mean, channels)},
           level_kernel, *this, by);
    normalise<T>(device, "instance norm", x, mean, {}, y, by, n, hw, c);
  });
}

void InstanceNormGrad::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  const std::int64_t elements = n * hw * c, channels = n * c, entries = rows * 3 * c;
  const Scratch scratch(context, static_cast<std::size_t>(8 * channels) * sizeof(float));
  float *const sums = scratch.as<float>(), *const drows = sums + 2 * channels,
               *const coefficients = drows + 3 * channels;
  const Coefficients by{coefficients, coefficients + channels, coefficients + 2 * channels};
  const auto scale = static_cast<float>(dy_scale);
  dispatch_storage(x.dtype, "instance_norm", [&]<class T>(T) {
    launch(device,
           {"instance norm grad: sums", channel_blocks(n, c), kThreads,
            2 * bytes_of(x, elements) + 4 * bytes_of(mean, channels)},
           gradient_sums_kernel<T>, *this, sums, scale);
    launch(device,
           {"instance norm grad: levels", static_cast<unsigned>(n), kThreads, 12 * bytes_of(mean, channels)},
           level_grad_kernel, *this, static_cast<const float*>(sums), drows, by, scale);
    normalise<T>(device, "instance norm grad", x, mean, dy, dx, by, n, hw, c);
  });
  if (dtable)
    launch(device,
           {"instance norm grad: table", blocks_for(entries, kThreads), kThreads,
            3 * bytes_of(mean, channels) + bytes_of(dtable, entries)},
           table_grad_kernel, *this, static_cast<const float*>(drows), entries);
}

}  // namespace sgm
