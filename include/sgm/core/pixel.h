#pragma once
// How values in [0, 1] become bytes.

#include <cmath>
#include <cstdint>

#include "sgm/core/types.h"

namespace sgm {

enum class PixelRule {
  truncate,  // trunc(255 x), for sample files (.npz, single images), from which FID is computed
  round,     // round(255 x), for pictures to look at (sample grids, animations)
};

/// x by the rule, clipped to 0 ... 255; NaN becomes 0. One fused multiply-add: the same on every device.
SGM_HD inline std::uint8_t to_byte(float x, PixelRule rule) {
  const float value = fmaf(255.0f, x, rule == PixelRule::round ? 0.5f : 0.0f);
  // NaN fails the first comparison.
  return !(value > 0.0f)   ? std::uint8_t{0}
         : value >= 255.0f ? std::uint8_t{255}
                           : static_cast<std::uint8_t>(value);
}

}  // namespace sgm
