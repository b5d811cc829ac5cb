// Attention in one pass: a block has kTile queries of one image, walks over the keys and values, and rescales
// what it has so far whenever a larger score turns up.

#include <cmath>

#include "kernels/attention_tile.h"

#include "backend/cuda/block_memory.h"

namespace sgm {
namespace {

/// The larger one; NaN gives way.
__device__ inline float larger(float a, float b) { return a < b ? b : a; }

/// `a` and `b` of four neighbouring lanes combined, in all four.
template <class Combine>
__device__ inline float over_four_lanes(float value, Combine&& combine) {
  for (int offset = 1; offset < 4; offset *= 2)
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

/// Two warps share 16 queries, half of the tile's keys each; where the tile is small some warps have none.
template <int kTile>
struct Part {
  static constexpr int kStrips = kTile / 16;
  static_assert(2 * kStrips <= kAttentionWarps);
  bool any = attention_warp() < 2 * kStrips;
  int row = attention_warp() % kStrips * 16, side = attention_warp() / kStrips;
};

/// What the blocks' warps tell each other about the rows of the tile.
template <int kTile>
struct RowNumbers {
  float *largest, *total;  // [2, kTile], of each half of the keys
  float* rescale;          // [kTile]

  __device__ explicit RowNumbers(TileMemory& memory)
      : largest(memory.floats(2 * kTile)), total(memory.floats(2 * kTile)), rescale(memory.floats(kTile)) {}
  static constexpr std::size_t bytes() { return 5 * kTile * sizeof(float); }
};

/// The softmax of a lane's two rows so far, powers of two throughout.
template <int kTile>
class RunningSoftmax {
 public:
  static constexpr int kN = kTile / 16;
  using Scored = Scores<1, kN>;

  __device__ explicit RunningSoftmax(const Part<kTile>& part) : part_(part) {}

  /// Scales the scores, takes those of keys from the count-th on away, and tells the other warp the largest.
  __device__ void begin(Scored& scores, int count, float scale, const RowNumbers<kTile>& numbers) {
    float largest[2] = {-INFINITY, -INFINITY};
    scores.apply([&](float value, int, int col) { return col < count ? value * scale : -INFINITY; });
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) largest[i / 2] = larger(largest[i / 2], scores.at[0][n][i]);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      largest[h] = over_four_lanes(largest[h], larger);
      if (attention_lane() % 4 == 0)
        numbers.largest[part_.side * kTile + scores.row_of(0, 2 * h)] = largest[h];
    }
  }

  /// After a barrier: the scores become weights, relative to the largest score that the rows have had.
  __device__ void finish(Scored& scores, const RowNumbers<kTile>& numbers) {
    float by[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = scores.row_of(0, 2 * h);
      const float now = larger(largest_[h], larger(numbers.largest[row], numbers.largest[kTile + row]));
      by[h] = exp2f(largest_[h] - now);
      largest_[h] = now;
      total_[h] *= by[h];
      if (part_.side == 0 && attention_lane() % 4 == 0) numbers.rescale[row] = by[h];
    }
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        total_[i / 2] += scores.at[0][n][i] = exp2f(scores.at[0][n][i] - largest_[i / 2]);
  }

  __device__ void tell_totals(const RowNumbers<kTile>& numbers) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float total = over_four_lanes(total_[h], [](float a, float b) { return a + b; });
      if (attention_lane() % 4 == 0) numbers.total[part_.side * kTile + row_of(h)] = total;
    }
  }

  /// After a barrier: the logarithms of the totals of `count` rows.
  __device__ void store_lse(float* lse, int count, const RowNumbers<kTile>& numbers) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(h);
      if (part_.side == 0 && attention_lane() % 4 == 0 && row < count)
        lse[row] = (largest_[h] + log2f(numbers.total[row] + numbers.total[kTile + row])) / kLog2E;
    }
  }

 private:
  __device__ int row_of(int h) const { return part_.row + attention_lane() / 4 + 8 * h; }

  Part<kTile> part_;
  float largest_[2] = {-INFINITY, -INFINITY}, total_[2] = {};
};

