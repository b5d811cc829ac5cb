#pragma once
// The ends of a training step: the loss of the residual, and the update of the weights.

#include "kernels/sampling.h"

namespace sgm {

/// Every denoising score matching loss of the paper has one form per image:
///   loss = weight * reduce((a net + b z)^2),   dnet = d(mean over images of loss) / dnet.
/// reduce is the mean over elements, or half the sum.
struct ResidualLoss {
  ConstBuffer net;           // [n, per]
  NoiseOperand z;            // [n, per], of net's type where given
  ConstBuffer a, b, weight;  // [n], f64
  Buffer loss;               // [n], f64
  Buffer mean;               // [1], f64: over images of loss
  Buffer dnet;               // [n, per], type of net
  std::int64_t n, per;
  bool reduce_mean;
  OpCost cost() const {
    return {bytes_of({net, z.given, dnet}, n * per) + bytes_of({a, b, weight, loss}, n) + bytes_of(mean, 1)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// The tensors of a model, as updates of all of them in one call see them.
struct ParameterList {
  /// One tensor and its optimiser state.
  struct Entry {
    Buffer p, m, v, ema;  // [n], all of p's type: f32 or f64
    Buffer low;           // [n], bf16: the copy of p that convolutions read; optional
    ConstBuffer g;        // [n], f32 or bf16 beside f32, f64 beside f64; absent: the tensor is left alone
    double g_scale;       // the gradient is g_scale g
    std::int64_t n;
    std::int64_t first_chunk;  // chunks of kChunk elements in all entries before this one
    double low_factor = 1.0;   // low = low_factor p
  };
  static constexpr std::int64_t kChunk = 8192;

  const Entry* entries = nullptr;  // [count], in device memory
  std::int64_t count = 0, chunks = 0;
  std::int64_t first_chunk = 0;  // of the first entry: lists may be parts of one
  std::int64_t gradient_bytes = 0;
  std::int64_t update_bytes = 0;  // of all that an update reads and writes

  static std::int64_t chunks_of(std::int64_t n) { return (n + kChunk - 1) / kChunk; }

  /// Counts one more entry and gives it its place among the chunks.
  void append(Entry& entry) {
    entry.first_chunk = first_chunk + chunks;
    ++count;
    chunks += chunks_of(entry.n);
    if (!entry.g) return;
    gradient_bytes += bytes_of(entry.g, entry.n);
    update_bytes += 2 * bytes_of({entry.p, entry.m, entry.v, entry.ema}, entry.n) +
                    bytes_of(entry.low, entry.n) + bytes_of(entry.g, entry.n);
  }
};

/// squares[k] = the sum of the squares of the gradients' chunk number k, for the chunks of this list; y[0] =
/// the sum of all squares, in an order that depends on their number alone. Accumulated in f64.
struct GradientNorm {
  ParameterList parameters;
  Buffer squares;    // [all], f64
  std::int64_t all;  // chunks in the whole of which this list may be a part
  Buffer y = {};     // [1], f64; optional
  Buffer sum = {};   // [1], f64: y is added to it; optional
  OpCost cost() const {
    return {parameters.gradient_bytes + bytes_of(squares, parameters.chunks) +
            (y ? bytes_of(squares, all) : 0) + bytes_of({y, sum, sum}, 1)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// What changes from one Adam step to the next; bias1 = 1 - beta1^t, bias2 = 1 - beta2^t.
struct AdamSchedule {
  double lr, bias1, bias2, ema_decay;
};

/// One Adam step of all tensors and of their exponential moving averages:
///   g' = clip g + weight_decay p, clip = min(1, grad_clip / (|all g| + 1e-6)), 1 where grad_clip is
///   negative; m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2; p -= lr (m / bias1) / (sqrt(v / bias2) +
///   eps);  ema -= (1 - ema_decay)(ema - p);  low = low_factor p.
/// Where the norm is not finite nothing changes.
struct AdamUpdate {
  ParameterList parameters;
  const AdamSchedule* schedule;  // in device memory
  ConstBuffer squared_norm;      // [1], f64: of all gradients
  double grad_clip, beta1, beta2, eps, weight_decay;
  OpCost cost() const { return {parameters.update_bytes + bytes_of(squared_norm, 1)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
