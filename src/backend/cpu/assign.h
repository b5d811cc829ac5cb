#pragma once
// Rounding to the type of a tensor.

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "sgm/core/types.h"

namespace sgm {

/// to = T(value). GCC 12 vectorises no loop under `omp simd` that makes an object of class type, as bfloat16
/// is, in its own body; one that a function makes it does.
template <class T, class A>
inline void assign(T& to, A value) {
  to = T(value);
}

/// to[i] = T(from[i]), at the rate of a copy; bfloat16 below 2^-126 may become zero.
template <class T, class A>
inline void assign_row(T* to, const A* from, std::int64_t count) {
#ifdef __AVX512BF16__
  if constexpr (std::is_same_v<T, bfloat16>) {
    const auto sixteen = [&](std::int64_t i, auto lanes) {
      const auto mask = static_cast<__mmask16>(0xffff >> (16 - lanes));
      const __m256bh halves = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from + i));
      std::memcpy(to + i, &halves, static_cast<std::size_t>(lanes) * sizeof(T));
    };
    std::int64_t i = 0;
    for (; i + 16 <= count; i += 16) sixteen(i, std::integral_constant<int, 16>());  // a move, not a call
    if (i < count) sixteen(i, static_cast<int>(count - i));
    return;
  }
#endif
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) assign(to[i], from[i]);
}

}  // namespace sgm
