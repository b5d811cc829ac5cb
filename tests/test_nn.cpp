// Networks as modules: initialisation, names, training and evaluation, batches, what they refuse.

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "expect_error.h"
#include "golden_networks.h"
#include "sgm/nn/layers.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

/// A small network with a time embedding, attention and dropout.
Config small_config() {
  Config config;
  config.data.image_size = 16;
  config.model.nf = 16;
  config.model.ch_mult = {1, 2};
  config.model.num_res_blocks = 1;
  config.model.attn_resolutions = {8};
  return config;
}

GoldenNetwork golden(const std::string& name) {
  const auto networks = golden_networks();
  return *std::find_if(networks.begin(), networks.end(),
                       [&](const GoldenNetwork& n) { return n.name == name; });
}

const Parameter& find(const std::vector<Parameter>& parameters, const std::string& name) {
  const auto found =
      std::find_if(parameters.begin(), parameters.end(), [&](const Parameter& p) { return p.name == name; });
  if (found == parameters.end()) throw std::runtime_error("no parameter " + name);
  return *found;
}

/// Mean square and largest magnitude.
struct Spread {
  double variance = 0.0, largest = 0.0, count = 0.0;
  explicit Spread(const std::vector<double>& values) {
    for (const double value : values)
      variance += value * value, largest = std::max(largest, std::abs(value)), ++count;
    variance /= count;
  }
};

/// Every published part is U(-bound, bound) with variance scale / fan_avg, that is bound^2 / 3; the standard
/// error of a variance is bound^2 sqrt(4 / 45 / n).
void expect_uniform(const Parameter& p, double scale) {
  for (const ReferencePart& part : p.reference) {
    const Spread spread(to_reference(p.var->value(), part));
    const Shape s = reference_shape(p.var->value(), part);
    const double filter = s.rank() == 4 ? static_cast<double>(s[2] * s[3]) : 1.0;
    const double bound = std::sqrt(3.0 * scale / (0.5 * filter * static_cast<double>(s[0] + s[1])));
    EXPECT_LE(spread.largest, bound * (1 + 1e-6)) << part.name;
    EXPECT_GT(spread.largest, bound * (1 - 20 / spread.count)) << part.name;
    EXPECT_NEAR(spread.variance / (bound * bound), 1.0 / 3.0, 5 * std::sqrt(4.0 / 45.0 / spread.count))
        << part.name;
  }
}

class Network : public testing::Test {
 protected:
  std::unique_ptr<ScoreNetwork> create(const Config& config, DType dtype = DType::f32) {
    return create_network(config, *context_, dtype);
  }
  std::unique_ptr<Context> context_ = create_context("cpu", 1);
};

TEST_F(Network, StartsWithTheOriginalsDistributions) {
  Config config = small_config();
  config.model.nf = 32;
  for (const char* block : {"biggan", "ddpm"}) {
    config.model.resblock_type = block;
    const auto network = create(config);
    for (const Parameter& p : network->parameters()) {
      const std::vector<double> values = p.var->value().to_host_f64();
      const auto all = [&](double value) {
        return std::all_of(values.begin(), values.end(), [value](double v) { return v == value; });
      };
      const bool norm = p.name.find("norm") != std::string::npos;
      if (p.name == "time.frequencies") continue;
      if (p.name.ends_with("bias")) {
        EXPECT_TRUE(all(0.0)) << p.name;
      } else if (norm) {
        EXPECT_TRUE(all(1.0)) << p.name;
      } else {
        // The last layer of every block starts at almost zero; 1x1 convolutions stored as matrices at a
        // tenth.
        const bool last = p.name.find("conv1.") != std::string::npos ||
                          p.name.find("project.") != std::string::npos || p.name == "conv_out.weight";
        const bool tenth = p.reference[0].layout == ReferencePart::Layout::transposed && !last;
        expect_uniform(p, last ? 1e-10 : tenth ? 0.1 : 1.0);
      }
    }
  }
}

