#pragma once
// Group normalisation with everything that can ride on its one pass over memory.

#include "kernels/op.h"
#include "sgm/core/activation.h"
#include "sgm/core/random.h"

namespace sgm {

/// Inverted dropout: element e of sample s is kept when its Philox word is at least rate 2^32.
struct DropoutMask {
  double rate = 0.0;  // 0: no dropout
  NoiseKey key;
};

/// y = dropout(activation(gamma (x + shift - mean) rstd + beta)), mean and rstd over each sample's group of
/// channels. Statistics in f32 (f64 for f64 inputs), two passes over on-chip data.
struct GroupNorm {
  ConstBuffer x;            // [n, hw, c]
  ConstBuffer shift;        // [n, c], optional
  ConstBuffer gamma, beta;  // [c]
  Buffer y;                 // [n, hw, c]
  Buffer mean, rstd;        // [n, groups]
  std::int64_t n, hw, c, groups;
  double eps;
  Activation activation;
  DropoutMask dropout;
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// All gradients of GroupNorm in one call.
struct GroupNormGrad {
  ConstBuffer x, shift, gamma, beta;  // as above
  ConstBuffer mean, rstd;             // [n, groups]
  ConstBuffer dy;                     // [n, hw, c]
  Buffer dx;                          // [n, hw, c]
  Buffer dshift;                      // [n, c], optional
  Buffer dgamma, dbeta;               // [c], optional
  std::int64_t n, hw, c, groups;
  Activation activation;
  DropoutMask dropout;
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
