#pragma once
// Pointwise nonlinearities and their derivatives, shared by every backend.

#include <cmath>
#include <cstdint>
#include <string>

#include "sgm/core/types.h"

namespace sgm {

enum class Activation : std::uint8_t { none, swish, elu, relu, lrelu };

/// "none", "swish", "elu", "relu", "lrelu"; throws Error for another name.
Activation activation_from(const std::string& name);

/// exp(x) to 2 ulp for x in -87 .. 88.
SGM_HD inline float exp_within(float x) {
  constexpr float kRound = 12582912.0f;  // leaves the nearest integer in the last bits
  const float shifted = fmaf(x, 1.44269504f, kRound), n = shifted - kRound;
  float r = fmaf(n, -0.693359375f, x);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p * r, r, r + 1.0f);
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) +
                              (std::bit_cast<std::uint32_t>(shifted) << 23));
}

/// exp(x) to 2 ulp, clamped to exp(-87) .. exp(88); NaN stays NaN. Comparisons, not fminf: only so do CPU
/// compilers vectorise loops over it.
SGM_HD inline float exp_value(float x) {
  const float most = x > 88.0f ? 88.0f : x;
  return most != most ? x : exp_within(most < -87.0f ? -87.0f : most);
}
SGM_HD inline double exp_value(double x) { return exp(x); }

/// 1 / (1 + exp(-x)), of NaN any number. Clamped as an integer: compilers make more of comparisons of floats
/// than of the rest.
SGM_HD inline float sigmoid(float x) {
  constexpr std::uint32_t kSign = 0x80000000u, kMost = std::bit_cast<std::uint32_t>(87.0f);
  const auto bits = std::bit_cast<std::uint32_t>(x), size = bits & ~kSign;
  return 1.0f / (1.0f + exp_within(-std::bit_cast<float>((size < kMost ? size : kMost) | (bits & kSign))));
}
SGM_HD inline double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

/// The activation of x. `A` is a template parameter so that loops over a fixed one vectorise.
template <Activation A, class T>
SGM_HD inline T activate(T x) {
  if constexpr (A == Activation::swish) return x * sigmoid(x);
  if constexpr (A == Activation::elu) return x > T(0) ? x : exp_value(x) - T(1);
  if constexpr (A == Activation::relu) return x < T(0) ? T(0) : x;  // NaN stays NaN
  if constexpr (A == Activation::lrelu) return x > T(0) ? x : T(0.2) * x;
  return x;
}

/// d activate(x) / dx.
template <Activation A, class T>
SGM_HD inline T activate_grad(T x) {
  if constexpr (A == Activation::swish) {
    const T s = sigmoid(x);
    return s * (T(1) + x * (T(1) - s));
  }
  if constexpr (A == Activation::elu) return x > T(0) ? T(1) : exp_value(x);
  if constexpr (A == Activation::relu) return x > T(0) ? T(1) : T(0);
  if constexpr (A == Activation::lrelu) return x > T(0) ? T(1) : T(0.2);
  return T(1);
}

/// Calls body.template operator()<A>() with the activation as a constant.
template <class Body>
void dispatch_activation(Activation activation, Body&& body) {
  switch (activation) {
    case Activation::none: return body.template operator()<Activation::none>();
    case Activation::swish: return body.template operator()<Activation::swish>();
    case Activation::elu: return body.template operator()<Activation::elu>();
    case Activation::relu: return body.template operator()<Activation::relu>();
    case Activation::lrelu: return body.template operator()<Activation::lrelu>();
  }
}

}  // namespace sgm
