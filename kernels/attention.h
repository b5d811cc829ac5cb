#pragma once
// Single-head attention without its weights in memory.

#include "kernels/op.h"

namespace sgm {

/// y = softmax(scale q k^T) v, image by image.
struct Attention {
  ConstBuffer qkv;  // [n, t, 3 c]: queries, keys and values side by side
  Buffer y;         // [n, t, c]
  Buffer lse;       // [n, t]: log sum_j exp(scale <q_i, k_j>), f32 (f64 beside f64)
  std::int64_t n, t, c;
  double scale;

  /// Whether cuda() takes such tokens: in bf16 16, 32, ... 256 channels.
  static bool fits_gpus(DType dtype, std::int64_t c) {
    return dtype == DType::bf16 && c > 0 && c <= 256 && c % 16 == 0;
  }
  double flop_of_product() const {
    return 2.0 * static_cast<double>(n * t) * static_cast<double>(t) * static_cast<double>(c);
  }
  OpCost cost() const {
    return {bytes_of(qkv, 3 * n * t * c) + bytes_of(y, n * t * c) + bytes_of(lse, n * t),
            2.0 * flop_of_product()};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// The gradient of Attention in qkv. With p = exp(scale q k^T - lse):
///   ds = p (dy v^T - <y_i, dy_i>),  dq = scale ds k,  dk = scale ds^T q,  dv = p^T dy.
/// What it takes to make p again is not counted as arithmetic.
struct AttentionGrad {
  ConstBuffer qkv, y, lse, dy;  // as above
  Buffer dqkv;                  // [n, t, 3 c]
  Buffer sums;                  // [3 c]: of dqkv over images and tokens, of lse's type; optional
  std::int64_t n, t, c;
  double scale;

  OpCost cost() const {
    return {bytes_of({qkv, dqkv}, 3 * n * t * c) + bytes_of({y, dy}, n * t * c) + bytes_of(lse, n * t) +
                bytes_of(sums, 3 * c),
            4.0 * Attention{{}, {}, {}, n, t, c, scale}.flop_of_product()};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
