#pragma once
// Noise that a thread draws for itself. For kernel sources only.

#include "kernels/device.h"
#include "sgm/core/random.h"

namespace sgm {

inline constexpr int kPhiloxBlock = 4;  // elements of a Philox block

/// z[k] = element begin + k of an image's noise; begin and N are multiples of 4.
template <class A, int N>
__device__ inline void draw_normals(const NoiseKey& key, std::int64_t image, std::int64_t begin, A (&z)[N]) {
  for (int j = 0; j < N; j += kPhiloxBlock) {
    float normal[kPhiloxBlock];
    normals_of(philox(key, static_cast<std::uint32_t>(image),
                      static_cast<std::uint32_t>((begin + j) / kPhiloxBlock)),
               normal);
    for (int k = 0; k < kPhiloxBlock; ++k) z[j + k] = static_cast<A>(normal[k]);
  }
}

}  // namespace sgm
