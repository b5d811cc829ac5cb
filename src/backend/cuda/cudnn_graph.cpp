#include "backend/cuda/cudnn_graph.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "sgm/core/error.h"

namespace sgm::cudnn {
namespace {

/// cuDNN's account of the last failure of this thread, on one line.
std::string last_error(cudnnStatus_t status) {
  std::array<char, 1024> text{};
  cudnnGetLastErrorString(text.data(), text.size() - 1);
  std::string line = text.data();
  for (char& c : line)
    if (c == '\n') c = ' ';
  return line.empty() ? cudnnGetErrorString(status) : std::string(cudnnGetErrorString(status)) + ": " + line;
}

/// The number at the front of text, which is cut off it.
std::int64_t take_number(std::string_view& text, std::string_view whole) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  check(error == std::errc(), "cudnn: '", whole, "' is no engine with knobs");
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

EngineChoice choice_of(const Descriptor& config, const Descriptor& engine) {
  EngineChoice choice;
  choice.engine = engine.get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  const auto knobs = config.get(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                                CUDNN_KNOB_TYPE_COUNTS);
  for (const Descriptor& knob : knobs)
    choice.knobs.emplace_back(knob.get<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE),
                              knob.get<std::int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
  return choice;
}

Descriptor config_of(const Target& target, const Descriptor& graph, const EngineChoice& choice,
                     const std::string& what) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR, what);
  engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph).set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, choice.engine);
  target.name_in(engine, CUDNN_ATTR_ENGINE_DEVICEPROP);
  engine.finalize();
  std::vector<Descriptor> knobs;
  for (const auto& [type, value] : choice.knobs) {
    Descriptor& knob = knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, what);
    knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, static_cast<cudnnBackendKnobType_t>(type))
        .set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, value)
        .finalize();
  }
  Descriptor config(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, what);
  config.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
  if (!knobs.empty()) config.set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, knobs);
  config.finalize();
  return config;
}

}  // namespace

void require(cudnnStatus_t status, const char* call, const std::string& what) {
  if (status != CUDNN_STATUS_SUCCESS)
    fail("cudnn ", version(), ": ", call, " (", what, "): ", last_error(status));
}

std::string version() {
  const std::size_t number = cudnnGetVersion();
  return std::to_string(number / 10000) + '.' + std::to_string(number % 10000 / 100) + '.' +
         std::to_string(number % 100);
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type, std::string what) : what_(std::move(what)) {
  cudnnBackendDescriptor_t handle = nullptr;
  require(cudnnBackendCreateDescriptor(type, &handle), "cudnnBackendCreateDescriptor", what_);
  handle_.reset(handle);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                            std::int64_t count, const void* values) {
  require(cudnnBackendSetAttribute(get(), name, type, count, values), "cudnnBackendSetAttribute",
          what_ + ", attribute " + std::to_string(name));
  return *this;
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, const Descriptor& value) {
  const cudnnBackendDescriptor_t handle = value.get();
  return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &handle);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, const std::vector<Descriptor>& values) {
  std::vector<cudnnBackendDescriptor_t> handles;
  for (const Descriptor& value : values) handles.push_back(value.get());
  return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(handles.size()), handles.data());
}

Descriptor& Descriptor::finalize() {
  require(cudnnBackendFinalize(get()), "cudnnBackendFinalize", what_);
  return *this;
}

std::size_t Descriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                            std::size_t most, void* values) const {
  std::int64_t count = 0;
  require(cudnnBackendGetAttribute(get(), name, type, static_cast<std::int64_t>(most), &count, values),
          "cudnnBackendGetAttribute", what_ + ", attribute " + std::to_string(name));
  return std::min(static_cast<std::size_t>(count), most);
}

std::vector<Descriptor> Descriptor::get(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type,
                                        std::size_t most) const {
  // cuDNN fills descriptors that the caller has made; asked how many there are, it does not always tell.
  std::vector<Descriptor> values;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (std::size_t i = 0; i < most; ++i) handles.push_back(values.emplace_back(type, what_).get());
  const std::size_t filled = get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, handles.data());
  values.erase(values.begin() + static_cast<std::ptrdiff_t>(filled), values.end());
  return values;
}

