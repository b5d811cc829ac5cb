#include "kernels/training.h"

#include "kernels/draw.h"
#include "kernels/last_block.h"
#include "kernels/span.h"

// After the device language.
#include "backend/cuda/arrivals.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;

/// Elements of a thread's turn: those of one pack of bf16 or two of f32.
constexpr int kSpan = 8;
static_assert(ParameterList::kChunk % (kSpan * kThreads) == 0);

// ---- loss -------------------------------------------------------------------------------------------------

/// One block for each image, and the last to finish takes the mean; arithmetic in double, as on the CPU.
template <class T>
__global__ void __launch_bounds__(kThreads)
    residual_loss_kernel(ResidualLoss op, double reduction, bool packed, unsigned* counter) {
  __shared__ double partial[kWarp];
  const std::int64_t image = blockIdx.x, first = image * op.per;
  const double weight = elements_of<double>(op.weight)[image], a = elements_of<double>(op.a)[image],
               b = elements_of<double>(op.b)[image];
  const double slope = 2.0 * reduction * weight * a / static_cast<double>(op.n);
  double sum = 0;
  for (std::int64_t i = std::int64_t{threadIdx.x} * kSpan; i < op.per; i += kThreads * kSpan) {
    const std::int64_t left = op.per - i;
    double n[kSpan], noise[kSpan];
    load_span(elements_of<T>(op.net) + first + i, left, packed, n);
    if (op.z.given.data)
      load_span(elements_of<T>(op.z.given) + first + i, left, packed, noise);
    else
      draw_normals(op.z.key, image, i, noise);
    for (int k = 0; k < kSpan; ++k) {
      const double residual = a * n[k] + b * noise[k];
      if (k < left) sum += residual * residual;
      n[k] = slope * residual;
    }
    store_span(elements_of<T>(op.dnet) + first + i, left, packed, n);
  }
  sum = block_sum(sum, partial);
  double* const loss = elements_of<double>(op.loss);
  if (threadIdx.x == 0) loss[image] = weight * reduction * sum;
  if (!is_last_block(counter, gridDim.x)) return;
  sum = 0;
  for (std::int64_t i = threadIdx.x; i < op.n; i += kThreads) sum += loss[i];
  sum = block_sum(sum, partial);
  if (threadIdx.x == 0) *elements_of<double>(op.mean) = sum / static_cast<double>(op.n);
}

// ---- parameters -------------------------------------------------------------------------------------------

/// The tensor that chunk number `chunk` belongs to: the last that begins at it or before. A warp looks at 32
/// tensors at once; all lanes must call.
__device__ inline const ParameterList::Entry& entry_of(const ParameterList& list, std::int64_t chunk) {
  const std::int64_t lane = threadIdx.x % kWarp;
  std::int64_t first = 0, count = list.count;  // it is one of these
  while (count > 1) {
    const std::int64_t stride = (count + kWarp - 1) / kWarp, at = lane * stride;
    const bool before = at < count && list.entries[first + at].first_chunk <= chunk;
    const std::int64_t passed = (__popc(__ballot_sync(0xffffffffu, before)) - 1) * stride;
    first += passed;
    count = std::min(stride, count - passed);
  }
  return list.entries[first];
}

/// The elements [begin, end) of a tensor.
struct ChunkRange {
  std::int64_t begin, end;
};
__device__ inline ChunkRange range_of(const ParameterList::Entry& entry, std::int64_t chunk) {
  const std::int64_t begin = (chunk - entry.first_chunk) * ParameterList::kChunk;
  return {begin, std::min(entry.n, begin + ParameterList::kChunk)};
}

__device__ inline bool aligned16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

template <class G>
__device__ double chunk_squares(const ParameterList::Entry& entry, ChunkRange range) {
  const G* g = static_cast<const G*>(entry.g.data);
  const bool packed = aligned16(g);
  const double scale = entry.g_scale;
  double sum = 0;
  for (std::int64_t i = range.begin + std::int64_t{threadIdx.x} * kSpan; i < range.end;
       i += kThreads * kSpan) {
    double v[kSpan];
    load_span(g + i, range.end - i, packed, v);
    for (int k = 0; k < kSpan; ++k) {
      const double value = scale * v[k];
      sum += value * value;
    }
  }
  return sum;
}

/// One block for each chunk; the last adds up all squares, if y is wanted.
__global__ void __launch_bounds__(kThreads)
    gradient_norm_kernel(const ParameterList list, double* squares, std::int64_t all, unsigned* counter,
                         double* y, double* total) {
  __shared__ double shared[kWarp];
  const std::int64_t chunk = list.first_chunk + blockIdx.x;
  double sum = 0;
  const bool exists = blockIdx.x < list.chunks;
  if (exists) {
    const ParameterList::Entry& entry = entry_of(list, chunk);
    const ChunkRange range = range_of(entry, chunk);
    if (!entry.g.data)
      sum = 0;
    else if (entry.g.dtype == DType::bf16)
      sum = chunk_squares<bfloat16>(entry, range);
    else if (entry.g.dtype == DType::f32)
      sum = chunk_squares<float>(entry, range);
    else
      sum = chunk_squares<double>(entry, range);
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0 && exists) squares[chunk] = sum;
  if (!y || !is_last_block(counter, gridDim.x)) return;
  sum = 0;
  for (std::int64_t i = threadIdx.x; i < all; i += kThreads) sum += squares[i];
  sum = block_sum(sum, shared);
  if (threadIdx.x > 0) return;
  *y = sum;
  if (total) *total += sum;
}

