#include "sgm/nn/layers.h"

#include <cmath>
#include <utility>

#include "kernels/elementwise.h"

namespace sgm {
namespace {

using Layout = ReferencePart::Layout;

std::vector<ReferencePart> conv_weight_name(ConvStyle style) {
  return style == ConvStyle::nin ? std::vector<ReferencePart>{{"W", Layout::transposed}}
                                 : std::vector<ReferencePart>{{"weight", Layout::oihw}};
}

}  // namespace

double init_bound(double scale, int fan_in, int fan_out) {
  return std::sqrt(3.0 * (scale == 0.0 ? 1e-10 : scale) / (0.5 * (fan_in + fan_out)));
}

LinearLayer::LinearLayer(Builder& b, int in, int out, double scale)
    : LinearLayer(b, b.uniform({out, in}, init_bound(scale, in, out))) {}

LinearLayer::LinearLayer(Builder& b, Tensor weight)
    : weight_(add_parameter("weight", std::move(weight), {{"weight"}})),
      bias_(add_parameter("bias", b.constant({weight_.shape()[0]}, 0.0), {{"bias"}})) {}

ConvLayer::ConvLayer(Builder& b, int in, int out, int filter, double scale, ConvStyle style)
    : weight_(add_parameter("weight",
                            b.uniform({out, filter, filter, in},
                                      init_bound(scale, in * filter * filter, out * filter * filter)),
                            conv_weight_name(style))),
      params_{1, filter / 2, filter / 2} {
  if (style != ConvStyle::bias_free)
    bias_ = &add_parameter("bias", b.constant({out}, 0.0), {{style == ConvStyle::nin ? "b" : "bias"}});
}

ConvLayer::ConvLayer(Tensor weight)
    : weight_(add_parameter("weight", std::move(weight), conv_weight_name(ConvStyle::bias_free))),
      params_{1, static_cast<int>(weight_.shape()[1] / 2), static_cast<int>(weight_.shape()[1] / 2)} {}

ConvLayer::ConvLayer(Builder& b, int in, int out, int filter, const PlainConv& plain)
    : weight_(add_parameter("weight",
                            b.uniform({out, filter, filter, in}, 1.0 / std::sqrt(in * filter * filter)),
                            conv_weight_name(ConvStyle::conv))),
      params_{.dilation = plain.dilation} {
  params_.pad_begin = params_.pad_end = filter / 2 * plain.dilation;
  if (plain.bias)
    bias_ = &add_parameter("bias", b.uniform({out}, 1.0 / std::sqrt(in * filter * filter)), {{"bias"}});
}

Var ConvLayer::forward_f32(const Var& x) const {
  Conv2dParams params = params_;
  params.keep_f32 = true;
  return forward(x, params);
}

QkvLayer::QkvLayer(Builder& b, int c)
    : weight_(add_parameter("weight", b.uniform({3 * c, 1, 1, c}, init_bound(0.1, c, c)),
                            {{"NIN_0.W", Layout::transposed, 0, c},
                             {"NIN_1.W", Layout::transposed, c, c},
                             {"NIN_2.W", Layout::transposed, 2 * c, c}})),
      bias_(add_parameter("bias", b.constant({3 * c}, 0.0),
                          {{"NIN_0.b", Layout::same, 0, c},
                           {"NIN_1.b", Layout::same, c, c},
                           {"NIN_2.b", Layout::same, 2 * c, c}})) {}

NormLayer::NormLayer(Builder& b, int channels, int groups, Activation activation, double eps)
    : gamma_(add_parameter("weight", b.constant({channels}, 1.0), {{"weight"}})),
      beta_(add_parameter("bias", b.constant({channels}, 0.0), {{"bias"}})),
      params_{groups, eps, activation, 0.0, {}} {
  check(groups > 0 && channels % groups == 0, "model: ", channels, " channels do not split into ", groups,
        " groups; choose nf a multiple of ", 4 * groups);
}

Var NormLayer::forward(const Var& x, const ChannelShift& shift, double dropout, const NoiseKey& key) const {
  const Range layer = range(x);
  GroupNormParams params = params_;
  params.dropout = dropout;
  params.dropout_key = key;
  return group_norm(x, gamma_, beta_, params, shift);
}

NoiseEmbedding::NoiseEmbedding(Builder& b, int frequencies, double std)
    : dim_(2 * frequencies),
      frequencies_(&add_parameter("frequencies", b.normal({frequencies}, std), {{"W"}}, false)) {}

NoiseEmbedding::NoiseEmbedding(Builder& b, const ModelConfig& model) : dim_(model.nf) {
  if (model.embedding_type == "fourier") {
    dim_ = 2 * model.nf;
    frequencies_ = &add_parameter("frequencies", b.normal({model.nf}, model.fourier_scale), {{"W"}}, false);
    return;
  }
  check(model.embedding_type == "positional", "model.embedding_type '", model.embedding_type,
        "' is unknown; known: fourier, positional");
}

Var NoiseEmbedding::forward(const Tensor& noise_label, DType dtype) const {
  Context& context = noise_label.context();
  const Range layer(context, name().c_str());
  const std::int64_t n = noise_label.shape()[0];
  Tensor y = Tensor::empty(context, {n, dim_}, dtype);
  if (!frequencies_) {
    run(PositionalEmbedding{noise_label.buffer(), y.buffer(), n, dim_}, context);
    return Var(y);
  }
  run(FourierEmbedding{noise_label.buffer(), frequencies_->value().const_buffer(), y.buffer(), n, dim_ / 2},
      context);
  return Var(y);
}

}  // namespace sgm
