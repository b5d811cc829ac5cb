#pragma once
// Convolution and matrix product: the ops that the vendor libraries execute.

#include "kernels/op.h"

namespace sgm {

/// Sizes of a 2-D convolution (cross-correlation) of x [n, h, w, c] with weights [k, r, s, c].
struct ConvShape {
  std::int64_t n, h, w, c;  // c counts the channels of both inputs
  std::int64_t k, r, s;
  std::int64_t oh, ow;
  int stride;
  int pad_begin, pad_end;  // zeros before and after, along both axes
  std::int64_t c2 = 0;     // channels of the second input
  int dilation = 1;        // pixels from one tap of the filter to the next
  bool operator==(const ConvShape&) const = default;
};

/// y = scale (conv(x, weight) + bias + residual).
struct Conv2d {
  static constexpr bool kTakesScratch = true;

  ConstBuffer x;         // [n, h, w, c - c2]
  ConstBuffer x2;        // [n, h, w, c2]: the last channels of the input; optional, for 1x1 filters only
  ConstBuffer weight;    // [k, r, s, c]; f32 beside f32 and bf16 (there bf16 on GPUs), f64 beside f64
  ConstBuffer bias;      // [k], optional
  ConstBuffer residual;  // [n, oh, ow, k], optional
  Buffer y;              // [n, oh, ow, k]
  ConvShape shape;
  double scale;
  std::uint64_t weight_version;  // non-zero: the backend may keep packed weights under this version
  ConstBuffer scaled_bias = {};  // [k], bf16: scale bias, which GPUs want beside bf16; optional
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dx, dx2 = scale times the gradients of conv(x, weight) in its inputs.
struct Conv2dGradInput {
  static constexpr bool kTakesScratch = true;

  ConstBuffer dy;      // [n, oh, ow, k]
  ConstBuffer weight;  // [k, r, s, c]
  Buffer dx;           // [n, h, w, c - c2]
  Buffer dx2;          // [n, h, w, c2], where there is a second input
  ConvShape shape;
  double scale;
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dweight, dbias = scale times the gradients of conv(x, weight) + bias; f32 (f64 with f64) whatever x is;
/// beside bf16 on GPUs dweight is bf16.
struct Conv2dGradWeight {
  static constexpr bool kTakesScratch = true;

  ConstBuffer x;   // [n, h, w, c - c2]
  ConstBuffer x2;  // [n, h, w, c2], where there is a second input
  ConstBuffer dy;  // [n, oh, ow, k]
  Buffer dweight;  // [k, r, s, c]
  Buffer dbias;    // [k], optional
  ConvShape shape;
  double scale;
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// c = alpha op(a) op(b) + bias (+ c) for each of `batch` matrices; rows are lda, ldb, ldc elements apart,
/// matrices stride_a, stride_b, stride_c.
struct Matmul {
  static constexpr bool kTakesScratch = true;

  ConstBuffer a;     // [m, k], or [k, m] if trans_a
  ConstBuffer b;     // [k, n], or [n, k] if trans_b
  ConstBuffer bias;  // [n], optional
  Buffer c;          // [m, n]
  std::int64_t batch, m, n, k;
  std::int64_t lda, ldb, ldc, stride_a, stride_b, stride_c;
  bool trans_a, trans_b;
  bool accumulate = false;  // add to what c holds
  double alpha = 1.0;
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
