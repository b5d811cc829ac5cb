#include "sgm/nn/blocks.h"

#include <algorithm>
#include <utility>

namespace sgm {

BlockOptions::BlockOptions(const ModelConfig& model)
    : activation(activation_from(model.nonlinearity)),
      temb_dim(4 * model.nf),
      biggan(model.resblock_type == "biggan"),
      fir(model.fir),
      fir_kernel(model.fir_kernel),
      skip_rescale(model.skip_rescale),
      init_scale(model.init_scale),
      dropout(model.dropout) {
  check(biggan || model.resblock_type == "ddpm", "model.resblock_type '", model.resblock_type,
        "' is unknown; known: biggan, ddpm");
}

int BlockOptions::groups(int channels) const {
  return fixed_groups ? fixed_groups : std::min(channels / 4, 32);
}

std::int64_t NoiseShifts::add(const std::string& reference, int channels) {
  blocks_.push_back({reference, channels_, channels});
  channels_ += channels;
  return blocks_.back().first;
}

void NoiseShifts::build(Builder& b, int temb_dim) {
  std::vector<float> weights;
  weights.reserve(static_cast<std::size_t>(channels_ * temb_dim));
  std::vector<ReferencePart> weight_parts, bias_parts, conv_parts;
  for (const Block& block : blocks_) {
    const double bound = init_bound(1.0, temb_dim, static_cast<int>(block.channels));
    const std::vector<float> drawn = b.uniform({block.channels, temb_dim}, bound).to_host();
    weights.insert(weights.end(), drawn.begin(), drawn.end());
    const auto part = [&](const char* name) {
      return ReferencePart{block.reference + name, ReferencePart::Layout::same, block.first, block.channels};
    };
    weight_parts.push_back(part(".Dense_0.weight"));
    bias_parts.push_back(part(".Dense_0.bias"));
    conv_parts.push_back(part(".Conv_0.bias"));
  }
  weight_ = &add_parameter(
      "weight", Tensor::from_host(b.context, std::span<const float>(weights), {channels_, temb_dim}, b.dtype),
      std::move(weight_parts));
  bias_ = &add_parameter("bias", b.constant({channels_}, 0.0), std::move(bias_parts));
  conv_bias_ = &add_parameter("conv_bias", b.constant({channels_}, 0.0), std::move(conv_parts));
}

Var NoiseShifts::forward(const Var& temb) const {
  const Range layer = range(temb);
  return linear(temb, *weight_, sgm::add(*bias_, *conv_bias_));
}

Var NoiseShifts::forward(Context& context, std::int64_t n) const {
  return add_bias(Var(Tensor::zeros(context, {n, channels_}, conv_bias_->value().dtype())), *conv_bias_);
}

ResBlock::ResBlock(Builder& b, const BlockOptions& o, std::int64_t first_shift, int in, int out,
                   Resampling resampling)
    : resampling_(resampling),
      resample_(resampling == Resampling::up ? o.up() : o.down()),
      rescale_(o.rescale()),
      dropout_(o.dropout),
      dropout_index_(b.dropouts++),
      first_shift_(first_shift),
      norm0_(&add_module<NormLayer>("norm0", "GroupNorm_0", b, in, o.groups(in), o.activation)),
      conv0_(&add_module<ConvLayer>("conv0", "Conv_0", b, in, out, 3, 1.0, ConvStyle::bias_free)),
      norm1_(&add_module<NormLayer>("norm1", "GroupNorm_1", b, out, o.groups(out), o.activation)),
      conv1_(&add_module<ConvLayer>("conv1", "Conv_1", b, out, out, 3, o.init_scale)) {
  if (o.biggan && (in != out || resampling != Resampling::none))
    shortcut_ = &add_module<ConvLayer>("shortcut", "Conv_2", b, in, out, 1);
  if (!o.biggan && in != out)
    shortcut_ = &add_module<ConvLayer>("shortcut", "NIN_0", b, in, out, 1, 0.1, ConvStyle::nin);
}

namespace {

/// Room for the channels of a and b in one tensor where that pays, else none. It saves about the bytes that
/// it costs, and two of three products, which are short where images are small.
Tensor side_by_side(const Tensor& a, const Tensor& b) {
  constexpr std::int64_t kSmall = 16 * 16;  // pixels
  const Shape s = a.shape();
  if (!b.defined() || s[1] * s[2] > kSmall) return {};
  return Tensor::empty(a.context(), {s[0], s[1], s[2], s[3] + b.shape()[-1]}, a.dtype());
}

}  // namespace

Var ResBlock::forward(const Var& input, const Var& input2, const Var& shifts, const ForwardMode& mode) const {
  const Range block = range(input);
  // Only a shortcut convolution reads two inputs as one.
  const bool copied = input2.defined() && (!shortcut_ || resampling_ != Resampling::none);
  Var x = copied ? concat_channels(input, input2) : input;
  const Var x2 = copied ? Var() : input2;
  Var h;
  Tensor joined;
  if (resampling_ != Resampling::none) {
    ResampledNorm both = norm0_->forward_resampled(x, resample_);
    h = std::move(both.normalised), x = std::move(both.input);
  } else {
    joined = side_by_side(x.value(), x2.value());
    h = norm0_->forward_two(x, x2, joined);
  }
  NoiseKey key = mode.noise;
  key.purpose = static_cast<Purpose>(static_cast<std::uint32_t>(Purpose::dropout) + dropout_index_);
  // The shift is added inside the norm, which reads h anyway.
  h = norm1_->forward(conv0_->forward(h), {shifts, first_shift_}, mode.training ? dropout_ : 0.0, key);
  if (shortcut_) x = shortcut_->forward_two(x, x2, joined);
  return conv1_->forward(h, x, rescale_);
}

AttentionBlock::AttentionBlock(Builder& b, const BlockOptions& o, int channels)
    : rescale_(o.rescale()),
      norm_(&add_module<NormLayer>("norm", "GroupNorm_0", b, channels, o.groups(channels))),
      qkv_(&add_module<QkvLayer>("qkv", "", b, channels)),
      project_(&add_module<ConvLayer>("project", "NIN_3", b, channels, channels, 1, o.init_scale,
                                      ConvStyle::nin)) {}

Var AttentionBlock::forward(const Var& x) const {
  const Range block = range(x);
  return project_->forward(attention(qkv_->forward(norm_->forward(x))), x, rescale_);
}

ResampleBlock::ResampleBlock(Builder& b, const BlockOptions& o, Resampling resampling, bool with_conv, int in,
                             int out)
    : resampling_(resampling),
      fir_(o.fir),
      plain_(resampling == Resampling::up ? o.up() : o.down()),
      around_conv_(resampling == Resampling::up ? upsample_conv_params(o.fir_kernel)
                                                : conv_downsample_params(o.fir_kernel)) {
  if (with_conv) conv_ = &add_module<ConvLayer>("conv", fir_ ? "Conv2d_0" : "Conv_0", b, in, out, 3);
}

Var ResampleBlock::forward(const Var& x) const {
  const Range block = range(x);
  return resampling_ == Resampling::down ? down(x) : up(x);
}

Var ResampleBlock::down(const Var& x) const {
  if (!conv_) return resample(x, plain_);
  // FIR to one pixel more than the image, then an unpadded stride-2 convolution; plain: pad right and bottom.
  if (fir_) return conv_->forward(resample(x, around_conv_), {.stride = 2});
  return conv_->forward(x, {.stride = 2, .pad_begin = 0, .pad_end = 1});
}

Var ResampleBlock::up(const Var& x) const {
  if (!conv_) return resample(x, plain_);
  if (!fir_) return conv_->forward(resample(x, plain_));
  // Zero-insert to 2H - 1, full correlation to 2H + 1, FIR to 2H; the bias comes last in the original, but
  // the FIR passes constants only away from the border, so it is kept out of the convolution.
  const Var spread = resample(x, {.up = 2, .down = 1, .pad0 = 0, .pad1 = -1, .taps = {1.0}});
  return conv_->forward_then(spread, {.stride = 1, .pad_begin = 2, .pad_end = 2}, around_conv_);
}

}  // namespace sgm
