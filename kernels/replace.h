#pragma once
// Parts of images replaced by those of others.

#include "kernels/op.h"

namespace sgm {

inline constexpr std::int64_t kFloatBytes = sizeof(float);

/// y = from where the mask is not 0, else x.
struct ReplaceWhere {
  const float* mask;  // [per_image]
  const float *x, *from;
  float* y;  // [N, per_image]
  std::int64_t n, per_image;
  OpCost cost() const { return {(3 * n + 1) * per_image * kFloatBytes}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y = x + mean over channels of (from - x).
struct ReplaceChannelMean {
  const float *x, *from;
  float* y;  // [pixels, channels]
  std::int64_t pixels, channels;

  SGM_HD void at(std::int64_t pixel) const {
    const std::int64_t first = pixel * channels;
    float sum = 0.0f;
    for (std::int64_t c = first; c < first + channels; ++c) sum += from[c] - x[c];
    const float shift = sum / static_cast<float>(channels);
    for (std::int64_t c = first; c < first + channels; ++c) y[c] = x[c] + shift;
  }
  OpCost cost() const { return {3 * pixels * channels * kFloatBytes}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
