#pragma once
// Module: named parameters in a tree. ScoreNetwork: what the table of networks builds.

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sgm/autograd/var.h"
#include "sgm/core/config.h"
#include "sgm/core/random.h"

namespace sgm {

/// How a published checkpoint stores (part of) a parameter.
struct ReferencePart {
  enum class Layout {
    same,
    oihw,
    transposed
  };                 // as ours; conv weights; [in, out] matrices of 1x1 convolutions
  std::string name;  // e.g. "all_modules.3.weight"
  Layout layout = Layout::same;
  std::int64_t first_row = 0, rows = -1;  // which rows of our tensor; -1: all
};

struct Parameter {
  std::string name;  // module path, e.g. "down.1.block0.conv1.weight"
  Var* var;
  bool trainable;                        // false: stored, never updated (Fourier frequencies)
  std::vector<ReferencePart> reference;  // names in published checkpoints
};

/// Where and how new parameters are made: every one gets its own random stream of `seed`.
struct Builder {
  Context& context;
  std::uint64_t seed = 0;
  DType dtype = DType::f32;
  std::uint32_t parameters = 0;  // made so far
  std::uint32_t dropouts = 0;    // dropout layers made so far
  bool draw = true;              // false: leave random parameters uninitialised, for a checkpoint to fill

  /// U(-bound, bound).
  Tensor uniform(Shape shape, double bound);
  /// N(0, std^2).
  Tensor normal(Shape shape, double std);
  Tensor constant(Shape shape, double value);
};

/// Owns named parameters and submodules in construction order. forward() is not virtual here: each module has
/// the signature that its mathematics wants.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Depth first, with dotted names.
  std::vector<Parameter> parameters();
  /// Turns gradients of all trainable parameters on or off; off also lets backends keep packed weights.
  void set_requires_grad(bool on);
  /// Its name in the module that owns it, e.g. "down.1.block0"; profilers show it.
  const std::string& name() const { return name_; }

 protected:
  /// Around a layer's forward pass on the device of x.
  [[nodiscard]] Range range(const Var& x) const { return {x.value().context(), name_.c_str()}; }

  /// `reference` parts are relative to this module's reference name.
  Var& add_parameter(std::string name, Tensor value, std::vector<ReferencePart> reference,
                     bool trainable = true);
  /// A submodule; `reference` is its name in published checkpoints, empty to share this module's.
  template <class M, class... Args>
  M& add_module(std::string name, std::string reference, Args&&... args) {
    auto child = std::make_unique<M>(std::forward<Args>(args)...);
    M& result = *child;
    static_cast<Module&>(result).name_ = name;
    children_.push_back({std::move(name), std::move(reference), std::move(child)});
    return result;
  }

 private:
  struct Own {
    std::string name;
    Var var;
    bool trainable;
    std::vector<ReferencePart> reference;
  };
  struct Child {
    std::string name, reference;
    std::unique_ptr<Module> module;
  };
  void collect(const std::string& prefix, const std::string& reference, std::vector<Parameter>& out);

  std::string name_;
  std::deque<Own> own_;  // stable addresses: layers keep references to their Vars
  std::vector<Child> children_;
};

/// How a forward pass runs.
struct ForwardMode {
  DType compute = DType::f32;  // storage of activations: f32 or bf16 (f64 networks: f64)
  bool training = false;       // dropout on
  NoiseKey noise;              // seed, step and first sample of the dropout masks
};

/// A network that sees a noisy batch and one noise label per image, and returns the shape of the batch.
class ScoreNetwork : public Module {
 public:
  /// x [N, H, W, C] f32 (f64 for f64 networks), noise_label [N] f64 -> [N, H, W, C].
  virtual Var forward(const Var& x, const Tensor& noise_label, const ForwardMode& mode) = 0;
};

/// Builds the network that config.model names, initialised as the original from config.training.seed.
/// Throws Error for an unknown name or impossible options. dtype: f32, or f64 for checks.
/// initialise = false leaves the weights undefined, for a checkpoint to fill.
std::unique_ptr<ScoreNetwork> create_network(const Config& config, Context& context, DType dtype = DType::f32,
                                             bool initialise = true);
std::vector<std::string> network_names();

/// Shape of a part in the published layout.
Shape reference_shape(const Tensor& value, const ReferencePart& part);
/// Values of a part in the published layout, and the way back. Throws Error when the count does not fit.
std::vector<double> to_reference(const Tensor& value, const ReferencePart& part);
void from_reference(Tensor& value, const ReferencePart& part, std::span<const double> published);

}  // namespace sgm