TEST_F(Network, TakesItsInitialScaleFromTheConfiguration) {
  Config config = small_config();
  config.model.init_scale = 0.5;
  const auto network = create(config);
  const std::vector<Parameter> parameters = network->parameters();
  for (const char* name :
       {"down.0.block0.conv1.weight", "middle.attention.project.weight", "conv_out.weight"})
    expect_uniform(find(parameters, name), 0.5);
}

TEST_F(Network, DrawsFourierFrequenciesWithTheirScale) {
  ModelConfig model;
  model.nf = 10'000;
  for (const double scale : {16.0, 3.0}) {
    model.fourier_scale = scale;
    Builder builder{*context_, 5};
    NoiseEmbedding embedding(builder, model);
    EXPECT_EQ(embedding.dim(), 20'000);
    const Spread spread(embedding.parameters()[0].var->value().to_host_f64());
    EXPECT_NEAR(spread.variance / (scale * scale), 1.0, 5 * std::sqrt(2.0 / 10'000));
    EXPECT_FALSE(embedding.parameters()[0].trainable);
  }
}

TEST_F(Network, DrawsEveryParameterFromItsOwnStreamOfTheSeed) {
  Config config = small_config();
  const auto values = [&](std::uint64_t seed) {
    config.training.seed = seed;
    const auto network = create(config);
    std::vector<std::vector<double>> all;
    for (const Parameter& p : network->parameters())
      if (!p.name.ends_with("bias") && p.name.find("norm") == std::string::npos)
        all.push_back(p.var->value().to_host_f64());
    return all;
  };
  const auto first = values(1);
  EXPECT_EQ(values(1), first);
  const auto second = values(2);
  std::set<double> starts;  // divided by the bound, streams would show
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_NE(first[i], second[i]);
    const double largest = *std::max_element(first[i].begin(), first[i].end());
    EXPECT_TRUE(starts.insert(first[i][0] / largest).second);
  }
}

TEST_F(Network, NamesItsParametersByTheirPlace) {
  const auto network = create(small_config());
  std::set<std::string> names;
  for (const Parameter& p : network->parameters()) EXPECT_TRUE(names.insert(p.name).second) << p.name;
  for (const char* name :
       {"time.frequencies", "time.linear0.weight", "conv_in.weight", "down.0.block0.norm0.weight",
        "down.0.resample.conv1.weight", "down.0.pyramid.conv.bias", "down.1.attention0.qkv.weight",
        "noise_shifts.conv_bias", "middle.attention.project.bias", "up.1.block1.shortcut.weight",
        "up.1.attention.norm.bias", "up.1.resample.conv0.weight", "norm_out.weight", "conv_out.bias"})
    EXPECT_TRUE(names.contains(name)) << name;
}

TEST_F(Network, IsTheSameFunctionAlways) {
  const GoldenNetwork g = golden("ncsnpp_ve");
  const auto network = build(g, *context_);
  network->set_requires_grad(false);
  const Values y = output_of(*network, g.x(), g.labels, {});
  ForwardMode elsewhere;
  elsewhere.noise = {123, Purpose::noise, 456, 789};
  EXPECT_EQ(output_of(*network, g.x(), g.labels, elsewhere).data, y.data) << "dropout in evaluation";
  const auto again = build(g, *context_);
  expect_close(output_of(*again, g.x(), g.labels, {}).data, y.data, {1e-5}, "with gradients wanted");
}

/// Images [first, last) of a batch.
Values images(const Values& batch, std::size_t first, std::size_t last) {
  const std::size_t size = batch.data.size() / static_cast<std::size_t>(batch.shape[0]);
  const auto begin = batch.data.begin();
  return {with_batch(batch.shape, static_cast<std::int64_t>(last - first)),
          std::vector<double>(begin + first * size, begin + last * size)};
}

TEST_F(Network, TreatsEveryImageOnItsOwn) {
  for (const char* name :
       {"ncsnpp_ve", "ncsnpp_skip_cat", "ddpmblock_nofir", "ddpm", "ncsn_v1", "ncsnv2_128"}) {
    const GoldenNetwork g = golden(name);
    Values three = g.x();
    three.shape = {3, 16, 16, 3};
    const Values first = images(g.x(), 0, 1);
    three.data.insert(three.data.end(), first.data.begin(), first.data.end());
    const std::vector<double> labels = {g.labels[0], g.labels[1], g.labels[1]};
    // In f32 the batch decides between algorithms that round differently; in f64 there is only one.
    for (const auto& [dtype, tolerance] : {std::pair{DType::f32, 1e-5}, {DType::f64, 0.0}}) {
      const auto network = build(g, *context_, dtype);
      const ForwardMode mode{dtype, false, {}};
      const Values together = output_of(*network, three, labels, mode);
      for (std::size_t i = 0; i < 3; ++i) {
        const Values alone = output_of(*network, images(three, i, i + 1), {labels[i]}, mode);
        expect_close(alone.data, images(together, i, i + 1).data, {tolerance}, name);
      }
    }
  }
}

TEST_F(Network, DropsActivationsInTrainingOnlyAndByTheKey) {
  GoldenNetwork g = golden("ncsnpp_ve");
  g.config.model.dropout = 0.3;
  const auto network = build(g, *context_);
  ForwardMode mode{DType::f32, true, {7, Purpose::noise, 100, 0}};
  const Values x = g.x();
  const auto run = [&] { return output_of(*network, x, g.labels, mode).data; };
  const std::vector<double> first = run(), evaluated = output_of(*network, x, g.labels, {}).data;
  EXPECT_EQ(run(), first);
  EXPECT_NE(first, evaluated);
  mode.noise.step = 101;
  EXPECT_NE(run(), first);
  mode.noise = {8, Purpose::noise, 100, 0};
  EXPECT_NE(run(), first);
  mode.noise = {7, Purpose::noise, 100, 0};
  // The second image alone, told its place, is dropped as in the batch.
  mode.noise.first_sample = 1;
  expect_close(output_of(*network, images(x, 1, 2), {g.labels[1]}, mode).data,
               images({x.shape, first}, 1, 2).data, {1e-5});
}

TEST_F(Network, AtInitialScaleZeroHasSmallOutputsAndFullGradients) {
  const auto network = create(small_config());
  const Values x{{1, 16, 16, 3}, random_values(16 * 16 * 3, 1)};
  const Var y = network->forward(Var(tensor_of(*context_, x.data, x.shape, DType::f32)),
                                 tensor_of(*context_, {1.0}, {1}, DType::f64), {});
  double largest = 0.0;
  for (const double value : y.value().to_host_f64()) largest = std::max(largest, std::abs(value));
  EXPECT_LT(largest, 1e-3);
  EXPECT_GT(largest, 0.0);
  y.backward(tensor_of(*context_, random_values(x.shape.numel(), 2), x.shape, DType::f32));
  for (const Parameter& p : network->parameters()) {
    if (!p.trainable) continue;
    ASSERT_TRUE(p.var->grad().defined()) << p.name;
    for (const double value : p.var->grad().to_host_f64()) ASSERT_TRUE(std::isfinite(value)) << p.name;
  }
  const std::vector<Parameter> parameters = network->parameters();
  EXPECT_GT(Spread(find(parameters, "conv_out.weight").var->value().to_host_f64()).count, 0.0);
}

TEST_F(Network, TurnsGradientsOnAndOff) {
  const auto network = create(small_config());
  const Var x(Tensor::zeros(*context_, {1, 16, 16, 3}));
  const Tensor label = tensor_of(*context_, {1.0}, {1}, DType::f64);
  network->set_requires_grad(false);
  for (const Parameter& p : network->parameters()) EXPECT_FALSE(p.var->requires_grad()) << p.name;
  EXPECT_FALSE(network->forward(x, label, {}).requires_grad());
  network->set_requires_grad(true);
  for (const Parameter& p : network->parameters()) EXPECT_EQ(p.var->requires_grad(), p.trainable) << p.name;
  EXPECT_TRUE(network->forward(x, label, {}).requires_grad());
}

TEST_F(Network, IgnoresTheNoiseLevelWhenItIsUnconditional) {
  const GoldenNetwork g = golden("ncsnpp_unconditional");
  Config config = g.config;
  config.model.scale_by_sigma = false;
  const auto network = create(config);
  EXPECT_EQ(output_of(*network, g.x(), {0.3, 12.0}, {}).data,
            output_of(*network, g.x(), {5.0, 7.0}, {}).data);
}

TEST_F(Network, DividesByTheNoiseLevel) {
  Config config = small_config();
  config.model.init_scale = 1.0;
  config.model.conditional = false;
  const Values x{{2, 16, 16, 3}, random_values(2 * 16 * 16 * 3, 1)};
  const auto scaled = [&](const char* embedding, bool scale, const std::vector<double>& labels) {
    config.model.embedding_type = embedding;
    config.model.scale_by_sigma = scale;
    config.training.seed = 3;
    return output_of(*create(config), x, labels, {}).data;
  };
  const auto expect_divided = [&](const char* embedding, const std::vector<double>& labels,
                                  const std::vector<double>& sigmas) {
    std::vector<double> expected = scaled(embedding, false, labels);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] /= sigmas[i / (expected.size() / 2)];
    expect_close(scaled(embedding, true, labels), expected, {1e-6}, embedding);
  };
  expect_divided("fourier", {0.01, 50.0}, {0.01, 50.0});
  // Indices into a geometric table from sigma_max down to sigma_min; fractions are cut off.
  config.sde.num_scales = 11;
  config.sde.sigma_min = 0.01;
  config.sde.sigma_max = 100.0;
  expect_divided("positional", {0.0, 10.0}, {100.0, 0.01});
  expect_divided("positional", {5.9, 4.0}, {1.0, std::pow(10.0, 0.4)});
}

// ---- RefineNets -------------------------------------------------------------------------------------------

Config small_refine_net(const std::string& name, int image_size, int channels = 3) {
  Config config;
  config.data.image_size = image_size;
  config.data.num_channels = channels;
  config.model.name = name;
  config.model.nf = 8;
  config.model.nonlinearity = "elu";
  config.training.continuous = false;
  config.sde.num_scales = 5;
  validate(config);
  return config;
}

TEST_F(Network, RefineNetsStartAsPyTorchStartsThem) {
  for (const char* name : {"ncsn", "ncsnv2_64"}) {
    Config config = small_refine_net(name, 16);
    config.model.nf = 32;
    double fan_in = 0.0;  // of the weight before a bias
    const auto network = create(config);
    for (const Parameter& p : network->parameters()) {
      const std::vector<double> values = p.var->value().to_host_f64();
      if (p.name.ends_with("table")) {
        const std::size_t row = 3 * static_cast<std::size_t>(p.var->shape()[-1] / 3), betas = row / 3 * 2;
        std::vector<double> off_one;
        for (std::size_t i = 0; i < values.size(); ++i)
          if (i % row < betas)
            off_one.push_back(values[i] - 1.0);
          else
            EXPECT_EQ(values[i], 0.0) << p.name;
        const Spread spread(off_one);
        EXPECT_NEAR(spread.variance / (0.02 * 0.02), 1.0, 5 * std::sqrt(2.0 / spread.count)) << p.name;
        continue;
      }
      const Shape& s = p.var->shape();
      if (s.rank() == 4) fan_in = static_cast<double>(s[1] * s[2] * s[3]);
      const Spread spread(values);
      EXPECT_LE(spread.largest, (1 + 1e-6) / std::sqrt(fan_in)) << p.name;
      EXPECT_NEAR(spread.variance * fan_in, 1.0 / 3.0, 5 * std::sqrt(4.0 / 45.0 / spread.count)) << p.name;
    }
  }
}

TEST_F(Network, RefineNetsTakeImagesOfManySizes) {
  const std::tuple<const char*, int, int> cases[] = {
      {"ncsn", 2, 3},       {"ncsn", 14, 1},       {"ncsnv2_64", 6, 3}, {"ncsnv2_64", 28, 1},
      {"ncsnv2_128", 4, 1}, {"ncsnv2_128", 12, 3}, {"ncsnv2_256", 8, 3}};
  for (const auto& [name, size, channels] : cases)
    for (const std::int64_t n : {1, 3}) {
      SCOPED_TRACE(testing::Message() << name << ' ' << size << " batch " << n);
      const auto network = create(small_refine_net(name, size, channels));
      const Shape shape{n, size, size, channels};
      Var x(tensor_of(*context_, random_values(shape.numel(), 1, 0.5, 1.0), shape, DType::f32), true);
      const Var y =
          network->forward(x, tensor_of(*context_, std::vector<double>(n, 2.0), {n}, DType::f64), {});
      ASSERT_EQ(y.shape(), shape);
      y.backward(tensor_of(*context_, random_values(shape.numel(), 2), shape, DType::f32));
      EXPECT_GT(Spread(x.grad().to_host_f64()).variance, 0.0);
      for (const Parameter& p : network->parameters()) {
        ASSERT_TRUE(p.var->grad().defined()) << p.name;
        for (const double value : p.var->grad().to_host_f64()) ASSERT_TRUE(std::isfinite(value)) << p.name;
      }
    }
}

TEST_F(Network, OnlyTheFirstRefineNetIsToldTheNoiseScale) {
  const Values x{{2, 8, 8, 3}, random_values(2 * 8 * 8 * 3, 1, 0.5, 1.0)};
  Config config = small_refine_net("ncsn", 8);
  const auto first = create(config);
  const std::vector<double> y = output_of(*first, x, {1.0, 3.0}, {}).data;
  EXPECT_NE(output_of(*first, x, {2.0, 3.0}, {}).data, y);
  EXPECT_EQ(output_of(*first, x, {1.7, 3.0}, {}).data, y) << "labels are cut to integers";
  config.model.name = "ncsnv2_64";
  config.sde.sigma_min = 0.01, config.sde.sigma_max = 100.0;
  const auto second = create(config);
  const auto times_sigma = [&](const std::vector<double>& labels, const std::vector<double>& sigmas) {
    std::vector<double> output = output_of(*second, x, labels, {}).data;
    for (std::size_t i = 0; i < output.size(); ++i) output[i] *= sigmas[i / (output.size() / 2)];
    return output;
  };
  expect_close(times_sigma({0.0, 4.0}, {100.0, 0.01}), times_sigma({2.0, 3.0}, {1.0, 0.1}), {1e-6});
}

TEST_F(Network, RefineNetsRefuseWhatTheyHaveNoPlaceFor) {
  const auto expect_refused = [&](const std::vector<std::string>& parts, Config config,
                                  const std::function<void(Config&)>& change) {
    change(config);
    expect_error(parts, [&] { create(config); });
  };
  const Config small = small_refine_net("ncsnv2_64", 8);
  expect_refused({"ncsnv2_64", "training.continuous"}, small,
                 [](Config& c) { c.training.continuous = true; });
  expect_refused({"ncsnv2_64", "sde.name"}, small, [](Config& c) { c.sde.name = "vpsde"; });
  expect_refused({"image_size", "multiple of 2", "7"}, small, [](Config& c) { c.data.image_size = 7; });
  expect_refused({"image_size", "multiple of 4", "6"}, small_refine_net("ncsnv2_128", 8),
                 [](Config& c) { c.data.image_size = 6; });
}

TEST_F(Network, RefusesImagesLabelsAndTypesThatDoNotFit) {
  const auto network = create(small_config());
  const auto forward = [&](const Shape& images, const Shape& labels, DType image_type, DType label_type) {
    network->forward(Var(Tensor::zeros(*context_, images, image_type)),
                     Tensor::full(*context_, labels, 1.0, label_type), {});
  };
  expect_error({"network", "[N, 16, 16, 3]", "[1, 16, 16, 1]"}, [&] {
    forward({1, 16, 16, 1}, {1}, DType::f32, DType::f64);
  });
  expect_error({"network", "[1, 8, 16, 3]"}, [&] { forward({1, 8, 16, 3}, {1}, DType::f32, DType::f64); });
  expect_error({"network", "[16, 16, 3]"}, [&] { forward({16, 16, 3}, {1}, DType::f32, DType::f64); });
  expect_error({"labels", "[2]"}, [&] { forward({2, 16, 16, 3}, {1}, DType::f32, DType::f64); });
  expect_error({"labels", "f64", "f32"}, [&] { forward({1, 16, 16, 3}, {1}, DType::f32, DType::f32); });
  expect_error({"network", "f32", "f64"}, [&] { forward({1, 16, 16, 3}, {1}, DType::f64, DType::f64); });
}

TEST_F(Network, NamesWhatCannotBeBuilt) {
  const auto expect_refused = [&](const std::vector<std::string>& parts,
                                  const std::function<void(Config&)>& change) {
    Config config = small_config();
    change(config);
    expect_error(parts, [&] { create(config); });
  };
  expect_refused({"model.name", "'unet'", "ncsnpp", "ddpm"}, [](Config& c) { c.model.name = "unet"; });
  expect_refused({"groups", "multiple"}, [](Config& c) { c.model.nf = 6; });
  expect_refused({"32 groups", "multiple of 128"}, [](Config& c) {
    c.model.name = "ddpm";
    c.model.nf = 48;
  });
  expect_refused({"model.resblock_type", "'x'"}, [](Config& c) { c.model.resblock_type = "x"; });
  expect_refused({"model.progressive", "'x'"}, [](Config& c) { c.model.progressive = "x"; });
  expect_refused({"model.progressive_input", "'x'"}, [](Config& c) { c.model.progressive_input = "x"; });
  expect_refused({"model.progressive_combine", "'x'"}, [](Config& c) { c.model.progressive_combine = "x"; });
  expect_refused({"model.embedding_type", "'x'"}, [](Config& c) { c.model.embedding_type = "x"; });
  expect_refused({"nonlinearity", "'x'"}, [](Config& c) { c.model.nonlinearity = "x"; });
}

TEST_F(Network, PublishedValuesMustFitTheirParts) {
  const auto network = create(small_config());
  Parameter p = network->parameters()[1];
  const std::vector<double> few(3);
  expect_error({p.reference[0].name, "3 values"},
               [&] { from_reference(p.var->value(), p.reference[0], few); });
}

TEST_F(Network, EveryNameOfTheTableBuilds) {
  EXPECT_EQ(network_names(), (std::vector<std::string>{"ncsnpp", "ddpm", "ncsn", "ncsnv2_64", "ncsnv2_128",
                                                       "ncsnv2_256", "mlp"}));
  for (const std::string& name : network_names()) {
    Config config = small_config();
    config.model.name = name;
    config.model.nf = 32;
    config.model.embedding_type = "positional";
    if (name == "mlp") config.data.image_size = 1;
    config.training.continuous = !name.starts_with("ncsn") || name == "ncsnpp";
    const auto network = create(config);
    const std::int64_t size = config.data.image_size;
    const Values x{{1, size, size, 3}, random_values(size * size * 3, 1)};
    EXPECT_EQ(output_of(*network, x, {3.0}, {}).shape, x.shape) << name;
  }
}

}  // namespace
}  // namespace sgm
