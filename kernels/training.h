#pragma once
// The ends of a training step: the loss of the residual, and the update of the weights.

#include "kernels/op.h"

namespace sgm {

/// Every denoising score matching loss of the paper has one form per image:
///   loss = weight * reduce((a net + b z)^2),   dnet = d(mean over images of loss) / dnet.
/// reduce is the mean over elements, or half the sum.
struct ResidualLoss {
  ConstBuffer net, z;        // [n, per]
  ConstBuffer a, b, weight;  // [n], f64
  Buffer loss;               // [n], f64
  Buffer dnet;               // [n, per], type of net
  std::int64_t n, per;
  bool reduce_mean;
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[0] = sum of x^2, in a fixed order, accumulated in f64.
struct SumOfSquares {
  ConstBuffer x;  // [n]
  Buffer y;       // [1], f64
  std::int64_t n;
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// One Adam step of one tensor and its exponential moving average:
///   g' = gradient_scale g + weight_decay p;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2;
///   p -= lr (m / bias1) / (sqrt(v / bias2) + eps);  ema -= (1 - ema_decay)(ema - p).
struct AdamStep {
  Buffer p, m, v, ema;  // [n]
  ConstBuffer g;        // [n]
  std::int64_t n;
  double gradient_scale, lr, beta1, beta2, eps, weight_decay, bias1, bias2, ema_decay;
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