/// scale: that of the scores, times log2 e.
template <int kTile>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_kernel(const bfloat16* qkv, bfloat16* y, float* lse, int t, int c, float scale) {
  const int tiles = (t + kTile - 1) / kTile, first = static_cast<int>(blockIdx.x) % tiles * kTile;
  const std::int64_t image = blockIdx.x / tiles, first_token = image * t + first;
  const TokenRows queries{qkv + image * t * 3 * c, 3 * std::int64_t{c}}, keys{queries.data + c, queries.ld},
      values{keys.data + c, queries.ld};
  TileMemory memory{dynamic_shared<bfloat16>()};
  const TileRows q = memory.rows(kTile, c), k = memory.rows(kTile, c), v = memory.rows(kTile, c),
                 p = memory.rows(kTile, kTile);
  const RowNumbers<kTile> numbers(memory);
  const Part<kTile> part;
  RunningSoftmax<kTile> softmax(part);
  Mixture<kTile> sum;

  fetch<kTile>(q, queries.from(first), t - first, c);
  fetch<kTile>(k, keys, t, c);
  end_copies();
#pragma unroll 1
  for (int key = 0; key < t; key += kTile) {
    wait_for_copies<0>();  // keys
    __syncthreads();
    fetch<kTile>(v, values.from(key), t - key, c);
    end_copies();
    typename RunningSoftmax<kTile>::Scored scores(part.row, part.side * kTile / 2);
    if (part.any) {
      scores.multiply(q, k, c);
      softmax.begin(scores, t - key, scale, numbers);
    }
    __syncthreads();
    if (key + kTile < t) fetch<kTile>(k, keys.from(key + kTile), t - key - kTile, c);
    end_copies();
    if (part.any) {
      softmax.finish(scores, numbers);
      scores.store(p);
    }
    wait_for_copies<1>();  // values
    __syncthreads();
    sum.scale_rows([&](int row) { return numbers.rescale[row]; });
    sum.add_product(p, v, c);
  }

  if (part.any) softmax.tell_totals(numbers);
  __syncthreads();
  if (part.any) softmax.store_lse(lse + first_token, t - first, numbers);
  sum.scale_rows([&](int row) { return 1.0f / (numbers.total[row] + numbers.total[kTile + row]); });
  sum.store(q, c);
  __syncthreads();
  store_rows<kTile>(y + first_token * c, c, q, t - first, c);
}

template <int kTile>
std::size_t shared_bytes(std::int64_t c) {
  const auto columns = static_cast<int>(c);
  return kTile * sizeof(bfloat16) *
             static_cast<std::size_t>(3 * TileRows::pitch_of(columns) + TileRows::pitch_of(kTile)) +
         RowNumbers<kTile>::bytes();
}

template <int kTile>
void forward(CudaContext& device, const Attention& op) {
  const std::int64_t blocks = op.n * ((op.t + kTile - 1) / kTile);
  const OpCost cost = op.cost();
  launch(device,
         {"attention", static_cast<unsigned>(blocks), kAttentionThreads, cost.bytes,
          shared_bytes<kTile>(op.c), cost.flop},
         attention_kernel<kTile>, op.qkv.as<bfloat16>(), op.y.as<bfloat16>(), op.lse.as<float>(),
         static_cast<int>(op.t), static_cast<int>(op.c), static_cast<float>(op.scale) * kLog2E);
}

}  // namespace

void Attention::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  check(fits_gpus(qkv.dtype, c), "attention: a GPU takes 16, 32, ... 256 channels of bf16, got ", c, " of ",
        qkv.dtype);
  const bool large = t > 32 && shared_bytes<64>(c) <= device.part<BlockMemory>().bytes;
  large ? forward<64>(device, *this) : forward<32>(device, *this);
}

}  // namespace sgm
