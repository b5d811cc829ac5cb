// Networks, layers and blocks against numbers of the original implementation.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "golden_networks.h"
#include "sgm/nn/blocks.h"

namespace sgm {
namespace {

/// A list of a published checkpoint's tensors.
struct StateDict {
  std::int64_t parameters = 0, trainable = 0;  // as its header says
  std::map<std::string, Shape> tensors;        // without buffers

  explicit StateDict(const std::string& name) {
    std::ifstream file(SGM_TEST_DATA "/state_dict/" + name + ".txt");
    EXPECT_TRUE(file.good()) << name;
    std::string line;
    while (std::getline(file, line)) {
      const int counts =
          std::sscanf(line.c_str(), "# total parameters %ld, trainable %ld", &parameters, &trainable);
      if (counts == 1) trainable = parameters;
      if (line.front() == '#' || line.front() == '-') continue;
      std::istringstream columns(line);
      std::string key, column;  // the last before the sizes
      while (columns >> column && column.front() != '[') key = column;
      std::vector<std::int64_t> sizes = {std::stoll(column.substr(1))};
      while (columns >> column) sizes.push_back(std::stoll(column));
      tensors[key] = Shape(std::span<const std::int64_t>(sizes));
    }
  }
};

struct PublishedRow {
  const char* list;
  const char* config;  // of configs/
  int scale;           // how much narrower than published it is built
  std::function<void(Config&)> change = [](Config&) {};
};

void to_256_pixels(Config& c) {
  c.data.image_size = 256;
  c.model.ch_mult = {1, 1, 2, 2, 2, 2, 2};
  c.model.num_res_blocks = 2;
  c.model.progressive = "output_skip";
  c.model.progressive_input = "input_skip";
}

void to_1024_pixels(Config& c) {
  to_256_pixels(c);
  c.data.image_size = 1024;
  c.model.nf = 16;
  c.model.ch_mult = {1, 2, 4, 8, 16, 32, 32, 32};
  c.model.num_res_blocks = 1;
}

void ddpm_to_256_pixels(Config& c) {
  c.data.image_size = 256;
  c.model.ch_mult = {1, 1, 2, 2, 4, 4};
}

void to_ncsnv2_256(Config& c) {
  c.data.image_size = 256;
  c.model.name = "ncsnv2_256";
}

const PublishedRow kPublishedRows[] = {
    {"ncsn_v1_cifar10", "ve_cifar10_ncsn", 1},
    {"ncsnv2_64_cifar10", "ve_cifar10_ncsnv2", 1},
    {"ncsnv2_64_cifar10", "ve_celeba_ncsnv2", 4},
    {"ncsnv2_128_bedroom", "ve_bedroom_ncsnv2", 4},
    {"ncsnv2_256_ffhq", "ve_bedroom_ncsnv2", 4, to_ncsnv2_256},
    {"ncsnpp_ve_cifar10_continuous", "ve_cifar10_ncsnpp_continuous", 1},
    {"ncsnpp_ve_cifar10_deep_continuous", "ve_cifar10_ncsnpp_deep_continuous", 4},
    {"ncsnpp_ve_cifar10_discrete", "ve_cifar10_ncsnpp", 4},
    {"ncsnpp_vp_cifar10", "vp_cifar10_ncsnpp_continuous", 4},
    {"ncsnpp_vp_cifar10", "subvp_cifar10_ncsnpp_continuous", 4},
    {"ddpmpp_cifar10", "vp_cifar10_ddpmpp_continuous", 4},
    {"ddpmpp_cifar10", "subvp_cifar10_ddpmpp_continuous", 4},
    {"ddpmpp_cifar10_deep", "vp_cifar10_ddpmpp_deep_continuous", 4},
    {"ddpm_cifar10", "vp_cifar10_ddpm_continuous", 1},
    {"ncsnpp_256_ve", "ve_cifar10_ncsnpp_continuous", 4, to_256_pixels},
    {"ncsnpp_1024_ve", "ve_cifar10_ncsnpp_continuous", 4, to_1024_pixels},
    {"ddpm_256", "vp_cifar10_ddpm_continuous", 4, ddpm_to_256_pixels},
};

TEST(Published, NetworksHaveTheTensorsOfTheirCheckpoints) {
  const auto context = create_context("cpu", 1);
  for (const PublishedRow& row : kPublishedRows) {
    SCOPED_TRACE(std::string(row.list) + " from " + row.config);
    const StateDict published(row.list);
    Config config =
        load_config(std::filesystem::path(SGM_SOURCE_DIR "/configs") / (std::string(row.config) + ".toml"));
    row.change(config);
    config.model.nf /= row.scale;
    const auto network = create_network(config, *context);
    std::map<std::string, Shape> ours, expected;
    std::int64_t parameters = 0, trainable = 0, published_parameters = 0;
    for (const auto& [name, shape] : published.tensors) {
      published_parameters += shape.numel();
      // Channel counts scale; colours and filter sizes do not.
      std::vector<std::int64_t> sizes(shape.begin(), shape.end());
      for (std::int64_t& size : sizes) size = size >= 16 ? size / row.scale : size;
      expected[name] = Shape(sizes);
    }
    for (const Parameter& p : network->parameters()) {
      parameters += p.var->value().numel();
      trainable += p.trainable ? p.var->value().numel() : 0;
      EXPECT_EQ(p.trainable, p.var->requires_grad()) << p.name;
      for (const ReferencePart& part : p.reference)
        EXPECT_TRUE(ours.emplace(part.name, reference_shape(p.var->value(), part)).second) << part.name;
    }
    EXPECT_EQ(published_parameters, published.parameters);
    for (const auto& [name, shape] : expected) EXPECT_EQ(ours[name], shape) << name;
    for (const auto& [name, shape] : ours) EXPECT_TRUE(expected.contains(name)) << name;
    if (row.scale > 1) continue;
    EXPECT_EQ(parameters, published.parameters);
    EXPECT_EQ(trainable, published.trainable);
  }
}

TEST(Published, ListsAreTheOnesThatTheNetworksWereCountedFrom) {
  const std::pair<const char*, std::int64_t> counts[] = {{"ncsnpp_ve_cifar10_continuous", 62'758'915},
                                                         {"ncsnpp_ve_cifar10_deep_continuous", 107'587'075},
                                                         {"ncsn_v1_cifar10", 30'117'635},
                                                         {"ncsnv2_64_cifar10", 29'694'083},
                                                         {"ncsnv2_128_bedroom", 83'445'379},
                                                         {"ncsnv2_256_ffhq", 94'132'611},
                                                         {"ncsnpp_ve_cifar10_discrete", 62'693'251},
                                                         {"ncsnpp_vp_cifar10", 62'693'251},
                                                         {"ddpmpp_cifar10", 61'804'419},
                                                         {"ddpmpp_cifar10_deep", 106'632'579},
                                                         {"ddpm_cifar10", 35'218'947},
                                                         {"ncsnpp_256_ve", 65'574'549},
                                                         {"ncsnpp_1024_ve", 105'785'896},
                                                         {"ddpm_256", 111'569'923}};
  for (const auto& [list, count] : counts) EXPECT_EQ(StateDict(list).parameters, count) << list;
}

class GoldenNetworks : public testing::Test {
 protected:
  std::unique_ptr<Context> context_ = create_context("cpu", 1);
};

TEST_F(GoldenNetworks, ReturnWhatTheOriginalReturns) {
  const std::vector<GoldenNetwork> networks = golden_networks();
  EXPECT_EQ(networks.size(), 15u);
  for (const GoldenNetwork& golden : networks) {
    SCOPED_TRACE(golden.name);
    const auto network = build(golden, *context_);
    const Values y = output_of(*network, golden.x(), golden.labels, {});
    EXPECT_EQ(y.shape, golden.y.shape);
    // The original's own f32 numbers are within about 1e-5 of exact ones.
    expect_close(y.data, golden.y.data, {2e-5, 4e-5}, "f32");
    const auto exact = build(golden, *context_, DType::f64);
    const Values z = output_of(*exact, golden.x(), golden.labels, {DType::f64, false, {}});
    expect_close(z.data, golden.y.data, {2e-5, 4e-5}, "f64");
    expect_close(y.data, z.data, {1e-5, 2e-5}, "f32 against f64");
  }
}

TEST_F(GoldenNetworks, AreCloseInBF16) {
  for (const GoldenNetwork& golden : golden_networks()) {
    SCOPED_TRACE(golden.name);
    const auto network = build(golden, *context_);
    const Values y = output_of(*network, golden.x(), golden.labels, {DType::bf16, false, {}});
    // Waves as weights make nearly singular layers: errors of 2^-8 grow more than with trained ones.
    expect_close(y.data, golden.y.data, {4e-2, 8e-2});
  }
}

TEST(Embeddings, AreThoseOfTheOriginal) {
  const auto context = create_context("cpu", 1);
  const nlohmann::json golden = read_json("embeddings.json");
  const auto embedded = [&](const std::vector<double>& t, int dim) {
    Builder builder{*context};
    ModelConfig model;
    model.nf = dim;
    model.embedding_type = "positional";
    const Tensor labels = tensor_of(*context, t, {std::ssize(t)}, DType::f64);
    return NoiseEmbedding(builder, model).forward(labels, DType::f32).value().to_host_f64();
  };
  const auto t = golden.at("timesteps").get<std::vector<double>>();
  const auto expected = golden.at("positional").get<std::vector<double>>();
  // One f32 rounding of an angle of 999 is 3e-5.
  expect_close(embedded(t, 16), expected, {2e-5, 5e-5});
  // Small angles are as exact as f32 allows.
  const std::vector<double> small = embedded({0.0, 0.999, 1.0}, 16);
  expect_close(small, std::vector<double>(expected.begin(), expected.begin() + 48), {2e-7, 4e-7});
  expect_close(embedded({3.0}, golden.at("odd_dim").get<int>()),
               golden.at("positional_odd").get<std::vector<double>>(), {2e-7, 4e-7});
}

class Fir : public testing::Test {
 protected:
  void expect_golden(const char* name, const Var& y) {
    const Shape nchw{y.shape()[0], y.shape()[3], y.shape()[1], y.shape()[2]};
    const auto values = golden_.at(name).get<std::vector<double>>();
    ASSERT_EQ(std::ssize(values), nchw.numel()) << name;
    expect_close(y.value().to_host_f64(), channels_last(values, nchw).data, {5e-7, 1e-6}, name);
  }
  Var x() {
    std::vector<double> values;
    for (int n = 0; n < 72; ++n) values.push_back(std::sin(0.7 * n + 0.1));
    return Var(tensor_of(*context_, channels_last(values, {1, 2, 6, 6}).data, {1, 6, 6, 2}, DType::f32));
  }
  /// A block that resamples; its convolution has the golden weights and no bias.
  Var resampled(bool fir, const std::vector<int>& kernel, Resampling resampling, bool with_conv) {
    ModelConfig model;
    model.fir = fir;
    model.fir_kernel = kernel;
    Builder builder{*context_};
    ResampleBlock block(builder, BlockOptions(model), resampling, with_conv, 2, 3);
    if (with_conv) {
      std::vector<double> weights;
      for (int n = 0; n < 54; ++n) weights.push_back(0.3 * std::sin(0.9 * n + 0.2));
      const Parameter weight = block.parameters()[0];
      from_reference(weight.var->value(), weight.reference[0], weights);
    }
    return block.forward(x());
  }

