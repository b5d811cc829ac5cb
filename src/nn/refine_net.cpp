#include "nn/refine_net.h"

#include <span>

#include "nn/network_parts.h"
#include "nn/refine_blocks.h"

namespace sgm {
namespace {

/// One level: two residual blocks on the way down, and the block that refines its result on the way back.
/// Widths in multiples of nf; the names are those of published checkpoints.
struct LevelPlan {
  const char* name;
  int width;
  bool widens;
  int dilation;
  const char* refine;
  int refined_width;
};

// From the images inwards.
constexpr LevelPlan kSmall[] = {{"res1", 1, false, 1, "refine4", 1},
                                {"res2", 2, true, 1, "refine3", 1},
                                {"res3", 2, true, 2, "refine2", 2},
                                {"res4", 2, true, 4, "refine1", 2}};
constexpr LevelPlan kDeeper[] = {{"res1", 1, false, 1, "refine5", 1},
                                 {"res2", 2, true, 1, "refine4", 1},
                                 {"res3", 2, true, 1, "refine3", 2},
                                 {"res4", 4, true, 2, "refine2", 2},
                                 {"res5", 4, true, 4, "refine1", 4}};
constexpr LevelPlan kDeepest[] = {{"res1", 1, false, 1, "refine5", 1}, {"res2", 2, true, 1, "refine4", 1},
                                  {"res3", 2, true, 1, "refine3", 2},  {"res31", 2, true, 1, "refine31", 2},
                                  {"res4", 4, true, 2, "refine2", 2},  {"res5", 4, true, 4, "refine1", 4}};

class RefineNet final : public ScoreNetwork {
 public:
  RefineNet(const Config& config, const RefineOptions& options, std::span<const LevelPlan> plan, Builder& b);
  Var forward(const Var& x, const Tensor& noise_label, const ForwardMode& mode) override;

 private:
  struct Level {
    RefineResBlock *first, *second;
    RefineBlock* refine;
  };

  Config config_;
  DType dtype_;
  RefineOptions options_;
  ConvLayer* begin_conv_;
  InstanceNormLayer* normalizer_;
  ConvLayer* end_conv_;
  std::vector<Level> levels_;
};

RefineNet::RefineNet(const Config& config, const RefineOptions& options, std::span<const LevelPlan> plan,
                     Builder& b)
    : config_(config), dtype_(b.dtype), options_(options), levels_(plan.size()) {
  const int nf = config.model.nf, channels = config.data.num_channels;
  check(!config.training.continuous && config.sde.name == "vesde", "model.name ", config.model.name,
        " needs sde.name = \"vesde\" and training.continuous = false: it is told the index of a noise scale");
  int halved = 1;
  for (const LevelPlan& level : plan) halved *= level.widens && level.dilation == 1 ? 2 : 1;
  check(config.data.image_size % halved == 0, "data.image_size must be a multiple of ", halved, " for ",
        config.model.name, ", got ", config.data.image_size);

  begin_conv_ = &add_module<ConvLayer>("begin_conv", "begin_conv", b, channels, nf, 3, PlainConv{});
  normalizer_ = &add_module<InstanceNormLayer>("normalizer", "normalizer", b, options, nf);
  end_conv_ = &add_module<ConvLayer>("end_conv", "end_conv", b, nf, channels, 3, PlainConv{});
  int width = 1;
  for (std::size_t l = 0; l < plan.size(); ++l) {
    const auto& [name, out, widens, dilation, refine, refined] = plan[l];
    const auto add_block = [&](const char* number, const RefineResBlock::Geometry& geometry) {
      const std::string block = name + std::string(number);
      return &add_module<RefineResBlock>(block, block, b, options, geometry);
    };
    levels_[l].first = add_block(".0", {width * nf, out * nf, widens, dilation});
    levels_[l].second = add_block(".1", {out * nf, out * nf, false, dilation});
    width = out;
  }
  for (std::size_t l = plan.size(); l-- > 0;) {
    std::vector<int> in = {plan[l].width * nf};
    if (l + 1 < plan.size()) in.push_back(plan[l + 1].refined_width * nf);
    levels_[l].refine = &add_module<RefineBlock>(plan[l].refine, plan[l].refine, b, options, in,
                                                 plan[l].refined_width * nf, l == 0);
  }
}

Var RefineNet::forward(const Var& x, const Tensor& noise_label, const ForwardMode& mode) {
  check_network_inputs(x, noise_label, config_.data, dtype_);
  // The first and the last convolution stay in f32: bf16 would blur the smallest noise.
  const Var input = config_.data.centered ? x : affine(x, 2.0, -1.0);
  Var h = cast(begin_conv_->forward(input), mode.compute);
  std::vector<Var> results;
  for (const Level& level : levels_) {
    h = level.second->forward(level.first->forward(h, noise_label), noise_label);
    results.push_back(h);
  }
  Var refined;
  for (std::size_t l = levels_.size(); l-- > 0;) {
    const std::vector<Var> inputs =
        refined.defined() ? std::vector<Var>{results[l], refined} : std::vector<Var>{results[l]};
    refined = levels_[l].refine->forward(inputs, noise_label);
    results.pop_back();
  }
  h = activate(normalizer_->forward(refined, noise_label), options_.activation);
  const Var output = end_conv_->forward_f32(h);
  if (options_.conditional()) return output;
  return scale_images(output, inverse_sigma(noise_label, config_.sde, LabelKind::index));
}

std::unique_ptr<ScoreNetwork> create_v2(const Config& config, std::span<const LevelPlan> plan, Builder& b) {
  return std::make_unique<RefineNet>(config, RefineOptions{activation_from(config.model.nonlinearity)}, plan,
                                     b);
}

}  // namespace

std::unique_ptr<ScoreNetwork> create_ncsn(const Config& config, Builder& b) {
  const RefineOptions options{activation_from(config.model.nonlinearity), config.sde.num_scales};
  return std::make_unique<RefineNet>(config, options, kSmall, b);
}
std::unique_ptr<ScoreNetwork> create_ncsnv2_64(const Config& config, Builder& b) {
  return create_v2(config, kSmall, b);
}
std::unique_ptr<ScoreNetwork> create_ncsnv2_128(const Config& config, Builder& b) {
  return create_v2(config, kDeeper, b);
}
std::unique_ptr<ScoreNetwork> create_ncsnv2_256(const Config& config, Builder& b) {
  return create_v2(config, kDeepest, b);
}

}  // namespace sgm
