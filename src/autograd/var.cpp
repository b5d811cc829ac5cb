#include "sgm/autograd/var.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "kernels/elementwise.h"

namespace sgm {

struct Var::Node {
  std::string_view op;  // empty for a leaf
  std::vector<std::shared_ptr<Node>> inputs;
  BackwardFn backward;
  Shape shape;
  Tensor grad;  // leaves: the accumulated gradient
};

namespace {

/// sum += term, in place when nobody else holds the sum.
void accumulate(Tensor& sum, const Tensor& term) {
  if (!term.defined()) return;
  if (!sum.defined()) {
    sum = term;
    return;
  }
  Tensor result = sum.is_unique() ? sum : Tensor::empty(sum.context(), sum.shape(), sum.dtype());
  run(AddScaled{sum.const_buffer(), term.buffer(), result.buffer(), sum.numel(), 1.0, 1.0}, sum.context());
  sum = result;
}

}  // namespace

Var::Var(Tensor value, bool requires_grad) : value_(std::move(value)) {
  if (requires_grad) {
    node_ = std::make_shared<Node>();
    node_->shape = value_.shape();
  }
}

const Tensor& Var::grad() const {
  check(node_ && node_->op.empty(), "grad: only leaves that require a gradient have one");
  return node_->grad;
}

void Var::zero_grad() {
  if (node_) node_->grad = Tensor();
}

Var record(std::string_view op, Tensor value, std::vector<Var> inputs, BackwardFn backward) {
  Var result(std::move(value));
  if (std::none_of(inputs.begin(), inputs.end(), [](const Var& v) { return v.requires_grad(); }))
    return result;
  result.node_ = std::make_shared<Var::Node>();
  result.node_->op = op;
  result.node_->shape = result.value_.shape();
  result.node_->backward = std::move(backward);
  for (Var& input : inputs) result.node_->inputs.push_back(std::move(input.node_));
  return result;
}

/// Gradients of the targets (all leaves, accumulated into them, when there are no targets).
std::vector<Tensor> Var::walk(const Var& from, const Tensor& grad_out, std::span<const Var> targets) {
  check(from.node_ != nullptr, "backward: the value depends on nothing that requires a gradient");
  check(grad_out.shape() == from.shape(), "backward: gradient of shape ", grad_out.shape(),
        " for a value of shape ", from.shape());

  // Depth-first topological order, with an explicit stack: networks are hundreds of ops deep.
  std::vector<Node*> order;
  std::unordered_set<Node*> visited;
  std::vector<std::pair<Node*, std::size_t>> stack = {{from.node_.get(), 0}};
  visited.insert(from.node_.get());
  while (!stack.empty()) {
    auto& [node, next] = stack.back();
    if (next == node->inputs.size()) {
      order.push_back(node);
      stack.pop_back();
      continue;
    }
    Node* input = node->inputs[next++].get();
    if (input && visited.insert(input).second) stack.push_back({input, 0});
  }

  // What leads to a target; everything, when there are none.
  std::unordered_set<Node*> wanted = targets.empty() ? visited : std::unordered_set<Node*>();
  for (const Var& target : targets) wanted.insert(target.node_.get());
  for (Node* node : order)
    for (const auto& input : node->inputs)
      if (input && wanted.contains(input.get())) wanted.insert(node);

  std::unordered_map<Node*, Tensor> grads = {{from.node_.get(), grad_out}};
  if (targets.empty() && from.node_->op.empty()) accumulate(from.node_->grad, grad_out);
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    Node* node = *it;
    if (node->op.empty() || !wanted.contains(node)) continue;
    check(bool(node->backward), node->op, ": the tape was freed by an earlier backward");
    Tensor grad = std::move(grads[node]);
    grads.erase(node);
    const BackwardFn backward = std::exchange(node->backward, nullptr);
    if (!grad.defined()) continue;
    std::vector<bool> flags;
    for (const auto& input : node->inputs) flags.push_back(input && wanted.contains(input.get()));
    std::vector<Tensor> input_grads = backward(grad, flags);
    grad = Tensor();
    for (std::size_t i = 0; i < node->inputs.size(); ++i) {
      if (!flags[i]) continue;
      Node* input = node->inputs[i].get();
      check(input_grads[i].defined() && input_grads[i].shape() == input->shape, node->op, ": gradient ", i,
            " has shape ", input_grads[i].shape(), ", input has ", input->shape);
      const bool to_leaf = targets.empty() && input->op.empty();
      accumulate(to_leaf ? input->grad : grads[input], std::exchange(input_grads[i], Tensor()));
    }
  }
  std::vector<Tensor> results;
  for (const Var& target : targets) {
    const Tensor& grad = grads[target.node_.get()];
    results.push_back(grad.defined()
                          ? grad
                          : Tensor::zeros(target.value_.context(), target.shape(), target.value_.dtype()));
  }
  return results;
}

void Var::backward(const Tensor& grad_out) const { walk(*this, grad_out, {}); }

std::vector<Tensor> vjp(const Var& y, const Tensor& cotangent, std::span<const Var> leaves) {
  check(!leaves.empty(), "vjp: no leaves given");
  for (const Var& leaf : leaves) check(leaf.requires_grad(), "vjp: a leaf does not require a gradient");
  return Var::walk(y, cotangent, leaves);
}

}  // namespace sgm
