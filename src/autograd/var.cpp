#include "sgm/autograd/var.h"

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "kernels/elementwise.h"

namespace sgm {

struct Var::Node {
  std::string_view op;  // empty for a leaf
  std::vector<std::shared_ptr<Node>> inputs;
  BackwardFn backward;
  bool uses_sums = false;
  Shape shape;
  std::string layer;         // that recorded it, where there is a recorder
  DType dtype = DType::f32;  // leaves: of the value
  Gradient grad;             // leaves: the accumulated gradient
  LateGradient late;         // leaves: makes it, instead

  bool is_late() const { return late.make != nullptr; }
  Gradient make() const { return late.make(0, shape[0]); }
};

namespace {

/// a + b; in place where nobody else holds a.
Gradient sum_of(Gradient a, const Gradient& b) {
  const Tensor first = std::move(a.tensor), second = b.tensor;
  a.sums = {};
  Tensor sum = first.is_unique() ? first : Tensor::empty(first.context(), first.shape(), first.dtype());
  check(second.dtype() == first.dtype(), "backward: gradients of types ", first.dtype(), " and ",
        second.dtype(), " meet");
  run(AddScaled{first.buffer(), second.buffer(), sum.buffer(), first.numel(), a.factor, b.factor},
      first.context());
  return {sum};
}

/// The same sum of at most `most` terms, 1 at the least.
std::vector<Gradient> merged(std::vector<Gradient> terms, std::size_t most) {
  while (terms.size() > most) {
    terms[1] = sum_of(std::exchange(terms[0], {}), std::exchange(terms[1], {}));
    terms.erase(terms.begin());
  }
  return terms;
}

/// The sum of the terms as one.
Gradient merged(std::vector<Gradient> terms) {
  if (terms.empty()) return {};
  return std::move(merged(std::move(terms), 1).front());
}

/// What a late gradient is made of takes at most this share of its room.
constexpr double kLateShare = 0.75;

/// Ranges around the backward function of an op that a layer recorded; layers may be nameless.
class RuleRange {
 public:
  RuleRange(Context& context, const std::string& layer, std::string_view op) {
    if (!layer.empty()) layer_.emplace(context, layer.c_str());
    rule_.emplace(context, std::string(op).c_str(), RangeKind::rule);
  }

 private:
  std::optional<Range> layer_, rule_;
};

}  // namespace

Saved::Saved(const Tensor& value, Recipe recipe) {
  if (value.context().recomputes())
    recipe_ = std::make_shared<const Recipe>(std::move(recipe));
  else
    kept_ = value;
}

Tensor Gradient::value() const {
  if (factor == 1.0 || !tensor.defined()) return tensor;
  Tensor product = Tensor::empty(tensor.context(), tensor.shape(), tensor.dtype());
  run(AddScaled{tensor.buffer(), {}, product.buffer(), tensor.numel(), factor, 0.0}, tensor.context());
  return product;
}

Var::Var(Tensor value, bool requires_grad) : value_(std::move(value)) {
  if (requires_grad) {
    node_ = std::make_shared<Node>();
    node_->shape = value_.shape();
    node_->dtype = value_.dtype();
  }
}

void Var::set_recipe(Saved::Recipe recipe) {
  if (node_ && value_.context().recomputes())
    recipe_ = std::make_shared<const Saved::Recipe>(std::move(recipe));
}

Gradient Var::gradient() const {
  check(node_ && node_->op.empty(), "grad: only leaves that require a gradient have one");
  return node_->is_late() ? node_->make() : node_->grad;
}

const LateGradient* Var::late_gradient() const { return node_ && node_->is_late() ? &node_->late : nullptr; }

const Tensor& Var::grad() const {
  node_->grad = {gradient().value()};
  node_->late = {};
  return node_->grad.tensor;
}

void Var::zero_grad() {
  if (!node_) return;
  node_->grad = {};
  node_->late = {};
}

bool Var::uses_sums() const { return node_ && node_->uses_sums; }

Var record(std::string_view op, Tensor value, std::vector<Var> inputs, BackwardFn backward, bool uses_sums) {
  Var result(std::move(value));
  if (std::none_of(inputs.begin(), inputs.end(), [](const Var& v) { return v.requires_grad(); }))
    return result;
  result.node_ = std::make_shared<Var::Node>();
  result.node_->op = op;
  result.node_->shape = result.value_.shape();
  result.node_->backward = std::move(backward);
  result.node_->uses_sums = uses_sums;
  if (const Recorder* recorder = result.value_.context().recorder()) result.node_->layer = recorder->layer();
  for (Var& input : inputs) result.node_->inputs.push_back(std::move(input.node_));
  return result;
}

/// One walk back from a value to the targets, or to all leaves when there are none.
class Var::Walk final : public InputGradients {
 public:
  Walk(const Var& from, const Gradient& grad_out, std::span<const Var> targets)
      : to_leaves_(targets.empty()) {
    check(from.node_ != nullptr, "backward: the value depends on nothing that requires a gradient");
    check(grad_out.tensor.shape() == from.shape(), "backward: gradient of shape ", grad_out.tensor.shape(),
          " for a value of shape ", from.shape());
    sort(from.node_.get());
    choose(targets);
    contribute(from.node_.get(), grad_out);
    for (auto node = order_.rbegin(); node != order_.rend(); ++node) visit(**node);
  }