Target::Target(const std::string& json)
    : properties_(std::make_shared<Descriptor>(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, "device description")) {
  properties_
      ->set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, std::span<const char>(json.data(), json.size() + 1))
      .finalize();
}

void Target::name_in(Descriptor& descriptor, cudnnBackendAttributeName_t handle_name,
                     cudnnBackendAttributeName_t properties_name) const {
  if (handle_) descriptor.set(handle_name, handle_);
  name_in(descriptor, properties_name);
}

void Target::name_in(Descriptor& descriptor, cudnnBackendAttributeName_t properties_name) const {
  if (properties_) descriptor.set(properties_name, *properties_);
}

std::string EngineChoice::text() const {
  std::string text = std::to_string(engine);
  char separator = ':';
  for (const auto& [type, value] : knobs) {
    text += separator + std::to_string(type) + '=' + std::to_string(value);
    separator = ',';
  }
  return text;
}

EngineChoice EngineChoice::parse(const std::string& whole) {
  EngineChoice choice;
  std::string_view text = whole;
  choice.engine = take_number(text, whole);
  for (char separator = ':'; !text.empty(); separator = ',') {
    check(text.front() == separator, "cudnn: '", whole, "' is no engine with knobs");
    text.remove_prefix(1);
    const std::int64_t type = take_number(text, whole);
    check(text.starts_with('='), "cudnn: '", whole, "' is no engine with knobs");
    text.remove_prefix(1);
    choice.knobs.emplace_back(type, take_number(text, whole));
  }
  return choice;
}

Plan::Plan(const Target& target, const Descriptor& graph, const EngineChoice& choice, const std::string& what)
    : Plan(target, config_of(target, graph, choice, what), what) {}

Plan::Plan(const Target& target, const Descriptor& engine_config, const std::string& what)
    : what_(what), plan_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, what) {
  const Descriptor engine = engine_of(engine_config);
  choice_ = choice_of(engine_config, engine);
  read_notes(engine);
  what_ += ", engine " + choice_.text();
  plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine_config);
  target.name_in(plan_, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
  plan_.finalize();
  workspace_ = static_cast<std::size_t>(plan_.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
}

void Plan::read_notes(const Descriptor& engine) {
  for (const auto note : engine.get<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT)) {
    notes_.tensor_core |= note == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    notes_.down_converts |= note == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
    notes_.reduced_reduction |= note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    notes_.nondeterministic |= note == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    notes_.winograd |= note == CUDNN_NUMERICAL_NOTE_FFT || note == CUDNN_NUMERICAL_NOTE_WINOGRAD ||
                       note == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4 ||
                       note == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6 ||
                       note == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13;
  }
}

void Plan::execute(cudnnHandle_t handle, std::span<const std::int64_t> ids, std::span<void* const> pointers,
                   void* workspace) const {
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, what_);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids)
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, pointers)
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace)
      .finalize();
  require(cudnnBackendExecute(handle, plan_.get(), pack.get()), "cudnnBackendExecute", what_);
}

std::vector<Descriptor> proposals(const Target& target, const Descriptor& graph, cudnnBackendHeurMode_t mode,
                                  const std::string& what, std::string* why_none) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, what);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph).set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
  target.name_in(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP);
  const cudnnStatus_t status = cudnnBackendFinalize(heuristics.get());
  if (status != CUDNN_STATUS_SUCCESS) {
    if (why_none) *why_none = last_error(status);
    return {};
  }
  constexpr std::size_t kMost = 64;
  return heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, kMost);
}

Descriptor engine_of(const Descriptor& engine_config) {
  auto engines = engine_config.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1);
  check(engines.size() == 1, "cudnn: a configuration without an engine");
  return std::move(engines[0]);
}

bool compiles_at_run_time(const Descriptor& engine) {
  const auto notes =
      engine.get<cudnnBackendBehaviorNote_t>(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT);
  return std::find(notes.begin(), notes.end(), CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != notes.end();
}

}  // namespace sgm::cudnn
