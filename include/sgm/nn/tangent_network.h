#pragma once
// Networks that are differentiated twice: their derivatives along a direction are on the tape themselves.

#include "sgm/nn/module.h"

namespace sgm {

/// A score network that offers its Jacobian's products with directions as something to train on. Small
/// networks only do: every op of theirs needs a tangent.
class TangentNetwork : public ScoreNetwork {
 public:
  struct Tangent {
    Var output;   // forward(x)
    Var tangent;  // J v, of the shape of v
  };
  /// J = d forward / dx. v [K N, H, W, C] holds K directions for every one of x [N, H, W, C], one batch after
  /// the other.
  virtual Tangent forward_tangent(const Var& x, const Tensor& v, const Tensor& noise_label,
                                  const ForwardMode& mode) = 0;

  /// E [N, 1] with forward = -grad_x E. Throws Error for a network that is no gradient (model.energy =
  /// false).
  virtual Var energy(const Var& x, const Tensor& noise_label) = 0;
};

}  // namespace sgm
