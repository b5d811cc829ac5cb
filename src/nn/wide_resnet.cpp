// The noise-conditional Wide-ResNet of Song et al. 2021, Appendix I.1.

#include <algorithm>
#include <array>
#include <cmath>

#include "sgm/core/registry.h"
#include "sgm/nn/classifier.h"
#include "sgm/nn/layers.h"

namespace sgm {
namespace {

/// Means and standard deviations of the channels of CIFAR-10, by which the published classifier divides.
constexpr std::array kMeans = {0.49139968, 0.48215841, 0.44653091};
constexpr std::array kStds = {0.24703223, 0.24348513, 0.26158784};

int groups_of(int channels) { return std::min(channels / 4, 32); }

/// Normal with variance 1 / fan_in; bias 0.
Tensor dense_weight(Builder& b, int in, int out) { return b.normal({out, in}, std::sqrt(1.0 / in)); }
/// Normal with variance 2 / fan_out; no bias.
Tensor conv_weight(Builder& b, int in, int out) {
  return b.normal({out, 3, 3, in}, std::sqrt(2.0 / (9.0 * out)));
}

/// 'SAME' padding of a 3x3 filter: an even image that is halved gets its zeros after the last pixel.
Conv2dParams same_padding(std::int64_t size, int stride) {
  const bool is_uneven = stride == 2 && size % 2 == 0;
  return {.stride = stride, .pad_begin = is_uneven ? 0 : 1, .pad_end = 1};
}

/// Norm, relu, 3x3 convolution, noise shift, norm, relu, 3x3 convolution, + shortcut.
class WideBlock : public Module {
 public:
  /// activate_first: the shortcut, too, starts behind the first norm.
  WideBlock(Builder& b, int in, int out, int stride, int temb_dim, bool activate_first)
      : out_(out),
        stride_(stride),
        activate_first_(activate_first),
        norm0_(&add_module<NormLayer>("norm0", "init_bn", b, in, groups_of(in), Activation::relu, 1e-5)),
        conv0_(&add_module<ConvLayer>("conv0", "conv1", conv_weight(b, in, out))),
        shift_(&add_module<LinearLayer>("shift", "Dense_0", b, dense_weight(b, temb_dim, out))),
        norm1_(&add_module<NormLayer>("norm1", "bn_2", b, out, groups_of(out), Activation::relu, 1e-5)),
        conv1_(&add_module<ConvLayer>("conv1", "conv2", conv_weight(b, out, out))) {}

  /// x [N, H, W, in] -> [N, ceil(H / stride), ceil(W / stride), out]; temb [N, temb_dim], activated.
  Var forward(const Var& x, const Var& temb) const {
    const Range block = range(x);
    const Var a = norm0_->forward(x);
    const Var h = conv0_->forward(a, same_padding(x.shape()[1], stride_));
    return conv1_->forward(norm1_->forward(h, {shift_->forward(temb), 0}, 0.0, {}),
                           shortcut(activate_first_ ? a : x), 1.0);
  }

 private:
  /// 2x2 means where the block halves the image, and zeros for the channels that it adds.
  Var shortcut(Var x) const {
    if (stride_ == 2) {
      ResampleParams mean = downsample_params({1, 1});
      mean.pad1 += static_cast<int>(x.shape()[1] % 2);
      x = resample(x, mean);
    }
    const Shape s = x.shape();
    if (s[3] == out_) return x;
    const Tensor& value = x.value();
    return concat_channels(
        x, Var(Tensor::zeros(value.context(), {s[0], s[1], s[2], out_ - s[3]}, value.dtype())));
  }

