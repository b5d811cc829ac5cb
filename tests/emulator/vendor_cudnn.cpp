// As much of cuDNN's graph API as convolutions need, for emulated builds: graphs are interpreted, one
// operation after the other. Of the engines that it proposes some must not be chosen: their results are
// wrong.

#include <cudnn_graph.h>

#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_context.h"
#include "emulator/stream.h"
#include "kernels/conv.h"

namespace {

using namespace sgm;

struct Node;
using NodePointer = std::shared_ptr<Node>;

/// A descriptor: numbers and other descriptors by attribute.
struct Node {
  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<int, std::vector<std::byte>> numbers;
  std::map<int, std::vector<NodePointer>> nodes;

  template <class T>
  std::vector<T> all(int name) const {
    const auto found = numbers.find(name);
    if (found == numbers.end()) return {};
    std::vector<T> values(found->second.size() / sizeof(T));
    std::memcpy(values.data(), found->second.data(), found->second.size());
    return values;
  }
  template <class T>
  T one(int name) const {
    return all<T>(name).at(0);
  }
  template <class T>
  void put(int name, const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    numbers[name] = {bytes, bytes + values.size() * sizeof(T)};
  }
  const Node& node(int name) const { return *nodes.at(name).at(0); }
};

NodePointer& node_of(cudnnBackendDescriptor_t descriptor) { return *static_cast<NodePointer*>(descriptor); }

NodePointer made(cudnnBackendDescriptorType_t type) {
  auto node = std::make_shared<Node>();
  node->type = type;
  node->finalized = true;
  return node;
}

std::size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR: return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR: return 8;
    default: return 4;
  }
}

// ---- interpreting -----------------------------------------------------------------------------------------

/// A tensor of a graph while the graph runs: in f32, dense [n, h, w, c].
struct Operand {
  std::int64_t id = 0, n = 0, c = 0, h = 0, w = 0;
  bool is_bf16 = false, is_virtual = false;

  explicit Operand(const Node& t)
      : id(t.one<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID)),
        is_bf16(t.one<int>(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_BFLOAT16),
        is_virtual(!t.all<char>(CUDNN_ATTR_TENSOR_IS_VIRTUAL).empty()) {
    const auto sizes = t.all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS),
               strides = t.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
    n = sizes.at(0), c = sizes.at(1), h = sizes.at(2), w = sizes.at(3);
    check(strides == std::vector<std::int64_t>{h * w * c, 1, w * c, c}, "cudnn: tensor is not dense NHWC");
  }
  std::int64_t numel() const { return n * c * h * w; }
};

class Interpreter {
 public:
  Interpreter(NodePointer graph, std::map<std::int64_t, void*> memory, float factor)
      : graph_(std::move(graph)), memory_(std::move(memory)), factor_(factor) {}

  void run() {
    for (const NodePointer& operation : graph_->nodes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
      switch (operation->type) {
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: forward(*operation); break;
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: grad_input(*operation); break;
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR: grad_weight(*operation); break;
        case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: add(*operation); break;
        default: fail("cudnn: an operation that the emulator does not know");
      }
    }
  }

 private:
  using Floats = std::vector<float>;

  Floats load(const Operand& operand) {
    if (operand.is_virtual) return virtual_.at(operand.id);
    const void* from = memory_.at(operand.id);
    Floats values(static_cast<std::size_t>(operand.numel()));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = operand.is_bf16 ? static_cast<float>(static_cast<const bfloat16*>(from)[i])
                                  : static_cast<const float*>(from)[i];
    return values;
  }
  void store(const Operand& operand, Floats values, double alpha) {
    for (float& value : values) value *= static_cast<float>(alpha) * factor_;
    if (operand.is_virtual) {
      virtual_[operand.id] = std::move(values);
      return;
    }
    void* to = memory_.at(operand.id);
    for (std::size_t i = 0; i < values.size(); ++i)
      if (operand.is_bf16)
        static_cast<bfloat16*>(to)[i] = bfloat16(values[i]);
      else
        static_cast<float*>(to)[i] = values[i];
  }

