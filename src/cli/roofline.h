#pragma once
// The roofline of a recorded step.

#include "sgm/data/image.h"
#include "sgm/profile/profile.h"

namespace sgm::cli {

/// Every product of the step by its arithmetic per byte of operands and its rate, below what the ceilings
/// allow. Throws Error for a step without products or without times.
Image draw_roofline(const ProfileReport& report);

}  // namespace sgm::cli
