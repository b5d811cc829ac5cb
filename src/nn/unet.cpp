#include "nn/unet.h"

#include <algorithm>
#include <cmath>

#include "nn/network_parts.h"
#include "sgm/core/registry.h"
#include "sgm/nn/blocks.h"

namespace sgm {
namespace {

/// One resolution of the encoder.
struct DownLevel {
  struct Stage {
    ResBlock* block;
    AttentionBlock* attention;  // null where the resolution has none
  };
  std::vector<Stage> stages;
  ResBlock* down_block = nullptr;       // biggan: resampling residual block
  ResampleBlock* down_plain = nullptr;  // ddpm: plain resampling
  ResampleBlock* pyramid_down = nullptr;
  ConvLayer* pyramid_combine = nullptr;  // input_skip: 1x1 convolution of the image pyramid
};

/// One resolution of the decoder.
struct UpLevel {
  std::vector<ResBlock*> blocks;
  AttentionBlock* attention = nullptr;
  NormLayer* pyramid_norm = nullptr;
  ConvLayer* pyramid_conv = nullptr;
  ResampleBlock* pyramid_up = nullptr;
  ResBlock* up_block = nullptr;
  ResampleBlock* up_plain = nullptr;
};

enum class Progressive { none, output_skip, residual };
enum class ProgressiveInput { none, input_skip, residual };

constexpr struct {
  const char* name;
  Progressive value;
} kProgressive[] = {{"none", Progressive::none},
                    {"output_skip", Progressive::output_skip},
                    {"residual", Progressive::residual}};
constexpr struct {
  const char* name;
  ProgressiveInput value;
} kProgressiveInput[] = {{"none", ProgressiveInput::none},
                         {"input_skip", ProgressiveInput::input_skip},
                         {"residual", ProgressiveInput::residual}};

class UNet final : public ScoreNetwork {
 public:
  UNet(const Config& config, const BlockOptions& options, Builder& builder);
  Var forward(const Var& x, const Tensor& noise_label, const ForwardMode& mode) override;

 private:
  void build_embedding(Builder& b);
  int build_encoder(Builder& b);
  void build_middle(Builder& b, int channels);
  int build_decoder(Builder& b, int channels);
  void build_pyramid_output(Builder& b, UpLevel& level, std::size_t l, int channels, int& pyramid_channels);

  Var noise_shifts(const Tensor& noise_label, DType dtype) const;
  Var encode(const Var& x, const Var& shifts, const ForwardMode& mode, std::vector<Var>& skips) const;
  Var decode(Var h, const Var& shifts, const ForwardMode& mode, std::vector<Var>& skips) const;
  Var resampled_down(const DownLevel& level, const Var& h, const Var& shifts, const ForwardMode& mode) const;

  bool attends(std::size_t level) const {
    const int resolution = config_.data.image_size >> level;
    const auto& list = config_.model.attn_resolutions;
    return std::find(list.begin(), list.end(), resolution) != list.end();
  }
  std::size_t levels() const { return config_.model.ch_mult.size(); }
  int channels_of(std::size_t level) const { return config_.model.nf * config_.model.ch_mult[level]; }
  /// The name of the next module in published checkpoints: a flat list, numbered in construction order.
  std::string next() { return "all_modules." + std::to_string(index_++); }

  ResBlock& add_block(const std::string& name, Builder& b, int in, int out,
                      Resampling resampling = Resampling::none);

  Config config_;
  DType dtype_;
  BlockOptions options_;
  NoiseShifts* shifts_ = nullptr;
  Progressive progressive_;
  ProgressiveInput progressive_input_;
  bool cat_;
  int index_ = 0;
  std::vector<int> skip_channels_;

