#pragma once
// Group normalisation with everything that can ride on its one pass over memory.

#include "kernels/upfirdn.h"
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
  ConstBuffer x;                                // [n, hw, c - c2]
  ConstBuffer x2;                               // [n, hw, c2]: the last channels of the input; optional
  ConstBuffer shift;                            // [n, c], rows shift_ld elements apart; optional
  ConstBuffer gamma, beta;                      // [c]
  Buffer y;                                     // [n, hw, c]
  Buffer joined;                                // [n, hw, c]: x and x2 side by side; optional
  Buffer mean, rstd;                            // [n, groups]
  std::int64_t n, hw, c, c2, groups, shift_ld;  // c counts the channels of both inputs
  double eps;
  Activation activation;
  DropoutMask dropout;
  OpCost cost() const {
    return {bytes_of(x, n * hw * (c - c2)) + bytes_of(x2, n * hw * c2) + bytes_of({y, joined}, n * hw * c) +
            bytes_of(shift, n * c) + bytes_of({gamma, beta}, c) + bytes_of({mean, rstd}, n * groups)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// A norm and the resampling of what it makes and of what it reads, in one pass where a GPU's memory on chip
/// holds an image's group: what the residual blocks that change the resolution begin with.
struct GroupNormResample {
  static constexpr bool kTakesScratch = true;

  GroupNorm norm;    // with one input; its y is absent
  UpFirDn resample;  // of images [n, h, w, c] with h w = norm.hw; x and y are absent
  Buffer y;          // [n, oh, ow, c]: of the norm's output
  Buffer input;      // [n, oh, ow, c]: of norm.x
  OpCost cost() const {
    return {norm.cost().bytes + bytes_of({y, input}, norm.n * resample.oh * resample.ow * norm.c)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// factor * x, added to an output that is written anyway.
struct Addend {
  ConstBuffer x;
  double factor;
};

/// All gradients of GroupNorm in one call, times dy_scale. What other paths contributed to the gradient of an
/// input is added on the way, and the sums over samples and pixels of the result come for nothing: they are
/// the bias gradient of the convolution that made the input.
struct GroupNormGrad {
  static constexpr int kMaxAddends = 3;
  static constexpr bool kTakesScratch = true;

  ConstBuffer x, x2, shift, gamma, beta;               // as above
  ConstBuffer mean, rstd;                              // [n, groups]
  ConstBuffer dy;                                      // [n, hw, c]
  Buffer dx, dx2;                                      // [n, hw, c - c2], [n, hw, c2]
  Addend addends[kMaxAddends], addends2[kMaxAddends];  // of the shapes of dx and dx2; absent ones come last
  Buffer dx_sums, dx2_sums;                            // [c - c2], [c2], of gamma's type; optional
  Buffer dshift;                                       // [n, c], rows shift_ld apart; optional
  Buffer dgamma, dbeta;                                // [c], optional
  std::int64_t n, hw, c, c2, groups, shift_ld;
  double dy_scale;
  Activation activation;
  DropoutMask dropout;
  /// The same with one addend to dx more.
  GroupNormGrad with(const Addend& addend) const {
    GroupNormGrad more = *this;
    int count = 0;
    while (count < kMaxAddends && addends[count].x) ++count;
    check(count < kMaxAddends, "group_norm: more than ", kMaxAddends, " addends");
    more.addends[count] = addend;
    return more;
  }
  OpCost cost() const {
    const std::int64_t first = n * hw * (c - c2), second = n * hw * c2;
    std::int64_t added = 0;
    for (const Addend& addend : addends) added += bytes_of(addend.x, first);
    for (const Addend& addend : addends2) added += bytes_of(addend.x, second);
    return {bytes_of({x, dx}, first) + bytes_of({x2, dx2}, second) + bytes_of(dy, n * hw * c) + added +
            bytes_of(dx_sums, c - c2) + bytes_of(dx2_sums, c2) + bytes_of({shift, dshift}, n * c) +
            bytes_of({gamma, beta, dgamma, dbeta}, c) + bytes_of({mean, rstd}, n * groups)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// The gradients of GroupNormResample, in one pass where the norm's memory on chip holds an image's group.
struct GroupNormResampleGrad {
  static constexpr bool kTakesScratch = true;

  GroupNormGrad norm;  // with one input, no dropout, and an addend fewer than there may be; its dy is absent
  ConstBuffer dy;      // [n, h, w, c] of `back`: of the norm's resampled output
  ConstBuffer dinput;  // the same, of its resampled input; times dinput_scale
  double dinput_scale;
  UpFirDn back;  // the adjoint of the resampling; x and y are absent
  OpCost cost() const {
    return {norm.cost().bytes + bytes_of({dy, dinput}, norm.n * back.h * back.w * norm.c)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
