#pragma once
// A network, a data set and a configuration that train within a test.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/core/context.h"
#include "sgm/data/dataset.h"
#include "sgm/nn/module.h"
#include "sgm/optim/optimizer.h"

namespace sgm {

/// Bright bars on a dark ground, in memory; no image is its own mirror image.
class BarImages : public Dataset {
 public:
  explicit BarImages(std::int64_t count, int size = 8, int channels = 1)
      : count_(count), size_(size), channels_(channels) {}

  std::int64_t size() const override { return count_; }
  int height() const override { return size_; }
  int width() const override { return size_; }
  int channels() const override { return channels_; }
  int label(std::int64_t) const override { return -1; }
  int num_classes() const override { return 0; }
  const std::vector<std::string>& class_names() const override { return no_names_; }
  bool is_in_memory() const override { return true; }
  std::string describe() const override { return "bars"; }

  void read(std::int64_t i, std::span<std::uint8_t> out) const override {
    std::size_t at = 0;
    for (int y = 0; y < size_; ++y)
      for (int x = 0; x < size_; ++x)
        for (int c = 0; c < channels_; ++c, ++at)
          out[at] = static_cast<std::uint8_t>((x + 2 * i) % size_ < 3 ? 220 - 10 * y : 20 + 5 * x + c);
  }

 private:
  std::int64_t count_;
  int size_, channels_;
  std::vector<std::string> no_names_;
};

/// The whole of what a step can depend on is switched on: dropout, flips, attention, moving averages.
inline Config tiny_config() {
  Config config;
  config.data.image_size = 8;
  config.data.num_channels = 1;
  config.data.centered = true;
  config.data.random_flip = true;
  config.sde.name = "vpsde";
  config.model.nf = 16;
  config.model.ch_mult = {1, 2};
  config.model.num_res_blocks = 1;
  config.model.attn_resolutions = {4};
  config.model.fir = false;
  config.model.progressive_input = "none";
  config.model.embedding_type = "positional";
  config.model.scale_by_sigma = false;
  config.model.dropout = 0.1;
  config.model.ema_rate = 0.9;
  config.training.n_iters = 6;
  config.training.batch_size = 3;
  config.training.reduce_mean = true;
  config.training.seed = 7;
  config.training.log_freq = 2;
  config.training.snapshot_freq = 1000;
  config.optim.lr = 2e-3;
  config.optim.warmup = 2;
  config.sampling.predictor = "euler_maruyama";
  config.sampling.corrector = "none";
  config.sampling.steps = 25;
  return config;
}

/// Every tensor of a run, by the names of checkpoint files.
using RunState = std::map<std::string, std::vector<float>>;

inline RunState state_of(ScoreNetwork& network, Optimizer& optimizer) {
  RunState state;
  for (const Parameter& p : network.parameters()) state["model." + p.name] = p.var->value().to_host();
  for (const Optimizer::Slot& slot : optimizer.slots()) {
    state["ema." + slot.parameter.name] = slot.ema.to_host();
    state["adam.m." + slot.parameter.name] = slot.m.to_host();
    state["adam.v." + slot.parameter.name] = slot.v.to_host();
  }
  return state;
}

/// Names of the tensors whose bits differ, or that only one state has.
inline std::vector<std::string> differing(const RunState& a, const RunState& b) {
  std::vector<std::string> names;
  for (const auto& [name, values] : a) {
    const auto other = b.find(name);
    if (other == b.end() || other->second.size() != values.size() ||
        std::memcmp(values.data(), other->second.data(), values.size() * sizeof(float)) != 0)
      names.push_back(name);
  }
  for (const auto& [name, values] : b)
    if (!a.contains(name)) names.push_back(name);
  return names;
}

inline void expect_same_bits(const RunState& a, const RunState& b) {
  ASSERT_FALSE(a.empty());
  const std::vector<std::string> names = differing(a, b);
  EXPECT_TRUE(names.empty()) << names.size() << " of " << a.size() << " tensors differ, " << names.front()
                             << " among them";
}

/// Names of the files of a folder.
inline std::vector<std::string> files_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string content_of(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace sgm
