// The gradient of attention in one launch. A block has kTile tokens of one image, either as keys (their dk
// and dv) or as queries (their dq), and walks over all tokens in the other role, making the weights again.
// Nothing is added up in an order that depends on timing.

#include <cmath>

#include "kernels/attention_tile.h"
#include "kernels/last_block.h"

#include "backend/cuda/arrivals.h"
#include "backend/cuda/block_memory.h"
#include "backend/scratch.h"
#include "kernels/fill.h"

namespace sgm {
namespace {

struct GradArgs {
  const bfloat16 *qkv, *y, *dy;
  const float* lse;
  bfloat16* dqkv;
  float* sums;       // [3 c], or null
  float* tile_sums;  // [blocks of an image, n, 2 c]
  float* role_sums;  // [blocks of an image, 2 c]
  unsigned* counters;
  std::int64_t n;
  int t, c;
  int stages;   // tiles of the others in shared memory: 1, or 2 to fetch one beside the work on the other
  float scale;  // of scores
};

/// Where a block is: the first blocks of an image have its keys.
struct Place {
  std::int64_t image;
  int role, tiles;  // role: which tile of keys, or tiles + which tile of queries

  __device__ Place(const GradArgs& a, int tile) : tiles((a.t + tile - 1) / tile) {
    image = blockIdx.x / static_cast<unsigned>(2 * tiles);
    role = static_cast<int>(blockIdx.x % static_cast<unsigned>(2 * tiles));
  }
  __device__ bool of_keys() const { return role < tiles; }
};

/// Rows of one image.
struct ImageRows {
  TokenRows q, k, v, y, dy;
  const float* lse;

  __device__ ImageRows(const GradArgs& a, std::int64_t image) : lse(a.lse + image * a.t) {
    const std::int64_t ld = 3 * std::int64_t{a.c}, first = image * a.t;
    q = {a.qkv + first * ld, ld}, k = {q.data + a.c, ld}, v = {k.data + a.c, ld};
    y = {a.y + first * a.c, a.c}, dy = {a.dy + first * a.c, a.c};
  }
};

/// One block. Tokens come in pairs of matrices: queries and dy, keys and values. The first halves of both
/// roles make the scores, the second halves the gradients of the weights.
template <int kTile, bool kOfKeys>
class GradTile {
 public:
  static constexpr int kScoreWarps = kAttentionWarps / 2;  // the others make the gradients of the weights
  using Part = Scores<kTile / 32, kTile / 16>;             // of a warp: a quarter of the tile

  __device__ GradTile(const GradArgs& args, const Place& at)
      : a_(args),
        rows_(args, at.image),
        first_((kOfKeys ? at.role : at.role - at.tiles) * kTile),
        stage_rows_(2 * kTile * TileRows::pitch_of(args.c)) {
    TileMemory memory{dynamic_shared<bfloat16>()};
    for (TileRows& rows : own_) rows = memory.rows(kTile, a_.c);
    for (TileRows& rows : others_) rows = memory.rows(kTile, a_.c);
    memory.next += (a_.stages - 1) * stage_rows_;
    weights_ = memory.rows(kTile, kTile), dscores_ = memory.rows(kTile, kTile);
    lse_ = memory.floats(kTile), dots_ = memory.floats(kTile);
  }

  __device__ void run() {
    const TokenRows own[2] = {kOfKeys ? rows_.k : rows_.q, kOfKeys ? rows_.v : rows_.dy};
    for (int i = 0; i < 2; ++i) fetch<kTile>(own_[i], own[i].from(first_), a_.t - first_, a_.c);
    fetch_others(0, 0);
    if (!kOfKeys) load_lse(first_);
    int stage = 0;
#pragma unroll 1
    for (int other = 0; other < a_.t; other += kTile) {
      const int next = other + kTile;
      if (kOfKeys) load_lse(other);
      wait_for_copies<0>();
      __syncthreads();
      if (a_.stages == 2 && next < a_.t) fetch_others(next, 1 - stage);
      const TileRows first = staged(others_[0], stage), second = staged(others_[1], stage);
      make_dscores(other, first, second);
      gradient_.add_product(dscores_, first, a_.c);
      if constexpr (kOfKeys) of_values_.add_product(weights_, second, a_.c);
      if (a_.stages == 2) stage = 1 - stage;
      if (a_.stages == 1 && next < a_.t) {
        __syncthreads();
        fetch_others(next, 0);
      }
    }
    gradient_.scale_rows([this](int) { return a_.scale; });
  }

