#include "sgm/train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <deque>
#include <map>
#include <vector>

#include "sgm/io/safetensors.h"

namespace sgm {
namespace {

constexpr const char* kFormat = "sgm checkpoint 1";

/// Tensors as files see them; those of other devices are copied to the host first.
class HostViews {
 public:
  void add(const std::string& name, const Tensor& tensor) {
    const void* data = tensor.const_buffer().data;
    if (!tensor.context().is_cpu()) {
      copies_.emplace_back(tensor.bytes());
      tensor.context().copy_to_host(copies_.back().data(), data, tensor.bytes());
      data = copies_.back().data();
    }
    views_.push_back({name, tensor.dtype(), tensor.shape(), data});
  }
  const std::vector<SafeTensorView>& views() const { return views_; }

 private:
  std::deque<std::vector<std::byte>> copies_;
  std::vector<SafeTensorView> views_;
};

/// Reads one tensor of a file over an existing one of the same shape and type.
void fill(const SafeTensorsFile& file, const std::string& name, Tensor& tensor) {
  const SafeTensorInfo* info = file.find(name);
  check(info != nullptr, file.name(), ": tensor '", name,
        "' is missing; the file is damaged or of another model");
  check(info->shape == tensor.shape() && info->dtype == tensor.dtype(), file.name(), ": tensor '", name,
        "' is ", info->shape, " ", info->dtype, ", the model wants ", tensor.shape(), " ", tensor.dtype());
  const Array array = file.read(*info);
  tensor.context().copy_from_host(tensor.buffer().data, array.bytes.data(), array.bytes.size());
  tensor.mark_modified();
}

std::string metadata_of(const SafeTensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  check(found != file.metadata().end(), file.name(), ": no '", key,
        "' in its metadata; it is not a checkpoint of sgm");
  return found->second;
}

CheckpointInfo info_of(const SafeTensorsFile& file) {
  const std::string format = metadata_of(file, "format");
  check(format == kFormat, file.name(), ": format '", format, "' is not '", kFormat, "'");
  CheckpointInfo info;
  info.config = parse_config(metadata_of(file, "config"), file.name());
  const auto kind = file.metadata().find("kind");
  info.kind = kind == file.metadata().end() ? kScoreModel : kind->second;
  const std::string step = metadata_of(file, "step");
  const auto [end, error] = std::from_chars(step.data(), step.data() + step.size(), info.step);
  check(error == std::errc() && end == step.data() + step.size() && info.step >= 0, file.name(), ": step '",
        step, "' is not a count");
  return info;
}

std::vector<std::pair<std::int64_t, std::filesystem::path>> checkpoints_in(
    const std::filesystem::path& workdir) {
  std::vector<std::pair<std::int64_t, std::filesystem::path>> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(workdir / "checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    constexpr std::string_view kPrefix = "checkpoint_", kSuffix = ".safetensors";
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    const char *begin = name.data() + kPrefix.size(), *end = name.data() + name.size() - kSuffix.size();
    std::int64_t step = 0;
    const auto parsed = std::from_chars(begin, end, step);
    if (parsed.ec == std::errc() && parsed.ptr == end) found.push_back({step, entry.path()});
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& file, const Config& config, Module& network,
                     Optimizer& optimizer, const std::string& kind) {
  HostViews views;
  for (const Parameter& p : network.parameters()) views.add("model." + p.name, p.var->value());
  for (const Optimizer::Slot& slot : optimizer.slots()) {
    views.add("ema." + slot.parameter.name, slot.ema);
    views.add("adam.m." + slot.parameter.name, slot.m);
    views.add("adam.v." + slot.parameter.name, slot.v);
  }
  const std::int64_t step = optimizer.completed_steps();
  save_safetensors(
      file, views.views(),
      {{"format", kFormat},
       {"kind", kind},
       {"config", to_text(config)},
       {"step", std::to_string(step)},
       {"data_position", std::to_string(step * config.training.batch_size)},
       {"rng", "philox4x32-10, counter (element / 4, sample, step, purpose), key training.seed"}});
}

CheckpointInfo read_checkpoint_info(const std::filesystem::path& file) {
  return info_of(SafeTensorsFile(file));
}

void load_checkpoint(const std::filesystem::path& path, Module& network, Optimizer& optimizer) {
  const SafeTensorsFile file(path);
  const CheckpointInfo info = info_of(file);
  for (const Parameter& p : network.parameters()) fill(file, "model." + p.name, p.var->value());
  for (Optimizer::Slot& slot : optimizer.slots()) {
    fill(file, "ema." + slot.parameter.name, slot.ema);
    fill(file, "adam.m." + slot.parameter.name, slot.m);
    fill(file, "adam.v." + slot.parameter.name, slot.v);
  }
  optimizer.set_completed_steps(info.step);
}

namespace {

/// The module that `create` makes for the configuration of a checkpoint, with its weights.
template <class Create>
auto load_module(const SafeTensorsFile& file, const CheckpointInfo& info, const char* kind,
                 const char* command, bool ema, Create&& create) {
  check(info.kind == kind, file.name(), ": holds a ", info.kind, ", not a ", kind,
        "; give the checkpoint of one that ", command, " wrote");
  decltype(create()) module;
  try {
    module = create();
  } catch (const Error& error) {
    fail(file.name(), ": ", error.what());
  }
  for (const Parameter& p : module->parameters())
    fill(file, (ema && p.trainable ? "ema." : "model.") + p.name, p.var->value());
  module->set_requires_grad(false);
  return module;
}

}  // namespace

LoadedNetwork load_network(const std::filesystem::path& path, Context& context, bool ema) {
  const SafeTensorsFile file(path);
  const CheckpointInfo info = info_of(file);
  return {info, load_module(file, info, kScoreModel, "sgm train", ema,
                            [&] { return create_network(info.config, context, DType::f32, false); })};
}

LoadedClassifier load_classifier(const std::filesystem::path& path, Context& context, bool ema) {
  const SafeTensorsFile file(path);
  const CheckpointInfo info = info_of(file);
  return {info, load_module(file, info, kClassifier, "sgm classify-train", ema,
                            [&] { return create_classifier(info.config, context, DType::f32, false); })};
}

std::filesystem::path checkpoint_path(const std::filesystem::path& workdir, std::int64_t step) {
  const std::string digits = std::to_string(step);
  const std::string padded = std::string(digits.size() < 8 ? 8 - digits.size() : 0, '0') + digits;
  return workdir / "checkpoints" / ("checkpoint_" + padded + ".safetensors");
}

std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& workdir) {
  const auto found = checkpoints_in(workdir);
  if (found.empty()) return std::nullopt;
  return found.back().second;
}

std::filesystem::path resolve_checkpoint(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return path;
  const auto latest = latest_checkpoint(path);
  check(latest.has_value(), path.string(),
        ": no checkpoints/checkpoint_*.safetensors in it; train first, or name a file");
  return *latest;
}

void prune_checkpoints(const std::filesystem::path& workdir, int keep) {
  if (keep <= 0) return;
  const auto found = checkpoints_in(workdir);
  std::error_code ignored;  // an old checkpoint that cannot be removed is no reason to stop a run
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < found.size(); ++i)
    std::filesystem::remove(found[i].second, ignored);
}

}  // namespace sgm
