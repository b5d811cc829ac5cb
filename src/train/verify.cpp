#include "sgm/train/verify.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "sgm/io/safetensors.h"
#include "sgm/nn/module.h"

namespace sgm {
namespace {

using Values = std::vector<double>;

/// Copies every key of a config section that the original's options name.
struct JsonVisitor {
  const nlohmann::json& options;
  template <class T>
  void operator()(const char* key, T& value) const {
    if (options.contains(key) && !options[key].is_null()) value = options[key].get<T>();
  }
};

class ReferenceFile {
 public:
  explicit ReferenceFile(const std::filesystem::path& path) : file_(path) {}

  std::string name() const { return file_.name(); }
  bool contains(const std::string& tensor) const { return file_.find(tensor) != nullptr; }

  Values values(const std::string& tensor, const Shape& expected) const {
    const SafeTensorInfo* info = file_.find(tensor);
    check(info != nullptr, file_.name(), ": tensor '", tensor,
          "' is missing; the file does not fit its config");
    check(info->shape == expected, file_.name(), ": tensor '", tensor, "' has shape ", info->shape,
          ", the network wants ", expected);
    return convert(*info);
  }

  Shape shape(const std::string& tensor) const {
    const SafeTensorInfo* info = file_.find(tensor);
    check(info != nullptr, file_.name(), ": tensor '", tensor, "' is missing; it is not a reference file");
    return info->shape;
  }

  std::string config_text() const {
    const auto found = file_.metadata().find("config");
    check(found != file_.metadata().end(), file_.name(),
          ": no 'config' in its metadata; it is not a reference file");
    return found->second;
  }

  const SafeTensorsFile& file() const { return file_; }

 private:
  Values convert(const SafeTensorInfo& info) const {
    const Array array = file_.read(info);
    const auto copy = [](auto span) { return Values(span.begin(), span.end()); };
    switch (info.dtype) {
      case DType::f32: return copy(array.values<float>());
      case DType::f64: return copy(array.values<double>());
      case DType::i64: return copy(array.values<std::int64_t>());
      case DType::i32: return copy(array.values<std::int32_t>());
      default:
        fail(file_.name(), ": tensor '", info.name, "' is ", info.dtype,
             "; reference files hold f32, f64, i32 or i64");
    }
  }

  SafeTensorsFile file_;
};

/// [N, C, H, W] <-> [N, H, W, C].
Values swap_layout(const Values& in, std::int64_t n, std::int64_t a, std::int64_t b) {
  Values out(in.size());
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t p = 0; p < a; ++p)
      for (std::int64_t q = 0; q < b; ++q) out[(i * b + q) * a + p] = in[(i * a + p) * b + q];
  return out;
}

double norm(const Values& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

double relative_error(const Values& ours, const Values& reference, double floor) {
  double sum = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) sum += (ours[i] - reference[i]) * (ours[i] - reference[i]);
  return std::sqrt(sum) / std::max(norm(reference), floor);
}

struct Tolerances {
  double output, gradient;
  double floor;  // of a gradient's norm, as a share of the largest
};

Tolerances tolerances_of(const VerifyOptions& options) {
  const std::map<std::string, Tolerances> defaults = {
      {"f32", {5e-5, 1e-3, 1e-4}}, {"f64", {1e-6, 1e-5, 1e-4}}, {"bf16", {5e-2, 2e-1, 1e-2}}};
  const auto found = defaults.find(options.precision);
  check(found != defaults.end(), "--precision '", options.precision, "' is unknown; known: f32, bf16, f64");
  Tolerances result = found->second;
  if (options.output_tolerance > 0) result.output = options.output_tolerance;
  if (options.gradient_tolerance > 0) result.gradient = options.gradient_tolerance;
  return result;
}

Config unet_config(const nlohmann::json& options) {
  const nlohmann::json &model = options.at("model"), &training = options.at("training");
  Config config;
  config.model.visit(JsonVisitor{model});
  config.sde.visit(JsonVisitor{model});
  config.sde.name = training.at("sde").get<std::string>();
  config.data.visit(JsonVisitor{options.at("data")});
  config.training.visit(JsonVisitor{training});
  config.model.name = model.at("name").get<std::string>();
  return config;
}

/// The options of a RefineNet do not name the network: NCSNv2, by image size.
Config refine_net_config(const nlohmann::json& options, const std::string& name) {
  const nlohmann::json &data = options.at("data"), &model = options.at("model");
  check(!data.value("logit_transform", false) && !model.value("spec_norm", false) &&
            model.value("normalization", "InstanceNorm++") == "InstanceNorm++",
        name,
        ": of RefineNets only those with InstanceNorm++ and without logit_transform and spec_norm are known");
  Config config;
  config.data.image_size = data.at("image_size").get<int>();
  config.data.num_channels = data.at("channels").get<int>();
  config.data.centered = data.value("rescaled", false);
  config.sde.name = "vesde";
  config.sde.sigma_max = model.at("sigma_begin").get<double>();
  config.sde.sigma_min = model.at("sigma_end").get<double>();
  config.sde.num_scales = model.at("num_classes").get<int>();
  config.training.continuous = false;
  config.model.nf = model.at("ngf").get<int>();
  config.model.nonlinearity = model.value("nonlinearity", "elu");
  const int size = config.data.image_size;
  config.model.name = size < 96 ? "ncsnv2_64" : size <= 128 ? "ncsnv2_128" : "ncsnv2_256";
  return config;
}

/// A bound that the number of a network's weights is not below. U-Nets: the last convolutions of their blocks
/// alone have 9 c^2 each. RefineNets: 1800 nf^2 in the smallest, and the first norm's table.
std::int64_t least_weights(const Config& config) {
  const ModelConfig& model = config.model;
  const std::int64_t nf = model.nf;
  if (model.name == "ncsn") return 1800 * nf * nf + 3 * nf * config.sde.num_scales;
  if (model.name.starts_with("ncsnv2")) return 1800 * nf * nf;
  std::int64_t weights = 0;
  for (const int factor : model.ch_mult)
    weights += (2 * std::int64_t{model.num_res_blocks} + 1) * 9 * nf * factor * nf * factor;
  return weights;
}

/// Refuses a config whose network the file cannot hold before it is built.
void check_size(const ReferenceFile& file, const Config& config) {
  const std::int64_t weights = least_weights(config);
  check(static_cast<std::uint64_t>(weights) <= file.file().size() / sizeof(float), file.name(),
        ": its config describes a network of more than ", weights, " weights, which the file cannot hold");
}

/// Loads `model.*`; every tensor of the file must have a place.
void load_weights(const ReferenceFile& file, std::vector<Parameter>& parameters) {
  std::map<std::string, bool> used;
  for (Parameter& p : parameters)
    for (const ReferencePart& part : p.reference) {
      const std::string name = "model." + part.name;
      from_reference(p.var->value(), part, file.values(name, reference_shape(p.var->value(), part)));
      used[name] = true;
    }
  for (const SafeTensorInfo& info : file.file().tensors()) {
    const bool weight = info.name.starts_with("model.") && info.name != "model.sigmas";
    check(!weight || used[info.name], file.name(), ": tensor '", info.name, "' has no place in this network");
  }
}

/// The largest norm of a parameter's gradient in the file.
double largest_gradient(const ReferenceFile& file, const std::vector<Parameter>& parameters) {
  double largest = 0;
  for (const Parameter& p : parameters)
    for (const ReferencePart& part : p.reference)
      if (file.contains("grad." + part.name))
        largest =
            std::max(largest, norm(file.values("grad." + part.name, reference_shape(p.var->value(), part))));
  return largest;
}

}  // namespace