  /// What reached a target.
  Tensor result(const Var& target) {
    settle(target.node_.get());
    return merged(std::move(terms_[target.node_.get()])).value();
  }

  bool wanted(std::size_t input) const override { return is_wanted(node_->inputs[input].get()); }

  void add(std::size_t input, Gradient term) override {
    if (!term.defined() || !wanted(input)) return;
    Node* node = node_->inputs[input].get();
    check(term.tensor.shape() == node->shape, node_->op, ": gradient ", input, " has shape ",
          term.tensor.shape(), ", input has ", node->shape);
    contribute(node, std::move(term));
  }

  std::vector<Gradient> take_others(std::size_t input, std::size_t most) override {
    Node* node = node_->inputs[input].get();
    if (!wanted(input) || is_leaf(node)) return {};
    settle(node);
    return merged(std::exchange(terms_[node], {}), most);
  }

  void add_deferred(std::size_t input, const void* key, Gradient from,
                    std::function<Gradient()> make) override {
    if (!wanted(input)) return;
    Node* node = node_->inputs[input].get();
    if (is_leaf(node)) return add(input, make());
    deferred_[node].push_back({key, std::move(from), std::move(make)});
  }

  Gradient take_deferred(std::size_t input, const void* key) override {
    const auto of_input = deferred_.find(node_->inputs[input].get());
    if (of_input == deferred_.end()) return {};
    std::vector<Deferred>& all = of_input->second;
    const auto found = std::find_if(all.begin(), all.end(), [&](const Deferred& d) { return d.key == key; });
    if (found == all.end()) return {};
    Gradient from = std::move(found->from);
    all.erase(found);
    return from;
  }

  void add_late(std::size_t input, DType dtype, LateGradient late) override {
    if (!wanted(input)) return;
    Node* node = node_->inputs[input].get();
    const bool is_first = to_leaves_ && is_leaf(node) && !node->grad.defined() && !node->is_late();
    const auto makes = static_cast<double>(node->shape.numel()) * static_cast<double>(size_of(dtype));
    if (!is_first || !context_->late_gradients() || static_cast<double>(late.holds) > kLateShare * makes)
      return add(input, late.make(0, node->shape[0]));
    node->late = std::move(late);
    node->late.make = [context = context_, layer = node_->layer, op = node_->op,
                       make = std::move(node->late.make)](std::int64_t first, std::int64_t count) {
      const RuleRange range(*context, layer, op);
      return make(first, count);
    };
  }

  bool wants_sums(std::size_t input) const override {
    const Node* node = node_->inputs[input].get();
    return node && node->uses_sums && wanted(input) && consumers_.at(node) == 1;
  }

  Tensor shared(std::size_t input, DType dtype) override {
    Node* node = node_->inputs[input].get();
    const bool kept = to_leaves_ && is_leaf(node);
    settle(node);
    Gradient sum = kept ? taken(node) : merged(std::exchange(terms_[node], {}));
    if (!sum.defined()) sum.tensor = Tensor::zeros(*context_, node->shape, dtype);
    sum = {sum.value()};
    contribute(node, sum);
    return sum.tensor;
  }

 private:
  struct Deferred {
    const void* key;
    Gradient from;
    std::function<Gradient()> make;
  };

