#pragma once
// cuDNN's graph API with owners and types: descriptors, what engines say of themselves, execution plans. It
// needs no device to ask which engines would run a graph on one that a text describes.

#include <cudnn_graph.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace sgm::cudnn {

/// Throws Error naming the call, what it was for, and cuDNN's reason.
void require(cudnnStatus_t status, const char* call, const std::string& what);

/// "9.19.0" and the like, of the library that is loaded.
std::string version();

class Descriptor;

/// The tag cuDNN gives to attribute values of type T.
template <class T>
constexpr cudnnBackendAttributeType_t attribute_type() {
  if constexpr (std::is_same_v<T, std::int64_t>) return CUDNN_TYPE_INT64;
  if constexpr (std::is_same_v<T, std::int32_t>) return CUDNN_TYPE_INT32;
  if constexpr (std::is_same_v<T, float>) return CUDNN_TYPE_FLOAT;
  if constexpr (std::is_same_v<T, double>) return CUDNN_TYPE_DOUBLE;
  if constexpr (std::is_same_v<T, bool>) return CUDNN_TYPE_BOOLEAN;
  if constexpr (std::is_same_v<T, char>) return CUDNN_TYPE_CHAR;
  if constexpr (std::is_same_v<T, void*>) return CUDNN_TYPE_VOID_PTR;
  if constexpr (std::is_same_v<T, cudnnHandle_t>) return CUDNN_TYPE_HANDLE;
  if constexpr (std::is_same_v<T, cudnnDataType_t>) return CUDNN_TYPE_DATA_TYPE;
  if constexpr (std::is_same_v<T, cudnnConvolutionMode_t>) return CUDNN_TYPE_CONVOLUTION_MODE;
  if constexpr (std::is_same_v<T, cudnnPointwiseMode_t>) return CUDNN_TYPE_POINTWISE_MODE;
  if constexpr (std::is_same_v<T, cudnnBackendHeurMode_t>) return CUDNN_TYPE_HEUR_MODE;
  if constexpr (std::is_same_v<T, cudnnBackendKnobType_t>) return CUDNN_TYPE_KNOB_TYPE;
  if constexpr (std::is_same_v<T, cudnnBackendNumericalNote_t>) return CUDNN_TYPE_NUMERICAL_NOTE;
  if constexpr (std::is_same_v<T, cudnnBackendBehaviorNote_t>) return CUDNN_TYPE_BEHAVIOR_NOTE;
}

/// One backend descriptor. Errors are Error; `what` of the constructor appears in them. Descriptors that
/// refer to others (an operation to its tensors) copy what they need when finalized.
class Descriptor {
 public:
  Descriptor(cudnnBackendDescriptorType_t type, std::string what);

  cudnnBackendDescriptor_t get() const { return handle_.get(); }

  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, std::span<const T> values) {
    return set(name, attribute_type<T>(), static_cast<std::int64_t>(values.size()), values.data());
  }
  template <class T>
  requires(std::is_scalar_v<T>) Descriptor& set(cudnnBackendAttributeName_t name,
                                                const std::vector<T>& values) {
    return set(name, std::span<const T>(values));
  }
  template <class T>
  requires(std::is_scalar_v<T>) Descriptor& set(cudnnBackendAttributeName_t name, T value) {
    return set(name, std::span<const T>(&value, 1));
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value);
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<Descriptor>& values);
  Descriptor& finalize();

  /// Up to `most` values of an attribute.
  template <class T>
  std::vector<T> get(cudnnBackendAttributeName_t name, std::size_t most) const {
    std::vector<T> values(most);
    values.resize(get(name, attribute_type<T>(), most, values.data()));
    return values;
  }
  /// The value of an attribute that has one.
  template <class T>
  T get(cudnnBackendAttributeName_t name) const {
    return get<T>(name, 1).at(0);
  }
  /// Up to `most` descriptors of an attribute that holds descriptors of `type`.
  std::vector<Descriptor> get(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type,
                              std::size_t most) const;

 private:
  struct Destroy {
    void operator()(void* descriptor) const { cudnnBackendDestroyDescriptor(descriptor); }
  };
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                  const void* values);
  std::size_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::size_t most,
                  void* values) const;

  std::unique_ptr<void, Destroy> handle_;
  std::string what_;
};

/// The device that graphs are for: one that is here, through its handle, or one that a text describes.
class Target {
 public:
  explicit Target(cudnnHandle_t handle) : handle_(handle) {}
  /// `json`: what cuDNN calls the JSON representation of device properties.
  explicit Target(const std::string& json);

  cudnnHandle_t handle() const { return handle_; }
  /// Names the device to a descriptor that has an attribute for a handle and one for properties.
  void name_in(Descriptor& descriptor, cudnnBackendAttributeName_t handle_name,
               cudnnBackendAttributeName_t properties_name) const;
  /// Names the device, if it is described by a text, to a descriptor that takes its handle from the graph.
  void name_in(Descriptor& descriptor, cudnnBackendAttributeName_t properties_name) const;

 private:
  cudnnHandle_t handle_ = nullptr;
  std::shared_ptr<Descriptor> properties_;
};

/// An engine and the values of its knobs, as text for files: "62", "62:2=5,14=3".
struct EngineChoice {
  std::int64_t engine = -1;
  std::vector<std::pair<std::int64_t, std::int64_t>> knobs;  // type, value

  std::string text() const;
  /// Throws Error for text that text() does not write.
  static EngineChoice parse(const std::string& text);
};

/// What an engine says of its results.
struct EngineNotes {
  bool tensor_core = false;        // products in less than f32, where operands are f32
  bool down_converts = false;      // operands are rounded first
  bool reduced_reduction = false;  // sums in less than f32
  bool winograd = false;           // transforms that cost accuracy
  bool nondeterministic = false;
};

/// One finalized plan.
class Plan {
 public:
  Plan(const Target& target, const Descriptor& graph, const EngineChoice& choice, const std::string& what);
  Plan(const Target& target, const Descriptor& engine_config, const std::string& what);

  const EngineChoice& choice() const { return choice_; }
  const EngineNotes& notes() const { return notes_; }
  std::size_t workspace() const { return workspace_; }

  /// Puts the plan's kernels on the stream of `handle`.
  void execute(cudnnHandle_t handle, std::span<const std::int64_t> ids, std::span<void* const> pointers,
               void* workspace) const;

 private:
  void read_notes(const Descriptor& engine);

  std::string what_;
  Descriptor plan_;
  EngineChoice choice_;
  EngineNotes notes_;
  std::size_t workspace_ = 0;
};

/// Engine configurations that cuDNN proposes for a graph, best first; none where it has none, with its reason
/// in `why_none`.
std::vector<Descriptor> proposals(const Target& target, const Descriptor& graph, cudnnBackendHeurMode_t mode,
                                  const std::string& what, std::string* why_none);

/// The engine of a configuration.
Descriptor engine_of(const Descriptor& engine_config);

/// Whether an engine's code is compiled when a plan with it is finalized.
bool compiles_at_run_time(const Descriptor& engine);

}  // namespace sgm::cudnn