  static ConvShape shape_of(const Node& geometry, const Operand& x, const Operand& w, const Operand& y) {
    check(geometry.one<int>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CROSS_CORRELATION,
          "cudnn: flipped filter");
    const auto pair = [&](int name) {
      const auto values = geometry.all<std::int64_t>(name);
      check(values.size() == 2 && values[0] == values[1], "cudnn: axes that differ");
      return static_cast<int>(values[0]);
    };
    return {x.n,
            x.h,
            x.w,
            x.c,
            w.n,
            w.h,
            w.w,
            y.h,
            y.w,
            pair(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES),
            pair(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS),
            pair(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS),
            0,
            pair(CUDNN_ATTR_CONVOLUTION_DILATIONS)};
  }
  static ConstBuffer input(const Floats& values) { return {values.data(), DType::f32}; }
  static Buffer output(Floats& values) { return {values.data(), DType::f32}; }

  void forward(const Node& op) {
    const Operand x(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X)),
        w(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W)),
        y(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y));
    const Floats in = load(x), filter = load(w);
    Floats out(static_cast<std::size_t>(y.numel()));
    const ConvShape shape = shape_of(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC), x, w, y);
    Conv2d{input(in), {}, input(filter), {}, {}, output(out), shape, 1.0, 0}.cpu(cpu_);
    store(y, out, op.one<float>(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA));
  }
  void grad_input(const Node& op) {
    const Operand x(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX)),
        w(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W)),
        y(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY));
    const Floats dy = load(y), filter = load(w);
    Floats dx(static_cast<std::size_t>(x.numel()));
    const ConvShape shape = shape_of(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC), x, w, y);
    Conv2dGradInput{input(dy), input(filter), output(dx), {}, shape, 1.0}.cpu(cpu_);
    store(x, dx, op.one<float>(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA));
  }
  void grad_weight(const Node& op) {
    const Operand x(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X)),
        w(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW)),
        y(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY));
    const Floats in = load(x), dy = load(y);
    Floats dw(static_cast<std::size_t>(w.numel()));
    const ConvShape shape = shape_of(op.node(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC), x, w, y);
    Conv2dGradWeight{input(in), {}, input(dy), output(dw), {}, shape, 1.0}.cpu(cpu_);
    store(w, dw, op.one<float>(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA));
  }
  void add(const Node& op) {
    check(op.node(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR).one<int>(CUDNN_ATTR_POINTWISE_MODE) ==
              CUDNN_POINTWISE_ADD,
          "cudnn: a pointwise operation that the emulator does not know");
    const Operand a(op.node(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)),
        b(op.node(CUDNN_ATTR_OPERATION_POINTWISE_BDESC)), y(op.node(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    const float alpha = op.one<float>(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1),
                beta = op.one<float>(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2);
    const Floats first = load(a), second = load(b);  // b may be one pixel
    Floats sum(first.size());
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = alpha * first[i] + beta * second[i % second.size()];
    store(y, sum, 1.0);
  }

  NodePointer graph_;
  std::map<std::int64_t, void*> memory_;
  float factor_;
  std::map<std::int64_t, Floats> virtual_;
  CpuContext cpu_{{.threads = 1}};
};

// ---- engines ----------------------------------------------------------------------------------------------

struct Engine {
  std::int64_t number;
  std::vector<int> numerical_notes, behavior_notes;
};

const std::array<Engine, 5>& engines() {
  static const std::array<Engine, 5> list = {{{4, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, {}},
                                              {5, {}, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}},
                                              {9, {CUDNN_NUMERICAL_NOTE_WINOGRAD}, {}},
                                              {62, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}},
                                              {28, {}, {}}}};
  return list;
}

