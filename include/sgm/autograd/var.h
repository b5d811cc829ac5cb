#pragma once
// Reverse-mode differentiation: a tensor on the tape, and the walk back along it. First order only.

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "sgm/tensor/tensor.h"

namespace sgm {

/// A gradient on its way back: factor times tensor, so that scaling costs no pass over memory.
struct Gradient {
  Tensor tensor;
  double factor = 1.0;
  /// Sums of `tensor` over all its dimensions but the last, where the op that wrote it found them on its way.
  Tensor sums = {};
  /// Known to be 1 everywhere: what starts the walk back from a loss.
  bool is_one = false;

  bool defined() const { return tensor.defined(); }
  /// The product itself.
  Tensor value() const;
};

/// A gradient that is made whenever it is needed: part by part to the same bits, which on a CPU are those of
/// the whole. On a GPU the library may add up parts and the whole in different orders.
struct LateGradient {
  std::size_t holds = 0;  // bytes of what it is made of
  bool by_rows = false;   // whether make() makes some rows alone; else only all
  /// Rows first to first + count of it, along its first dimension.
  std::function<Gradient(std::int64_t first, std::int64_t count)> make;
};

/// Where a backward function leaves the gradients of its op's inputs. Contributions of different ops to one
/// input are kept apart until someone needs their sum.
class InputGradients {
 public:
  virtual ~InputGradients() = default;

  virtual bool wanted(std::size_t input) const = 0;
  /// Contributes to the gradient of an input, of the input's shape.
  virtual void add(std::size_t input, Gradient term) = 0;

  /// Takes what other ops have contributed to an input so far, as at most `most` terms, for the op to add
  /// them to its own contribution while it writes that.
  virtual std::vector<Gradient> take_others(std::size_t input, std::size_t most) = 0;
  /// Contributes make(), unless another op that reads the same input takes `from` by the key, and makes that
  /// on its way.
  virtual void add_deferred(std::size_t input, const void* key, Gradient from,
                            std::function<Gradient()> make) = 0;
  /// What was deferred with this key; undefined where nothing was so far. Comes before take_others().
  virtual Gradient take_deferred(std::size_t input, const void* key) = 0;
  /// Contributes what late.make makes, a tensor of this type. Where the context has late gradients, it is a
  /// leaf's only contribution and takes more room than what it is made of, the leaf keeps `late` instead.
  virtual void add_late(std::size_t input, DType dtype, LateGradient late) = 0;
  /// Whether the op that made the input can use Gradient::sums of what this op adds.
  virtual bool wants_sums(std::size_t input) const = 0;
  /// The input's gradient as one tensor, zero at first, for ops that each use a slice of a common input: they
  /// write their slices and add() nothing.
  virtual Tensor shared(std::size_t input, DType dtype) = 0;
};

/// A tensor that a backward function is going to read: kept until then, or made again from what the tape
/// keeps anyway.
class Saved {
 public:
  using Recipe = std::function<Tensor()>;

  Saved() = default;
  explicit Saved(Tensor kept) : kept_(std::move(kept)) {}
  explicit Saved(std::shared_ptr<const Recipe> recipe) : recipe_(std::move(recipe)) {}
  /// The value, or, where its context recomputes, how to make it again, to the bit.
  Saved(const Tensor& value, Recipe recipe);

  Tensor get() const { return recipe_ ? (*recipe_)() : kept_; }

 private:
  Tensor kept_;
  std::shared_ptr<const Recipe> recipe_;
};

/// Contributes to the gradients of an op's inputs, given that of its output. An absent contribution is zero.
using BackwardFn = std::function<void(const Gradient& grad_out, InputGradients& into)>;

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
  /// Whether the op that made it can use Gradient::sums.
  bool uses_sums() const;

  /// How a backward function should keep the value.
  Saved saved() const { return recipe_ ? Saved(recipe_) : Saved(value_); }
  /// Tells how to make the value again, to the bit, in a time that is short beside the step's; without
  /// effect where nothing is going to be differentiated, or where the context does not recompute.
  void set_recipe(Saved::Recipe recipe);

  /// Sum of the gradients that reached this leaf since zero_grad(); absent before the first.
  const Tensor& grad() const;
  /// The same, as the product that it may be.
  Gradient gradient() const;
  /// How to make it, where it is late: gradient() makes it anew at every call, grad() once. Null where it is
  /// not.
  const LateGradient* late_gradient() const;
  void zero_grad();

  /// Back-propagates grad_out (shape of value()) into every leaf, freeing the tape on the way. Throws Error
  /// on a wrong shape, or when the tape was freed already.
  void backward(const Tensor& grad_out) const { backward(Gradient{grad_out}); }
  void backward(const Gradient& grad_out) const;

 private:
  struct Node;
  class Walk;
  friend Var record(std::string_view, Tensor, std::vector<Var>, BackwardFn, bool);
  friend std::vector<Tensor> vjp(const Var&, const Tensor&, std::span<const Var>);

  Tensor value_;
  std::shared_ptr<Node> node_;
  std::shared_ptr<const Saved::Recipe> recipe_;  // absent: the value is kept
};

/// Ends every differentiable op: computes nothing, remembers `backward` if an input needs it. `op` names the
/// op in errors and profiles; uses_sums: backward has a use for Gradient::sums.
Var record(std::string_view op, Tensor value, std::vector<Var> inputs, BackwardFn backward,
           bool uses_sums = false);

/// The vector-Jacobian product cotangent^T dy/d(leaf) for each of `leaves`, touching no leaf's grad(); frees
/// the tape. Leaves that y does not depend on get zeros.
std::vector<Tensor> vjp(const Var& y, const Tensor& cotangent, std::span<const Var> leaves);

}  // namespace sgm