  /// Into dqkv, by way of the block's own rows, which nobody reads any more.
  __device__ void store(std::int64_t image) {
    const std::int64_t ld = 3 * std::int64_t{a_.c};
    bfloat16* const to = a_.dqkv + (image * a_.t + first_) * ld;
    gradient_.store(own_[0], a_.c);
    if constexpr (kOfKeys) of_values_.store(own_[1], a_.c);
    __syncthreads();
    store_rows<kTile>(to + (kOfKeys ? a_.c : 0), ld, own_[0], a_.t - first_, a_.c);
    if constexpr (kOfKeys) store_rows<kTile>(to + 2 * a_.c, ld, own_[1], a_.t - first_, a_.c);
  }

  /// sums[channel], behind those of dk those of dv.
  __device__ void sum_tokens(float* sums) const {
    gradient_.sum_rows(sums, a_.c);
    if constexpr (kOfKeys) of_values_.sum_rows(sums + a_.c, a_.c);
  }

 private:
  struct Nothing {};

  __device__ TileRows staged(const TileRows& rows, int stage) const {
    return {rows.data + stage * stage_rows_, rows.pitch};
  }
  __device__ void fetch_others(int token, int stage) const {
    const TokenRows from[2] = {kOfKeys ? rows_.q : rows_.k, kOfKeys ? rows_.dy : rows_.v};
    for (int i = 0; i < 2; ++i)
      fetch<kTile>(staged(others_[i], stage), from[i].from(token), a_.t - token, a_.c);
    end_copies();
  }

  /// Of the tile's queries from `token` on; such that queries beyond the last one have no weights.
  __device__ void load_lse(int token) const {
    const int i = static_cast<int>(threadIdx.x);
    if (i < kTile) lse_[i] = token + i < a_.t ? rows_.lse[token + i] * kLog2E : INFINITY;
  }

  /// <y, dy> of the tile's queries from `token` on, whose dy is in `dy`: by the warps that make no scores.
  __device__ void make_dots(int token, const TileRows& dy) const {
#pragma unroll 4
    for (int row = attention_warp() - kScoreWarps; row < kTile; row += kAttentionWarps - kScoreWarps) {
      float sum = 0.0f;
      const bfloat16* const y = rows_.y.from(token + row).data;
      for (int col = attention_lane() * 8; token + row < a_.t && col < a_.c; col += kWarp * 8) {
        const Pack<bfloat16> a = load16(y + col), b = load16(dy.at(row) + col);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum = fmaf(a.at[i], b.at[i], sum);
      }
      sum = warp_sum(sum);
      if (attention_lane() == 0) dots_[row] = sum;
    }
  }

  /// The tile of weights, and of their scores' gradients, of own tokens with those from `other` on.
  __device__ void make_dscores(int other, const TileRows& first, const TileRows& second) const {
    const bool makes_scores = attention_warp() < kScoreWarps;
    const int quarter = attention_warp() % kScoreWarps;
    Part part(quarter % 2 * (kTile / 2), quarter / 2 * (kTile / 2));
    const auto query_of = [](int row, int col) { return kOfKeys ? col : row; };
    if (makes_scores) {
      part.multiply(own_[0], first, a_.c);
      const float scale = a_.scale * kLog2E;
      const int keys = a_.t - (kOfKeys ? first_ : other);
      part.apply([&](float score, int row, int col) {
        return (kOfKeys ? row : col) < keys ? exp2f(score * scale - lse_[query_of(row, col)]) : 0.0f;
      });
      part.store(weights_);
    } else {
      part.multiply(own_[1], second, a_.c);
      if (kOfKeys || other == 0) make_dots(kOfKeys ? other : first_, kOfKeys ? second : own_[1]);
    }
    __syncthreads();
    if (!makes_scores) {
      part.each_pair([&](int row, int col, float first_dweight, float second_dweight) {
        const BFloat16Pair weights = weights_.pair(row, col);
        dscores_.pair(row, col) =
            pair_of(first_of(weights) * (first_dweight - dots_[query_of(row, col)]),
                    second_of(weights) * (second_dweight - dots_[query_of(row, col + 1)]));
      });
    }
    __syncthreads();
  }