/// The numbers of an update, in the type of the parameters.
struct AdamNumbers {
  double clip, step, root, follow;  // step = lr / bias1, root = 1 / sqrt(bias2), follow = 1 - ema_decay
  double beta1, beta2, rest1, rest2, epsilon, decay;
};

/// P: of the parameter; G: of its gradient.
template <class P, class G>
__device__ void adam_chunk(const ParameterList::Entry& entry, ChunkRange range, const AdamNumbers& now) {
  P *p = static_cast<P*>(entry.p.data), *m = static_cast<P*>(entry.m.data),
    *v = static_cast<P*>(entry.v.data), *ema = static_cast<P*>(entry.ema.data);
  const G* g = static_cast<const G*>(entry.g.data);
  bfloat16* low = static_cast<bfloat16*>(entry.low.data);
  const bool packed =
      aligned16(p) && aligned16(m) && aligned16(v) && aligned16(ema) && aligned16(g) && aligned16(low);
  const P scale = P(now.clip * entry.g_scale), decay = P(now.decay), b1 = P(now.beta1), b2 = P(now.beta2);
  const P c1 = P(now.rest1), c2 = P(now.rest2), step = P(now.step), root = P(now.root);
  const P epsilon = P(now.epsilon), follow = P(now.follow), low_factor = P(entry.low_factor);
  constexpr int kWidth = sizeof(P) == 8 ? 2 : kSpan;  // what registers hold
  for (std::int64_t i = range.begin + std::int64_t{threadIdx.x} * kWidth; i < range.end;
       i += kThreads * kWidth) {
    const std::int64_t left = range.end - i;
    P pi[kWidth], mi[kWidth], vi[kWidth], ei[kWidth], gi[kWidth];
    load_span(p + i, left, packed, pi);
    load_span(g + i, left, packed, gi);
    load_span(m + i, left, packed, mi);
    load_span(v + i, left, packed, vi);
    load_span(ema + i, left, packed, ei);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const P grad = scale * gi[k] + decay * pi[k];
      mi[k] = b1 * mi[k] + c1 * grad;
      vi[k] = b2 * vi[k] + c2 * grad * grad;
      pi[k] -= step * mi[k] / (std::sqrt(vi[k]) * root + epsilon);
      ei[k] -= follow * (ei[k] - pi[k]);
    }
    store_span(p + i, left, packed, pi);
    store_span(m + i, left, packed, mi);
    store_span(v + i, left, packed, vi);
    store_span(ema + i, left, packed, ei);
    if (!low) continue;
    for (int k = 0; k < kWidth; ++k) pi[k] *= low_factor;
    store_span(low + i, left, packed, pi);
  }
}

/// One block for each chunk.
__global__ void __launch_bounds__(kThreads)
    adam_update_kernel(const ParameterList list, const AdamSchedule* schedule, const double* squared_norm,
                       double grad_clip, double beta1, double beta2, double epsilon, double decay) {
  __shared__ AdamNumbers now;
  if (threadIdx.x == 0) {
    const AdamSchedule s = *schedule;
    const double norm = std::sqrt(*squared_norm);
    double clip = grad_clip < 0 ? 1.0 : std::min(1.0, grad_clip / (norm + 1e-6));
    if (!std::isfinite(norm)) clip = norm;
    now = {clip,
           s.lr / s.bias1,
           1.0 / std::sqrt(s.bias2),
           1.0 - s.ema_decay,
           beta1,
           beta2,
           1.0 - beta1,
           1.0 - beta2,
           epsilon,
           decay};
  }
  __syncthreads();
  const std::int64_t chunk = list.first_chunk + blockIdx.x;
  const ParameterList::Entry& entry = entry_of(list, chunk);
  if (!entry.g.data || !std::isfinite(now.clip)) return;
  const ChunkRange range = range_of(entry, chunk);
  if (entry.p.dtype == DType::f64)
    adam_chunk<double, double>(entry, range, now);
  else if (entry.g.dtype == DType::bf16)
    adam_chunk<float, bfloat16>(entry, range, now);
  else
    adam_chunk<float, float>(entry, range, now);
}

}  // namespace

void ResidualLoss::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  dispatch_float(net.dtype, "loss", [&]<class T>(T) {
    launch(device, {"residual_loss", static_cast<unsigned>(n), kThreads, cost().bytes},
           residual_loss_kernel<T>, *this, reduce_mean ? 1.0 / static_cast<double>(per) : 0.5,
           packs<T>({net.data, z.given.data, dnet.data}, per), device.part<Arrivals>().counters());
  });
}

void GradientNorm::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  const auto blocks = static_cast<unsigned>(std::max<std::int64_t>(parameters.chunks, 1));
  launch(device, {"gradient_norm", blocks, kThreads, cost().bytes}, gradient_norm_kernel, parameters,
         squares.as<double>(), all, device.part<Arrivals>().counters(), y.as<double>(), sum.as<double>());
}

void AdamUpdate::cuda(Context& context) const {
  launch(sgm::cuda(context),
         {"adam_update", static_cast<unsigned>(parameters.chunks), kThreads, cost().bytes},
         adam_update_kernel, parameters, schedule, squared_norm.as<double>(), grad_clip, beta1, beta2, eps,
         weight_decay);
}

}  // namespace sgm
