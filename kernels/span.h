#pragma once
// Runs of neighbouring elements in registers: moved sixteen bytes at a time where that is allowed, else one
// by one. For kernel sources only.

#include "kernels/device.h"

namespace sgm {

/// v[k] = p[k] where k < size, else 0. `packed`: p allows 16-byte accesses; N is a multiple of the elements
/// of a pack. Which way the elements come never changes their values.
template <class A, class T, int N>
__device__ inline void load_span(const T* p, std::int64_t size, bool packed, A (&v)[N]) {
  constexpr int kPack = Pack<T>::kSize;
  if constexpr (N % kPack == 0) {
    if (packed && size >= N) {
      for (int i = 0; i < N; i += kPack) {
        const Pack<T> pack = load16(p + i);
        for (int k = 0; k < kPack; ++k) v[i + k] = static_cast<A>(static_cast<Accumulator<T>>(pack.at[k]));
      }
      return;
    }
  }
  for (int k = 0; k < N; ++k) v[k] = k < size ? static_cast<A>(static_cast<Accumulator<T>>(p[k])) : A(0);
}

/// p[k] = v[k] where k < size.
template <class T, class A, int N>
__device__ inline void store_span(T* p, std::int64_t size, bool packed, const A (&v)[N]) {
  constexpr int kPack = Pack<T>::kSize;
  if constexpr (N % kPack == 0) {
    if (packed && size >= N) {
      for (int i = 0; i < N; i += kPack) {
        Pack<T> pack;
        for (int k = 0; k < kPack; ++k) pack.at[k] = rounded_to<T>(static_cast<Accumulator<T>>(v[i + k]));
        store16(p + i, pack);
      }
      return;
    }
  }
  for (int k = 0; k < N; ++k)
    if (k < size) p[k] = rounded_to<T>(static_cast<Accumulator<T>>(v[k]));
}

/// The elements of an operand of a kernel.
template <class T>
__device__ inline const T* elements_of(const ConstBuffer& buffer) {
  return static_cast<const T*>(buffer.data);
}
template <class T>
__device__ inline T* elements_of(const Buffer& buffer) {
  return static_cast<T*>(buffer.data);
}

/// i / d for i, d >= 0; the short division of the hardware where both fit it.
__device__ inline std::int64_t quotient(std::int64_t i, std::int64_t d) {
  if (((i | d) >> 32) == 0) return static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(d);
  return i / d;
}

}  // namespace sgm
