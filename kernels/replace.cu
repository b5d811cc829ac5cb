#include "kernels/replace.h"

#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;
constexpr int kSpan = 4;  // elements of a thread: one 16-byte access

__global__ void __launch_bounds__(kThreads) replace_where_kernel(ReplaceWhere op, bool packed) {
  const std::int64_t spans = (op.per_image + kSpan - 1) / kSpan;
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= op.n * spans) return;
  const std::int64_t image = quotient(index, spans), begin = (index - image * spans) * kSpan;
  const std::int64_t size = op.per_image - begin, offset = image * op.per_image + begin;
  float mask[kSpan], x[kSpan], from[kSpan];
  load_span(op.mask + begin, size, packed, mask);
  load_span(op.x + offset, size, packed, x);
  load_span(op.from + offset, size, packed, from);
  for (int k = 0; k < kSpan; ++k) x[k] = mask[k] != 0.0f ? from[k] : x[k];
  store_span(op.y + offset, size, packed, x);
}

__global__ void __launch_bounds__(kThreads) replace_channel_mean_kernel(ReplaceChannelMean op) {
  const std::int64_t pixel = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pixel < op.pixels) op.at(pixel);
}

}  // namespace

void ReplaceWhere::cuda(Context& context) const {
  const std::int64_t spans = (per_image + kSpan - 1) / kSpan;
  launch(sgm::cuda(context), {"replace_where", blocks_for(n * spans, kThreads), kThreads, cost().bytes},
         replace_where_kernel, *this, packs<float>({mask, x, from, y}, per_image));
}

void ReplaceChannelMean::cuda(Context& context) const {
  launch(sgm::cuda(context), {"replace_channel_mean", blocks_for(pixels, kThreads), kThreads, cost().bytes},
         replace_channel_mean_kernel, *this);
}

}  // namespace sgm
