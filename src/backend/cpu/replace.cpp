#include "kernels/replace.h"

#include "backend/cpu/parallel.h"

namespace sgm {
void ReplaceWhere::cpu(Context&) const {
#pragma omp parallel for if (n * per_image >= kParallelFrom)
  for (std::int64_t image = 0; image < n; ++image) {
    const std::int64_t first = image * per_image;
    for (std::int64_t e = 0; e < per_image; ++e)
      y[first + e] = mask[e] != 0.0f ? from[first + e] : x[first + e];
  }
}

void ReplaceChannelMean::cpu(Context&) const {
#pragma omp parallel for if (pixels * channels >= kParallelFrom)
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel) at(pixel);
}

}  // namespace sgm