  NoiseEmbedding* embedding_ = nullptr;
  LinearLayer *linear0_ = nullptr, *linear1_ = nullptr;
  ConvLayer* conv_in_ = nullptr;
  std::vector<DownLevel> down_;
  ResBlock *middle0_ = nullptr, *middle1_ = nullptr;
  AttentionBlock* middle_attention_ = nullptr;
  std::vector<UpLevel> up_;
  NormLayer* norm_out_ = nullptr;
  ConvLayer* conv_out_ = nullptr;
};

UNet::UNet(const Config& config, const BlockOptions& options, Builder& b)
    : config_(config),
      dtype_(b.dtype),
      options_(options),
      progressive_(find_entry(kProgressive, config.model.progressive, "model.progressive").value),
      progressive_input_(
          find_entry(kProgressiveInput, config.model.progressive_input, "model.progressive_input").value),
      cat_(config.model.progressive_combine == "cat"),
      down_(config.model.ch_mult.size()),
      up_(config.model.ch_mult.size()) {
  check(cat_ || config.model.progressive_combine == "sum", "model.progressive_combine '",
        config.model.progressive_combine, "' is unknown; known: sum, cat");
  build_embedding(b);
  shifts_ = &add_module<NoiseShifts>("noise_shifts", "");
  conv_in_ = &add_module<ConvLayer>("conv_in", next(), b, config.data.num_channels, config.model.nf, 3);
  int channels = build_encoder(b);
  build_middle(b, channels);
  channels = build_decoder(b, channels);
  shifts_->build(b, options_.temb_dim);
  if (progressive_ != Progressive::output_skip) {
    norm_out_ = &add_module<NormLayer>("norm_out", next(), b, channels, options_.groups(channels),
                                       options_.activation);
    conv_out_ = &add_module<ConvLayer>("conv_out", next(), b, channels, config.data.num_channels, 3,
                                       config.model.init_scale);
  }
}

ResBlock& UNet::add_block(const std::string& name, Builder& b, int in, int out, Resampling resampling) {
  const std::string reference = next();
  const std::int64_t first_shift = shifts_->add(reference, out);
  return add_module<ResBlock>(name, reference, b, options_, first_shift, in, out, resampling);
}

void UNet::build_embedding(Builder& b) {
  const ModelConfig& m = config_.model;
  // Only the Fourier embedding has an entry in the published list.
  const bool fourier = m.embedding_type == "fourier";
  embedding_ = &add_module<NoiseEmbedding>("time", fourier ? next() : "", b, m);
  if (!m.conditional) return;
  linear0_ = &add_module<LinearLayer>("time.linear0", next(), b, embedding_->dim(), 4 * m.nf);
  linear1_ = &add_module<LinearLayer>("time.linear1", next(), b, 4 * m.nf, 4 * m.nf);
}

int UNet::build_encoder(Builder& b) {
  const ModelConfig& m = config_.model;
  int channels = m.nf, pyramid_channels = config_.data.num_channels;
  skip_channels_ = {channels};
  for (std::size_t l = 0; l < levels(); ++l) {
    DownLevel& level = down_[l];
    const std::string name = "down." + std::to_string(l) + '.';
    for (int i = 0; i < m.num_res_blocks; ++i) {
      const std::string number = std::to_string(i);
      ResBlock& block = add_block(name + "block" + number, b, channels, channels_of(l));
      channels = channels_of(l);
      AttentionBlock* attention =
          attends(l) ? &add_module<AttentionBlock>(name + "attention" + number, next(), b, options_, channels)
                     : nullptr;
      level.stages.push_back({&block, attention});
      skip_channels_.push_back(channels);
    }
    if (l + 1 == levels()) break;
    if (options_.biggan)
      level.down_block = &add_block(name + "resample", b, channels, channels, Resampling::down);
    else
      level.down_plain = &add_module<ResampleBlock>(name + "resample", next(), b, options_, Resampling::down,
                                                    m.resamp_with_conv, channels, channels);
    if (progressive_input_ == ProgressiveInput::input_skip) {
      level.pyramid_down =
          &add_module<ResampleBlock>(name + "pyramid", "", b, options_, Resampling::down, false, 0, 0);
      const std::string reference = next() + ".Conv_0";
      level.pyramid_combine =
          &add_module<ConvLayer>(name + "pyramid.conv", reference, b, pyramid_channels, channels, 1);
      if (cat_) channels *= 2;
    }
    if (progressive_input_ == ProgressiveInput::residual) {
      level.pyramid_down = &add_module<ResampleBlock>(name + "pyramid", next(), b, options_, Resampling::down,
                                                      true, pyramid_channels, channels);
      pyramid_channels = channels;
    }
    skip_channels_.push_back(channels);
  }
  return channels;
}

void UNet::build_middle(Builder& b, int channels) {
  middle0_ = &add_block("middle.block0", b, channels, channels);
  middle_attention_ = &add_module<AttentionBlock>("middle.attention", next(), b, options_, channels);
  middle1_ = &add_block("middle.block1", b, channels, channels);
}

int UNet::build_decoder(Builder& b, int channels) {
  const ModelConfig& m = config_.model;
  int pyramid_channels = 0;
  std::vector<int> skips = skip_channels_;
  for (std::size_t l = levels(); l-- > 0;) {
    UpLevel& level = up_[l];
    const std::string name = "up." + std::to_string(l) + '.';
    for (int i = 0; i <= m.num_res_blocks; ++i) {
      level.blocks.push_back(
          &add_block(name + "block" + std::to_string(i), b, channels + skips.back(), channels_of(l)));
      skips.pop_back();
      channels = channels_of(l);
    }
    if (attends(l))
      level.attention = &add_module<AttentionBlock>(name + "attention", next(), b, options_, channels);
    build_pyramid_output(b, level, l, channels, pyramid_channels);
    if (l == 0) break;
    if (options_.biggan)
      level.up_block = &add_block(name + "resample", b, channels, channels, Resampling::up);
    else
      level.up_plain = &add_module<ResampleBlock>(name + "resample", next(), b, options_, Resampling::up,
                                                  m.resamp_with_conv, channels, channels);
  }
  check(skips.empty(), "unet: internal error, unused skip connections");
  return channels;
}

void UNet::build_pyramid_output(Builder& b, UpLevel& level, std::size_t l, int channels,
                                int& pyramid_channels) {
  if (progressive_ == Progressive::none) return;
  const std::string name = "up." + std::to_string(l) + ".pyramid";
  const bool lowest = l + 1 == levels();
  if (progressive_ == Progressive::residual && !lowest) {
    level.pyramid_up = &add_module<ResampleBlock>(name, next(), b, options_, Resampling::up, true,
                                                  pyramid_channels, channels);
    pyramid_channels = channels;
    return;
  }
  if (progressive_ == Progressive::output_skip && !lowest)
    level.pyramid_up = &add_module<ResampleBlock>(name, "", b, options_, Resampling::up, false, 0, 0);
  const bool skip = progressive_ == Progressive::output_skip;
  const int out = skip ? config_.data.num_channels : channels;
  level.pyramid_norm = &add_module<NormLayer>(name + ".norm", next(), b, channels, options_.groups(channels),
                                              options_.activation);
  level.pyramid_conv = &add_module<ConvLayer>(name + ".conv", next(), b, channels, out, 3,
                                              skip ? config_.model.init_scale : 1.0);
  pyramid_channels = out;
}

Var UNet::noise_shifts(const Tensor& noise_label, DType dtype) const {
  if (!config_.model.conditional) return shifts_->forward(noise_label.context(), noise_label.shape()[0]);
  const Var h = activate(linear0_->forward(embedding_->forward(noise_label, dtype)), options_.activation);
  // Every block applies the activation to the embedding before its own projection: once is enough.
  return shifts_->forward(activate(linear1_->forward(h), options_.activation));
}

Var UNet::resampled_down(const DownLevel& level, const Var& h, const Var& shifts,
                         const ForwardMode& mode) const {
  return level.down_block ? level.down_block->forward(h, {}, shifts, mode) : level.down_plain->forward(h);
}

Var UNet::encode(const Var& x, const Var& shifts, const ForwardMode& mode, std::vector<Var>& skips) const {
  const double rescale = options_.rescale();
  // The first convolutions see the noisy image itself and stay in f32: bf16 would blur the smallest noise.
  Var h = conv_in_->forward_as(x, mode.compute), pyramid = x;
  skips.push_back(h);
  for (std::size_t l = 0; l < levels(); ++l) {
    const DownLevel& level = down_[l];
    for (const DownLevel::Stage& stage : level.stages) {
      h = stage.block->forward(h, {}, shifts, mode);
      if (stage.attention) h = stage.attention->forward(h);
      skips.push_back(h);
    }
    if (l + 1 == levels()) break;
    h = resampled_down(level, h, shifts, mode);
    if (progressive_input_ == ProgressiveInput::input_skip) {
      pyramid = level.pyramid_down->forward(pyramid);
      const Var combined = cast(level.pyramid_combine->forward(pyramid), mode.compute);
      h = cat_ ? concat_channels(combined, h) : add(combined, h);
    }
    if (progressive_input_ == ProgressiveInput::residual) {
      // In this order the way back comes through the blocks last, whose norms add what came the other way.
      pyramid = add(h, cast(level.pyramid_down->forward(pyramid), mode.compute), rescale, rescale);
      h = pyramid;
    }
    skips.push_back(h);
  }
  return h;
}

Var UNet::decode(Var h, const Var& shifts, const ForwardMode& mode, std::vector<Var>& skips) const {
  const double rescale = options_.rescale();
  Var pyramid;
  for (std::size_t l = levels(); l-- > 0;) {
    const UpLevel& level = up_[l];
    for (const ResBlock* block : level.blocks) {
      h = block->forward(h, skips.back(), shifts, mode);
      skips.pop_back();
    }
    if (level.attention) h = level.attention->forward(h);
    if (progressive_ == Progressive::output_skip) {
      const Var image = level.pyramid_conv->forward_f32(level.pyramid_norm->forward(h));
      pyramid = pyramid.defined() ? add(level.pyramid_up->forward(pyramid), image) : image;
    }
    if (progressive_ == Progressive::residual) {
      if (pyramid.defined())
        h = pyramid = add(level.pyramid_up->forward(pyramid), h, rescale, rescale);
      else
        pyramid = level.pyramid_conv->forward(level.pyramid_norm->forward(h));
    }
    if (l == 0) break;
    h = level.up_block ? level.up_block->forward(h, {}, shifts, mode) : level.up_plain->forward(h);
  }
  if (progressive_ == Progressive::output_skip) return pyramid;
  return conv_out_->forward_f32(norm_out_->forward(h));
}

Var UNet::forward(const Var& x, const Tensor& noise_label, const ForwardMode& mode) {
  check_network_inputs(x, noise_label, config_.data, dtype_);
  const Var shifts = noise_shifts(noise_label, x.value().dtype());
  std::vector<Var> skips;
  const Var input = config_.data.centered ? x : affine(x, 2.0, -1.0);
  Var h = encode(input, shifts, mode, skips);
  h = middle0_->forward(h, {}, shifts, mode);
  h = middle_attention_->forward(h);
  h = middle1_->forward(h, {}, shifts, mode);
  h = decode(h, shifts, mode, skips);
  if (!config_.model.scale_by_sigma) return h;
  const LabelKind kind = config_.model.embedding_type == "fourier" ? LabelKind::sigma : LabelKind::index;
  return scale_images(h, inverse_sigma(noise_label, config_.sde, kind));
}

}  // namespace

std::unique_ptr<ScoreNetwork> create_ncsnpp(const Config& config, Builder& builder) {
  return std::make_unique<UNet>(config, BlockOptions(config.model), builder);
}

std::unique_ptr<ScoreNetwork> create_ddpm(const Config& config, Builder& builder) {
  Config plain = config;
  plain.model.resblock_type = "ddpm";
  plain.model.fir = false;
  plain.model.skip_rescale = false;
  plain.model.progressive = plain.model.progressive_input = "none";
  plain.model.embedding_type = "positional";
  plain.model.init_scale = 0.0;
  BlockOptions options(plain.model);
  options.fixed_groups = 32;
  return std::make_unique<UNet>(plain, options, builder);
}

}  // namespace sgm