  int out_, stride_;
  bool activate_first_;
  NormLayer* norm0_;
  ConvLayer* conv0_;
  LinearLayer* shift_;
  NormLayer* norm1_;
  ConvLayer* conv1_;
};

class WideResNet : public Classifier {
 public:
  WideResNet(const Config& config, Builder& b) {
    const ClassifierConfig& c = config.classifier;
    const int temb_dim = 4 * c.embedding;
    scale_channels(b.context, config.data.num_channels);
    embedding_ = &add_module<NoiseEmbedding>("embedding", "GaussianFourierProjection_0", b, c.embedding,
                                             c.fourier_scale);
    linear0_ =
        &add_module<LinearLayer>("linear0", "Dense_0", b, dense_weight(b, embedding_->dim(), temb_dim));
    linear1_ = &add_module<LinearLayer>("linear1", "Dense_1", b, dense_weight(b, temb_dim, temb_dim));
    conv_in_ = &add_module<ConvLayer>("conv_in", "init_conv",
                                      conv_weight(b, config.data.num_channels, c.base_width));
    int width = c.base_width;
    for (int group = 0; group < kGroups; ++group)
      for (int block = 0; block < c.blocks; ++block) {
        const int out = c.base_width * c.widen_factor << group, stride = group > 0 && block == 0 ? 2 : 1;
        const std::string g = std::to_string(group), k = std::to_string(block);
        blocks_.push_back(&add_module<WideBlock>("group" + g + ".block" + k,
                                                 "WideResnetGroup_" + g + ".WideResnetBlock_" + k, b, width,
                                                 out, stride, temb_dim, group == 0 && block == 0));
        width = out;
      }
    norm_out_ =
        &add_module<NormLayer>("norm_out", "pre-pool-bn", b, width, groups_of(width), Activation::relu, 1e-5);
    linear_out_ = &add_module<LinearLayer>("linear_out", "Dense_2", b,
                                           b.uniform({c.num_classes, width}, 1.0 / std::sqrt(c.num_classes)));
  }

  Var forward(const Var& x, const Tensor& sigma, const ForwardMode& mode) override {
    const Shape s = x.shape();
    check(s.rank() == 4 && s[3] == channel_scale_.numel(), "classifier: images must be [N, H, W, ",
          channel_scale_.numel(), "], got ", s);
    check(sigma.shape() == Shape({s[0]}) && sigma.dtype() == DType::f64, "classifier: noise levels must be [",
          s[0], "] f64, got ", sigma.shape(), " ", sigma.dtype());
    const Var normal = standardise(x, channel_scale_, channel_shift_);
    const Var features = embedding_->forward(sigma, x.value().dtype());
    const Var temb = linear1_->forward(activate(linear0_->forward(features), Activation::swish));
    const Var active = activate(temb, Activation::swish);
    Var h = cast(conv_in_->forward(normal), mode.compute);
    for (const WideBlock* block : blocks_) h = block->forward(h, active);
    return linear_out_->forward(mean_pixels(norm_out_->forward(h)));
  }

 private:
  static constexpr int kGroups = 3;

  /// Grey images need none: each is standardised anyway.
  void scale_channels(Context& context, int channels) {
    std::vector<double> scale, shift;
    for (int c = 0; c < channels; ++c) {
      scale.push_back(channels == 3 ? 1.0 / kStds[c] : 1.0);
      shift.push_back(channels == 3 ? -kMeans[c] / kStds[c] : 0.0);
    }
    channel_scale_ = Tensor::from_host(context, std::span<const double>(scale), {channels});
    channel_shift_ = Tensor::from_host(context, std::span<const double>(shift), {channels});
  }

  Tensor channel_scale_, channel_shift_;  // [C] f64
  NoiseEmbedding* embedding_;
  LinearLayer *linear0_, *linear1_;
  ConvLayer* conv_in_;
  std::vector<WideBlock*> blocks_;
  NormLayer* norm_out_;
  LinearLayer* linear_out_;
};

void check_options(const Config& config) {
  const ClassifierConfig& c = config.classifier;
  check(c.num_classes >= 2, "classifier.num_classes must be at least 2, got ", c.num_classes);
  const int wide = c.base_width * c.widen_factor;
  for (const int width : {c.base_width, wide, 2 * wide, 4 * wide})
    check(width % 4 == 0 && width % groups_of(width) == 0, "classifier: ", width,
          " channels do not split into groups of the norm; choose classifier.base_width a multiple of 4, and "
          "base_width times widen_factor one of 32 above 128");
}

std::unique_ptr<Classifier> create_wide_resnet(const Config& config, Builder& builder) {
  check_options(config);
  return std::make_unique<WideResNet>(config, builder);
}

struct ClassifierEntry {
  const char* name;
  std::unique_ptr<Classifier> (*create)(const Config&, Builder&);
};
constexpr ClassifierEntry kClassifiers[] = {{"wide_resnet", create_wide_resnet}};

}  // namespace

std::unique_ptr<Classifier> create_classifier(const Config& config, Context& context, DType dtype,
                                              bool initialise) {
  Builder builder{context, config.training.seed, dtype, 0, 0, initialise};
  return find_entry(kClassifiers, config.classifier.name, "classifier.name").create(config, builder);
}

std::vector<std::string> classifier_names() { return names_of(kClassifiers); }

}  // namespace sgm
