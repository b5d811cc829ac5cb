#pragma once
// Reverse-mode differentiation: a tensor on the tape, and the walk back along it. First order only.

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "sgm/tensor/tensor.h"

namespace sgm {

/// Takes dL/d(output) and, for each input, whether its gradient is wanted; returns dL/d(input i), absent
/// where not wanted.
using BackwardFn =
    std::function<std::vector<Tensor>(const Tensor& grad_out, const std::vector<bool>& wanted)>;

/// A tensor on the tape. Networks, differentiable ops and losses see Var; SDEs and samplers see Tensor.
/// Copies share the tensor and its place on the tape. The tape keeps what gradients need, not the values in
/// between.
class Var {
 public:
  Var() = default;
  /// A leaf. With requires_grad, backward() accumulates into grad().
  explicit Var(Tensor value, bool requires_grad = false);

  const Tensor& value() const { return value_; }
  Tensor& value() { return value_; }
  const Shape& shape() const { return value_.shape(); }
  bool defined() const { return value_.defined(); }
  bool requires_grad() const { return node_ != nullptr; }

  /// Sum of the gradients that reached this leaf since zero_grad(); absent before the first.
  const Tensor& grad() const;
  void zero_grad();

  /// Back-propagates grad_out (shape of value()) into every leaf, freeing the tape on the way. Throws Error
  /// on a wrong shape, or when the tape was freed already.
  void backward(const Tensor& grad_out) const;

 private:
  struct Node;
  friend Var record(std::string_view, Tensor, std::vector<Var>, BackwardFn);
  friend std::vector<Tensor> vjp(const Var&, const Tensor&, std::span<const Var>);
  static std::vector<Tensor> walk(const Var& from, const Tensor& grad_out, std::span<const Var> targets);

  Tensor value_;
  std::shared_ptr<Node> node_;
};

/// Ends every differentiable op: computes nothing, remembers `backward` if an input needs it. `op` names the
/// op in errors and profiles.
Var record(std::string_view op, Tensor value, std::vector<Var> inputs, BackwardFn backward);

/// The vector-Jacobian product cotangent^T dy/d(leaf) for each of `leaves`, touching no leaf's grad(); frees
/// the tape. Leaves that y does not depend on get zeros.
std::vector<Tensor> vjp(const Var& y, const Tensor& cotangent, std::span<const Var> leaves);

}  // namespace sgm
