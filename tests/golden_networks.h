#pragma once
// The small networks of golden/networks.json and networks_ncsn.json: options, weights by rule, outputs of the
// original implementation.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "check.h"
#include "sgm/nn/module.h"

namespace sgm {

inline nlohmann::json read_json(const std::string& name) {
  std::ifstream file(SGM_TEST_DATA "/" + name);
  return nlohmann::json::parse(file);
}

/// Copies the keys of a configuration table that the options name.
struct OptionsVisitor {
  const nlohmann::json& options;
  template <class T>
  void operator()(const char* key, T& value) const {
    if (options.contains(key)) options.at(key).get_to(value);
  }
};

inline Shape shape_of(const nlohmann::json& sizes) {
  const auto list = sizes.get<std::vector<std::int64_t>>();
  return Shape(std::span<const std::int64_t>(list));
}

/// [N, C, H, W] -> [N, H, W, C].
inline Values channels_last(const std::vector<double>& values, const Shape& nchw) {
  const std::int64_t n = nchw[0], c = nchw[1], pixels = nchw[2] * nchw[3];
  Values result{{n, nchw[2], nchw[3], c}, std::vector<double>(values.size())};
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t k = 0; k < c; ++k)
      for (std::int64_t p = 0; p < pixels; ++p)
        result.data[static_cast<std::size_t>((i * pixels + p) * c + k)] =
            values[static_cast<std::size_t>((i * c + k) * pixels + p)];
  return result;
}

struct GoldenNetwork {
  std::string name;
  Config config;
  std::vector<std::pair<std::string, Shape>> parameters;  // published names, in the original's order
  std::vector<double> labels;
  Values y;  // [N, H, W, C]

  /// What every entry of a golden file says besides the options.
  void read(const nlohmann::json& entry) {
    for (const auto& parameter : entry.at("params"))
      parameters.emplace_back(parameter.at(0).get<std::string>(), shape_of(parameter.at(1)));
    labels = entry.at("labels").get<std::vector<double>>();
    y = channels_last(entry.at("y").get<std::vector<double>>(), {2, 3, 16, 16});
  }

  Values x() const {
    Values images{{2, 16, 16, 3}, {}};
    for (int n = 0; n < 2; ++n)
      for (int pixel = 0; pixel < 256; ++pixel)
        for (int c = 0; c < 3; ++c)
          images.data.push_back(rounded(std::sin(0.05 * ((n * 3 + c) * 256 + pixel) + 0.2), DType::f32));
    return images;
  }
};

/// The RefineNets of golden/networks_ncsn.json.
inline std::vector<GoldenNetwork> golden_refine_nets() {
  std::vector<GoldenNetwork> networks;
  const nlohmann::json file = read_json("networks_ncsn.json");
  for (const auto& [name, entry] : file.items()) {
    if (name == "about") continue;
    GoldenNetwork network;
    network.name = name;
    Config& config = network.config;
    config.model.name = name == "ncsn_v1" ? "ncsn" : name;
    config.model.nf = entry.at("ngf").get<int>();
    config.model.nonlinearity = "elu";
    config.sde.num_scales = entry.at("num_classes").get<int>();
    if (entry.contains("sigma")) {
      config.sde.sigma_max = entry.at("sigma").at(0).get<double>();
      config.sde.sigma_min = entry.at("sigma").at(1).get<double>();
    }
    config.data.image_size = 16;
    config.training.continuous = false;
    validate(config);
    network.read(entry);
    networks.push_back(std::move(network));
  }
  return networks;
}

inline std::vector<GoldenNetwork> golden_networks() {
  std::vector<GoldenNetwork> networks = golden_refine_nets();
  const nlohmann::json file = read_json("networks.json");
  for (const auto& [name, entry] : file.items()) {
    if (name == "_about") continue;
    GoldenNetwork network;
    network.name = name;
    Config& config = network.config;
    const nlohmann::json& options = entry.at("options");
    config.model.visit(OptionsVisitor{options});
    if (name == "ddpm") {
      config.model.name = "ddpm";
      config.model.embedding_type = "positional";
      config.model.scale_by_sigma = false;
    }
    config.data.image_size = 16;
    config.data.centered = entry.at("centered").get<bool>();
    validate(config);
    network.read(entry);
    networks.push_back(std::move(network));
  }
  return networks;
}

/// The weights of the file's rule: waves whose phase is the parameter's place in the original's list.
inline std::vector<double> golden_weights(std::size_t place, const std::string& name, const Shape& shape) {
  const bool matrix = name.ends_with(".W") && shape.rank() == 2, frequencies = name == "all_modules.0.W";
  const double fan = static_cast<double>(matrix ? shape[0] : shape.numel() / shape[0]);
  const bool table = name.ends_with(".embed.weight");  // gamma, alpha, beta of every noise scale
  const bool near_one = (name.ends_with(".weight") || name.ends_with(".alpha") || name.ends_with(".gamma")) &&
                        shape.rank() == 1;
  const double amplitude = shape.rank() >= 2 && !table ? 1.5 / std::sqrt(fan) : frequencies ? 0.8 : 0.1;
  std::vector<double> values;
  for (std::int64_t n = 0; n < shape.numel(); ++n) {
    const double wave =
        amplitude * std::sin(0.7 * static_cast<double>(n) + 0.1 + 0.3 * static_cast<double>(place));
    const bool shifted = near_one || (table && n % shape[1] < shape[1] / 3 * 2);
    values.push_back(rounded(shifted ? 1.0 + wave : wave, DType::f32));
  }
  return values;
}

/// Builds the network and fills every parameter; expects names and shapes to be those of the file.
inline std::unique_ptr<ScoreNetwork> build(const GoldenNetwork& golden, Context& context,
                                           DType dtype = DType::f32) {
  auto network = create_network(golden.config, context, dtype);
  std::map<std::string, std::pair<std::size_t, Shape>> places;
  for (std::size_t i = 0; i < golden.parameters.size(); ++i)
    places[golden.parameters[i].first] = {i, golden.parameters[i].second};
  for (Parameter& parameter : network->parameters())
    for (const ReferencePart& part : parameter.reference) {
      const auto found = places.find(part.name);
      if (found == places.end()) {
        ADD_FAILURE() << golden.name << " has no " << part.name;
        continue;
      }
      const auto& [place, shape] = found->second;
      EXPECT_EQ(reference_shape(parameter.var->value(), part), shape) << part.name;
      from_reference(parameter.var->value(), part, golden_weights(place, part.name, shape));
      places.erase(found);
    }
  EXPECT_TRUE(places.empty()) << golden.name << " lacks " << places.begin()->first;
  return network;
}

/// Output of the network for the first `n` of the golden images and labels.
inline Values output_of(ScoreNetwork& network, const Values& x, const std::vector<double>& labels,
                        const ForwardMode& mode) {
  const DType type = mode.compute == DType::f64 ? DType::f64 : DType::f32;
  const auto context = &network.parameters()[0].var->value().context();
  const Var y = network.forward(Var(tensor_of(*context, x.data, x.shape, type)),
                                tensor_of(*context, labels, {std::ssize(labels)}, DType::f64), mode);
  return {y.shape(), y.value().to_host_f64()};
}

}  // namespace sgm