  const GradArgs& a_;
  ImageRows rows_;
  int first_, stage_rows_;
  TileRows own_[2], others_[2], weights_, dscores_;
  float *lse_, *dots_;
  Mixture<kTile> gradient_;  // of queries or keys
  std::conditional_t<kOfKeys, Mixture<kTile>, Nothing> of_values_;
};

/// The sums of all images and tokens: the last block of each role adds those of the images, the last of these
/// those of the roles.
__device__ inline void finish_sums(const GradArgs& a, const Place& at) {
  const int width = 2 * a.c, roles = 2 * at.tiles;
  if (!is_last_block(a.counters + at.role, static_cast<unsigned>(a.n))) return;
  const float* const rows = a.tile_sums + at.role * a.n * width;
  for (int i = static_cast<int>(threadIdx.x); i < (at.of_keys() ? width : a.c); i += kAttentionThreads) {
    float sum = 0.0f;
#pragma unroll 8
    for (std::int64_t image = 0; image < a.n; ++image) sum += rows[image * width + i];
    a.role_sums[at.role * width + i] = sum;
  }
  if (!is_last_block(a.counters + roles, static_cast<unsigned>(roles))) return;
  for (int i = static_cast<int>(threadIdx.x); i < 3 * a.c; i += kAttentionThreads) {
    const int first = i < a.c ? at.tiles : 0, column = i < a.c ? i : i - a.c;
    float sum = 0.0f;
    for (int tile = 0; tile < at.tiles; ++tile) sum += a.role_sums[(first + tile) * width + column];
    a.sums[i] = sum;
  }
}

template <int kTile, bool kOfKeys>
__device__ inline void make_gradient(const GradArgs& a, const Place& at) {
  GradTile<kTile, kOfKeys> tile(a, at);
  tile.run();
  if (a.sums) tile.sum_tokens(a.tile_sums + (at.role * a.n + at.image) * 2 * a.c);
  tile.store(at.image);
}

template <int kTile>
__global__ void __launch_bounds__(kAttentionThreads, 1) attention_grad_kernel(const GradArgs a) {
  const Place at(a, kTile);
  at.of_keys() ? make_gradient<kTile, true>(a, at) : make_gradient<kTile, false>(a, at);
  if (a.sums) finish_sums(a, at);
}

template <int kTile>
std::size_t shared_bytes(std::int64_t c, int stages) {
  const auto columns = static_cast<int>(c);
  return kTile * (sizeof(bfloat16) * static_cast<std::size_t>((2 + 2 * stages) * TileRows::pitch_of(columns) +
                                                              2 * TileRows::pitch_of(kTile)) +
                  2 * sizeof(float));
}

template <int kTile>
void backward(CudaContext& device, const AttentionGrad& op) {
  const std::int64_t tiles = (op.t + kTile - 1) / kTile, roles = 2 * tiles;
  check(roles < Arrivals::kCount, "attention: ", op.t, " tokens are too many for a GPU");
  const Scratch sums(device, op.sums ? static_cast<std::size_t>((op.n + 1) * roles * 2 * op.c) * sizeof(float)
                                     : std::size_t{0});
  const int stages = tiles > 1 && shared_bytes<kTile>(op.c, 2) <= device.part<BlockMemory>().bytes ? 2 : 1;
  const GradArgs args{op.qkv.as<bfloat16>(),
                      op.y.as<bfloat16>(),
                      op.dy.as<bfloat16>(),
                      op.lse.as<float>(),
                      op.dqkv.as<bfloat16>(),
                      op.sums.as<float>(),
                      sums.as<float>(),
                      op.sums ? sums.as<float>() + op.n * roles * 2 * op.c : nullptr,
                      device.part<Arrivals>().counters(),
                      op.n,
                      static_cast<int>(op.t),
                      static_cast<int>(op.c),
                      stages,
                      static_cast<float>(op.scale)};
  const OpCost cost = op.cost();
  launch(device,
         {"attention_grad", static_cast<unsigned>(op.n * roles), kAttentionThreads, cost.bytes,
          shared_bytes<kTile>(op.c, stages), cost.flop},
         attention_grad_kernel<kTile>, args);
}

}  // namespace

void AttentionGrad::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  check(Attention::fits_gpus(qkv.dtype, c), "attention: a GPU takes 16, 32, ... 256 channels of bf16, got ",
        c, " of ", qkv.dtype);
  const bool large = t > 32 && shared_bytes<64>(c, 1) <= device.part<BlockMemory>().bytes;
  if (n * t == 0) {
    if (sums) Fill{sums, 3 * c, 0.0}.cuda(context);
    return;
  }
  large ? backward<64>(device, *this) : backward<32>(device, *this);
}

}  // namespace sgm