  static bool is_leaf(const Node* node) { return node->op.empty(); }
  bool is_wanted(const Node* node) const { return node && wanted_.contains(node); }

  /// Depth-first topological order, with an explicit stack: networks are hundreds of ops deep.
  void sort(Node* from) {
    std::unordered_set<Node*> visited = {from};
    std::vector<std::pair<Node*, std::size_t>> stack = {{from, 0}};
    while (!stack.empty()) {
      auto& [node, next] = stack.back();
      if (next == node->inputs.size()) {
        order_.push_back(node);
        stack.pop_back();
        continue;
      }
      Node* input = node->inputs[next++].get();
      if (input && visited.insert(input).second) stack.push_back({input, 0});
    }
  }

  /// What leads to a target (everything, when there are none), and how many ops contribute to each.
  void choose(std::span<const Var> targets) {
    for (const Var& target : targets) wanted_.insert(target.node_.get());
    for (Node* node : order_) {
      if (to_leaves_) wanted_.insert(node);
      for (const auto& input : node->inputs)
        if (is_wanted(input.get())) wanted_.insert(node);
    }
    for (const Node* node : order_)
      for (const auto& input : node->inputs)
        if (is_wanted(node) && is_wanted(input.get())) ++consumers_[input.get()];
  }

  void contribute(Node* node, Gradient term) {
    if (!to_leaves_ || !is_leaf(node)) return terms_[node].push_back(std::move(term));
    std::vector<Gradient> both;
    if (Gradient before = taken(node); before.defined()) {
      both.push_back(in_full(std::move(before), node->dtype));
      term = in_full(std::move(term), node->dtype);
    }
    both.push_back(std::move(term));
    node->grad = merged(std::move(both));
  }

  /// What a leaf has so far; it has nothing then.
  static Gradient taken(Node* leaf) {
    if (leaf->is_late()) leaf->grad = leaf->make();
    leaf->late = {};
    return std::exchange(leaf->grad, {});
  }

  /// Makes what nobody took.
  void settle(Node* node) {
    const auto found = deferred_.find(node);
    if (found == deferred_.end()) return;
    for (const Deferred& deferred : std::exchange(found->second, {})) contribute(node, deferred.make());
  }

  /// Gradients come rounded, their sums should not be: what is small beside the sum would be lost.
  static Gradient in_full(Gradient term, DType dtype) {
    if (term.tensor.dtype() == DType::bf16) term.tensor = term.tensor.to(dtype);
    return term;
  }

  void visit(Node& node) {
    if (is_leaf(&node) || !is_wanted(&node)) return;
    check(bool(node.backward), node.op, ": the tape was freed by an earlier backward");
    const BackwardFn backward = std::exchange(node.backward, nullptr);
    settle(&node);
    std::vector<Gradient> terms = std::exchange(terms_[&node], {});
    terms_.erase(&node);
    if (!terms.empty()) {
      node_ = &node;
      context_ = &terms.front().tensor.context();
      const RuleRange range(*context_, node.layer, node.op);
      backward(merged(std::move(terms)), *this);
    }
    for (const auto& input : node.inputs)
      if (is_wanted(input.get())) --consumers_[input.get()];
  }

  bool to_leaves_;
  std::vector<Node*> order_;
  std::unordered_set<const Node*> wanted_;
  std::unordered_map<const Node*, int> consumers_;  // that have not contributed yet
  std::unordered_map<const Node*, std::vector<Gradient>> terms_;
  std::unordered_map<const Node*, std::vector<Deferred>> deferred_;
  const Node* node_ = nullptr;  // whose backward function runs
  Context* context_ = nullptr;
};

void Var::backward(const Gradient& grad_out) const { Walk(*this, grad_out, {}); }

std::vector<Tensor> vjp(const Var& y, const Tensor& cotangent, std::span<const Var> leaves) {
  check(!leaves.empty(), "vjp: no leaves given");
  for (const Var& leaf : leaves) check(leaf.requires_grad(), "vjp: a leaf does not require a gradient");
  Var::Walk walk(y, {cotangent}, leaves);
  std::vector<Tensor> results;
  for (const Var& leaf : leaves) {
    const Tensor grad = walk.result(leaf);
    results.push_back(
        grad.defined() ? grad : Tensor::zeros(leaf.value().context(), leaf.shape(), leaf.value().dtype()));
  }
  return results;
}

}  // namespace sgm
