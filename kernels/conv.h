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

  std::int64_t outputs() const { return n * oh * ow * k; }
  std::int64_t weights() const { return k * r * s * c; }
  /// Two for each multiplication of some of the input's channels with the filter, where it hangs over the
  /// border too.
  double flop(std::int64_t channels) const {
    return 2.0 * static_cast<double>(outputs()) * static_cast<double>(r * s * channels);
  }
  /// Of both inputs or their gradients.
  std::int64_t input_bytes(const ConstBuffer& first, const ConstBuffer& second) const {
    return bytes_of(first, n * h * w * (c - c2)) + bytes_of(second, n * h * w * c2);
  }
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
  OpCost cost() const {
    return {shape.input_bytes(x, x2) + bytes_of(weight, shape.weights()) +
                bytes_of(scaled_bias ? scaled_bias : bias, shape.k) +
                bytes_of({residual, y}, shape.outputs()),
            shape.flop(shape.c)};
  }
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
  OpCost cost() const {
    const std::int64_t wanted = (dx ? shape.c - shape.c2 : 0) + (dx2 ? shape.c2 : 0);
    return {bytes_of(dy, shape.outputs()) + bytes_of(weight, shape.k * shape.r * shape.s * wanted) +
                shape.input_bytes(dx, dx2),
            shape.flop(wanted)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dweight, dbias = scale times the gradients of conv(x, weight) + bias; dweight of the type of x, dbias f32
/// (f64 beside f64).
struct Conv2dGradWeight {
  static constexpr bool kTakesScratch = true;

  ConstBuffer x;   // [n, h, w, c - c2]
  ConstBuffer x2;  // [n, h, w, c2], where there is a second input
  ConstBuffer dy;  // [n, oh, ow, k]
  Buffer dweight;  // [k, r, s, c]
  Buffer dbias;    // [k], optional
  ConvShape shape;
  double scale;
  OpCost cost() const {
    return {shape.input_bytes(x, x2) + bytes_of(dy, shape.outputs()) + bytes_of(dweight, shape.weights()) +
                bytes_of(dbias, shape.k),
            shape.flop(shape.c)};
  }
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
  OpCost cost() const {
    const auto moved = [&](const ConstBuffer& matrix, std::int64_t size, std::int64_t stride) {
      return bytes_of(matrix, (stride == 0 ? 1 : batch) * size);
    };
    return {moved(a, m * k, stride_a) + moved(b, k * n, stride_b) + bytes_of(bias, n) +
                (accumulate ? 2 : 1) * bytes_of(c, batch * m * n),
            2.0 * static_cast<double>(batch * m) * static_cast<double>(n * k)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
