#pragma once
// The gradient of a convolution's bias.

#include <algorithm>

#include "backend/cpu/winograd_transform.h"
#include "kernels/conv.h"

namespace sgm {

/// dbias = scale times the sums of dy over pixels, of a multiple of sixteen channels.
template <class T>
void sum_pixels(const Conv2dGradWeight& op) {
  using namespace winograd;
  const ConvShape& s = op.shape;
  const std::int64_t pixels = s.n * s.oh * s.ow;
  const T* dy = op.dy.as<T>();
#pragma omp parallel for
  for (std::int64_t k = 0; k < s.k; k += kLanes) {
    double total[kLanes] = {};
    for (std::int64_t begin = 0; begin < pixels; begin += 256) {
      Lanes sum{};
      for (std::int64_t i = begin; i < std::min(pixels, begin + 256); ++i) sum += load(dy + i * s.k + k);
      for (int j = 0; j < kLanes; ++j) total[j] += sum[j];
    }
    for (int j = 0; j < kLanes; ++j) op.dbias.as<float>()[k + j] = static_cast<float>(op.scale * total[j]);
  }
}

}  // namespace sgm