  const std::vector<int> paper_ = {1, 3, 3, 1};
  nlohmann::json golden_ = read_json("fir.json");
  std::unique_ptr<Context> context_ = create_context("cpu", 1);
};

TEST_F(Fir, OperatorsAreThoseOfTheOriginal) {
  expect_golden("upsample_2d", resample(x(), upsample_params(paper_)));
  expect_golden("downsample_2d", resample(x(), downsample_params(paper_)));
  expect_golden("upsample_2d_k11", resample(x(), upsample_params({1, 1})));
  expect_golden("downsample_2d_k11", resample(x(), downsample_params({1, 1})));
}

TEST_F(Fir, BlocksAreThoseOfTheOriginal) {
  expect_golden("upsample_2d", resampled(true, paper_, Resampling::up, false));
  expect_golden("downsample_2d", resampled(true, paper_, Resampling::down, false));
  expect_golden("conv_downsample_2d", resampled(true, paper_, Resampling::down, true));
  expect_golden("upsample_conv_2d", resampled(true, paper_, Resampling::up, true));
  expect_golden("naive_up", resampled(false, paper_, Resampling::up, false));
  expect_golden("naive_down", resampled(false, paper_, Resampling::down, false));
}

TEST_F(Fir, BlocksHalveAndDoubleForEveryKernel) {
  for (int length = 2; length <= 8; ++length)
    for (const bool with_conv : {false, true}) {
      const std::vector<int> kernel(static_cast<std::size_t>(length), 1);
      EXPECT_EQ(resampled(true, kernel, Resampling::up, with_conv).shape()[1], 12) << length;
      EXPECT_EQ(resampled(true, kernel, Resampling::down, with_conv).shape()[1], 3) << length;
    }
}

TEST(Published, PartsCoverEveryElementOnceAndComeBack) {
  const auto context = create_context("cpu", 1);
  for (const GoldenNetwork& golden : golden_networks()) {
    const auto network = create_network(golden.config, *context);
    for (const Parameter& p : network->parameters()) {
      const std::int64_t n = p.var->value().numel();
      std::vector<double> numbered(static_cast<std::size_t>(n));
      for (std::size_t i = 0; i < numbered.size(); ++i) numbered[i] = static_cast<double>(i);
      const Tensor source = tensor_of(*context, numbered, p.var->shape(), DType::f32);
      Tensor back = Tensor::full(*context, p.var->shape(), -1.0);
      std::int64_t published = 0;
      for (const ReferencePart& part : p.reference) {
        const std::vector<double> values = to_reference(source, part);
        published += std::ssize(values);
        from_reference(back, part, values);
      }
      ASSERT_EQ(published, n) << p.name;
      ASSERT_EQ(back.to_host_f64(), numbered) << p.name;
    }
  }
}

}  // namespace
}  // namespace sgm
