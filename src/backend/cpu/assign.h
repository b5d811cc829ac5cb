#pragma once

namespace sgm {

/// to = T(value). GCC 12 vectorises no loop under `omp simd` that makes an object of class type, as bfloat16
/// is, in its own body; one that a function makes it does.
template <class T, class A>
inline void assign(T& to, A value) {
  to = T(value);
}

}  // namespace sgm
