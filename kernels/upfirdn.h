#pragma once
// Separable up-sampling, FIR filtering and down-sampling.

#include "kernels/op.h"

namespace sgm {

/// y = scale times what follows. Along both image axes: insert up - 1 zeros after every sample, pad by pad0
/// and pad1 zeros (negative: crop), correlate with `taps`, keep every down-th sample. The adjoint is the same
/// op with reversed taps, up and down exchanged, pads K - pad0 - 1 and in up - out down + pad0 - up + 1.
struct UpFirDn {
  static constexpr int kMaxTaps = 16;

  ConstBuffer x;  // [n, h, w, c]
  Buffer y;       // [n, oh, ow, c]
  std::int64_t n, h, w, c, oh, ow;
  int up, down, pad0;
  int num_taps;
  double taps[kMaxTaps];
  double scale = 1.0;
  OpCost cost() const { return {bytes_of(x, n * h * w * c) + bytes_of(y, n * oh * ow * c)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
