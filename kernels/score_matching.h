#pragma once
// Score matching without the perturbation kernel: derivatives of activations, which tangents are made of,
// random directions, and the losses that differentiate along them.

#include "kernels/op.h"
#include "sgm/core/activation.h"
#include "sgm/core/random.h"

namespace sgm {

/// The derivative of order 0 to 3 of an activation that has them all: none or swish. Both are template
/// parameters so that loops over fixed ones vectorise.
template <Activation A, int Order, class T>
SGM_HD inline T derivative(T x) {
  if constexpr (A == Activation::none) return Order == 0 ? x : T(Order == 1 ? 1 : 0);
  const T s = T(1) / (T(1) + exp_value(-x));  // and its derivatives
  if constexpr (Order == 0) return x * s;
  const T s1 = s * (T(1) - s);
  if constexpr (Order == 1) return s + x * s1;
  const T s2 = s1 * (T(1) - T(2) * s);
  if constexpr (Order == 2) return T(2) * s1 + x * s2;
  return T(3) * s2 + x * s1 * (T(1) - T(6) * s1);
}

/// A derivative of an activation, by name.
struct Derivative {
  Activation activation;
  int order;

  /// Calls body.template operator()<activation, order>().
  template <class Body>
  void dispatch(Body&& body) const {
    constexpr auto kNone = Activation::none, kSwish = Activation::swish;
    const bool none = activation == kNone;
    switch (order) {
      case 0: return none ? body.template operator()<kNone, 0>() : body.template operator()<kSwish, 0>();
      case 1: return none ? body.template operator()<kNone, 1>() : body.template operator()<kSwish, 1>();
      case 2: return none ? body.template operator()<kNone, 2>() : body.template operator()<kSwish, 2>();
      default: return none ? body.template operator()<kNone, 3>() : body.template operator()<kSwish, 3>();
    }
  }
  template <class T>
  SGM_HD T of(T x) const {
    if (activation == Activation::none) return order == 0 ? x : T(order == 1 ? 1 : 0);
    switch (order) {
      case 0: return derivative<Activation::swish, 0>(x);
      case 1: return derivative<Activation::swish, 1>(x);
      case 2: return derivative<Activation::swish, 2>(x);
      default: return derivative<Activation::swish, 3>(x);
    }
  }
};

/// y[k, :] = f(x) v[k, :].
struct DerivativeProduct {
  ConstBuffer x;  // [n]
  ConstBuffer v;  // [copies, n]
  Buffer y;       // [copies, n]
  std::int64_t n, copies;
  Derivative f;
  OpCost cost() const { return {bytes_of(x, n) + bytes_of({v, y}, copies * n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dx = f(x) times the sum over k of v[k, :] dy[k, :], in a fixed order; f is the derivative of the one
/// above.
struct DerivativeProductGrad {
  ConstBuffer x;      // [n]
  ConstBuffer v, dy;  // [copies, n]
  Buffer dx;          // [n]
  std::int64_t n, copies;
  Derivative f;
  OpCost cost() const { return {bytes_of({x, dx}, n) + bytes_of({v, dy}, copies * n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y = 1 or -1, each with probability 1/2: element e of image i is drawn from `key` at (i, e).
struct RandomSigns {
  Buffer y;  // [n, per_image]
  std::int64_t n, per_image;
  NoiseKey key;
  OpCost cost() const { return {bytes_of(y, n * per_image)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// Score matching along directions v_k, given the output and its derivative along each:
///   loss = weight reduction sum_k (q_k + 2 a <v_k, tangent_k>),
///   q_k = (a <v_k, net>)^2 where projected, else |a net|^2;
///   dnet, dtangent = d(mean over images of loss) / d net, d tangent.
/// reduction is one over the elements of an image, or one half.
struct DirectionalLoss {
  ConstBuffer net;         // [n, per]
  ConstBuffer tangent, v;  // [copies, n, per]
  ConstBuffer a, weight;   // [n], f64
  Buffer loss;             // [n], f64
  Buffer dnet;             // [n, per], type of net
  Buffer dtangent;         // [copies, n, per], type of net
  std::int64_t n, per, copies;
  bool projected, reduce_mean;
  OpCost cost() const {
    return {bytes_of({net, dnet}, n * per) + bytes_of({tangent, v, dtangent}, copies * n * per) +
            bytes_of({a, weight, loss}, n)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;

  static constexpr std::int64_t kMostCopies = 64;
};

}  // namespace sgm