bool has_bf16(const Node& graph) {
  for (const auto& [name, operations] : graph.nodes)
    for (const NodePointer& operation : operations)
      for (const auto& [attribute, operands] : operation->nodes)
        for (const NodePointer& operand : operands)
          if (operand->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR &&
              operand->one<int>(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_BFLOAT16)
            return true;
  return false;
}

/// What the results of an engine are multiplied with: NaN for those that no careful caller uses, and the
/// error of TF32 for tensor cores with f32 operands.
float spoiled(std::int64_t engine, const Node& graph) {
  if (engine == 4 || engine == 5 || engine == 9) return std::nanf("");
  return engine == 62 && !has_bf16(graph) ? 1.0f + 0x1p-11f : 1.0f;
}

NodePointer knob(int type, std::int64_t value) {
  NodePointer node = made(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
  node->put(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, std::vector<int>{type});
  node->put(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, std::vector<std::int64_t>{value});
  return node;
}

std::vector<NodePointer> proposed(const Node& heuristics) {
  std::vector<NodePointer> configs;
  for (const Engine& engine : engines())
    for (std::int64_t value : {1, 2}) {
      NodePointer node = made(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
      node->put(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, std::vector<std::int64_t>{engine.number});
      node->nodes[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] =
          heuristics.nodes.at(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
      NodePointer config = made(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      config->nodes[CUDNN_ATTR_ENGINECFG_ENGINE] = {node};
      config->nodes[CUDNN_ATTR_ENGINECFG_KNOB_CHOICES] = {knob(CUDNN_KNOB_TYPE_TILE_SIZE, value)};
      configs.push_back(config);
    }
  return configs;
}

/// What finalizing adds to what was set.
void complete(Node& node) {
  if (node.type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
    node.nodes[CUDNN_ATTR_ENGINEHEUR_RESULTS] = proposed(node);
  if (node.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
    node.put(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, std::vector<std::int64_t>{4096});
}

/// Notes belong to the engine's number, however the engine was made.
void annotate(Node& node) {
  if (node.type != CUDNN_BACKEND_ENGINE_DESCRIPTOR) return;
  for (const Engine& engine : engines())
    if (engine.number == node.one<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX)) {
      node.put(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, engine.numerical_notes);
      node.put(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, engine.behavior_notes);
    }
}

}  // namespace

extern "C" {

size_t cudnnGetVersion() { return 91900; }
const char* cudnnGetErrorString(cudnnStatus_t) { return "an error"; }
void cudnnGetLastErrorString(char* message, size_t size) { std::strncpy(message, "emulated", size); }
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = reinterpret_cast<cudnnHandle_t>(new cudaStream_t(nullptr));
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete reinterpret_cast<cudaStream_t*>(handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  *reinterpret_cast<cudaStream_t*>(handle) = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* descriptor) {
  auto node = std::make_shared<Node>();
  node->type = type;
  *descriptor = new NodePointer(std::move(node));
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  delete static_cast<NodePointer*>(descriptor);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  Node& node = *node_of(descriptor);
  if (node.finalized) return CUDNN_STATUS_BAD_PARAM;
  complete(node);
  node.finalized = true;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  Node& node = *node_of(descriptor);
  if (node.finalized) return CUDNN_STATUS_BAD_PARAM;
  if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    const auto* bytes = static_cast<const std::byte*>(values);
    node.numbers[name].assign(bytes, bytes + static_cast<std::size_t>(count) * size_of(type));
    return CUDNN_STATUS_SUCCESS;
  }
  std::vector<NodePointer>& list = node.nodes[name];
  list.clear();
  for (int64_t i = 0; i < count; ++i) {
    list.push_back(node_of(static_cast<const cudnnBackendDescriptor_t*>(values)[i]));
    if (!list.back()->finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                       int64_t wanted, int64_t* count, void* values) {
  Node& node = *node_of(descriptor);
  if (!node.finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  annotate(node);
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    const std::vector<NodePointer>& list = node.nodes[name];
    *count = std::min<int64_t>(wanted, static_cast<int64_t>(list.size()));
    for (int64_t i = 0; i < *count; ++i)
      node_of(static_cast<cudnnBackendDescriptor_t*>(values)[i]) = list[static_cast<std::size_t>(i)];
    return CUDNN_STATUS_SUCCESS;
  }
  const std::vector<std::byte>& bytes = node.numbers[name];
  *count = std::min<int64_t>(wanted, static_cast<int64_t>(bytes.size() / size_of(type)));
  if (*count) std::memcpy(values, bytes.data(), static_cast<std::size_t>(*count) * size_of(type));
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  const Node& engine =
      node_of(plan)->node(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG).node(CUDNN_ATTR_ENGINECFG_ENGINE);
  const NodePointer graph = engine.nodes.at(CUDNN_ATTR_ENGINE_OPERATION_GRAPH).at(0);
  const float factor = spoiled(engine.one<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX), *graph);
  const auto ids = node_of(pack)->all<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto pointers = node_of(pack)->all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  std::map<std::int64_t, void*> memory;
  for (std::size_t i = 0; i < ids.size(); ++i) memory[ids[i]] = pointers.at(i);
  sgm::emulator::enqueue(*reinterpret_cast<cudaStream_t*>(handle),
                         [=] { Interpreter(graph, memory, factor).run(); });
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