bool VerifyReport::passes() const {
  return std::all_of(errors.begin(), errors.end(), [](const VerifyError& e) { return e.passes(); });
}

Config config_from_reference(const std::string& text, const std::string& name) {
  Config config;
  try {
    const nlohmann::json options = nlohmann::json::parse(text);
    config = options.at("model").contains("ngf") ? refine_net_config(options, name) : unet_config(options);
  } catch (const nlohmann::json::exception& error) {
    fail(name, ": its config is not that of a score network that this command knows: ", error.what());
  }
  validate(config);
  return config;
}

VerifyReport verify_reference(const std::filesystem::path& path, const VerifyOptions& options,
                              Context& context) {
  const Tolerances tolerance = tolerances_of(options);
  const ReferenceFile file(path);
  Config config = config_from_reference(file.config_text(), file.name());
  // The two RefineNets have the same options, but only NCSN has norms that know the noise scale.
  if (file.contains("model.normalizer.embed.weight")) config.model.name = "ncsn";
  check_size(file, config);
  const DType dtype = options.precision == "f64" ? DType::f64 : DType::f32;
  const auto network = create_network(config, context, dtype);
  std::vector<Parameter> parameters = network->parameters();
  load_weights(file, parameters);

  const Shape nchw = file.shape("x");
  check(nchw.rank() == 4, file.name(), ": x must be [N, C, H, W], got ", nchw);
  const std::int64_t n = nchw[0], c = nchw[1], pixels = nchw[2] * nchw[3];
  const Shape nhwc{n, nchw[2], nchw[3], c};
  const auto load_image = [&](const std::string& name) {
    const Values values = swap_layout(file.values(name, nchw), n, c, pixels);
    return Tensor::from_host(context, std::span<const double>(values), nhwc, dtype);
  };
  const auto published_image = [&](const Tensor& t) { return swap_layout(t.to_host_f64(), n, pixels, c); };
  const Values labels = file.values("labels", {n});

  const ForwardMode mode{options.precision == "bf16" ? DType::bf16 : dtype, false, {}};
  Var x(load_image("x"), true);
  const Var y = network->forward(x, Tensor::from_host(context, std::span<const double>(labels), {n}), mode);

  VerifyReport report;
  report.network = config.model.name;
  for (const Parameter& p : parameters) report.parameters += p.var->value().numel();
  report.errors.push_back(
      {"output", relative_error(published_image(y.value()), file.values("y", nchw), 0.0), tolerance.output});
  if (file.contains("w")) {
    const double floor = tolerance.floor * largest_gradient(file, parameters);
    y.backward(load_image("w"));
    report.errors.push_back({"grad.x",
                             relative_error(published_image(x.grad()), file.values("grad.x", nchw), floor),
                             tolerance.gradient});
    for (const Parameter& p : parameters) {
      if (!p.trainable) continue;
      for (const ReferencePart& part : p.reference) {
        const std::string name = "grad." + part.name;
        const Shape shape = reference_shape(p.var->value(), part);
        const Tensor& grad = p.var->grad();
        const Values ours =
            grad.defined() ? to_reference(grad, part) : Values(static_cast<std::size_t>(shape.numel()));
        report.errors.push_back(
            {name, relative_error(ours, file.values(name, shape), floor), tolerance.gradient});
      }
    }
  }
  std::stable_sort(report.errors.begin(), report.errors.end(),
                   [](const VerifyError& a, const VerifyError& b) {
                     const double ra = a.error / a.tolerance, rb = b.error / b.tolerance;
                     return std::isnan(ra) ? !std::isnan(rb) : ra > rb;
                   });
  return report;
}

}  // namespace sgm
