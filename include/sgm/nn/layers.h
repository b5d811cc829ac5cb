#pragma once
// Layers with parameters, initialised as the original: weights uniform with variance scale / fan_avg, biases
// 0.

#include "sgm/autograd/ops.h"
#include "sgm/nn/module.h"

namespace sgm {

/// Half-width of the uniform distribution with variance scale / fan_avg; scale 0 stands for 1e-10.
double init_bound(double scale, int fan_in, int fan_out);

/// x [M, in] -> [M, out].
class LinearLayer : public Module {
 public:
  LinearLayer(Builder& builder, int in, int out, double scale = 1.0);
  /// With a weight [out, in] of the caller's.
  LinearLayer(Builder& builder, Tensor weight);
  Var forward(const Var& x) const {
    const Range layer = range(x);
    return linear(x, weight_, bias_);
  }

 private:
  Var &weight_, &bias_;
};

/// What a convolution layer is called in published checkpoints.
enum class ConvStyle {
  conv,       // weight [out, in, k, k], bias
  nin,        // a 1x1 convolution stored as a matrix: W [in, out], b
  bias_free,  // weight [out, in, k, k]; the bias is kept elsewhere
};

/// A convolution that starts as PyTorch's do: weights and biases U(-b, b) with b = 1 / sqrt(fan_in).
struct PlainConv {
  int dilation = 1;  // images are padded to keep their size
  bool bias = true;
};

/// x [N, H, W, in] -> [N, H', W', out]; 3x3 filters are padded by 1 unless params say otherwise.
class ConvLayer : public Module {
 public:
  ConvLayer(Builder& builder, int in, int out, int filter, double scale = 1.0,
            ConvStyle style = ConvStyle::conv);
  ConvLayer(Builder& builder, int in, int out, int filter, const PlainConv& plain);
  /// With a weight [out, filter, filter, in] of the caller's, and no bias.
  explicit ConvLayer(Tensor weight);
  Var forward(const Var& x) const { return forward(x, params_); }
  Var forward(const Var& x, Conv2dParams params) const {
    const Range layer = range(x);
    return conv2d(x, weight_, bias(), params);
  }
  /// rescale (conv(x) + residual).
  Var forward(const Var& x, const Var& residual, double rescale) const {
    const Range layer = range(x);
    return conv2d(x, weight_, bias(), params_, residual, rescale);
  }
  /// 1x1 filters over the channels of x and then those of x2, which may be absent; joined: both, where the
  /// norm made it.
  Var forward_two(const Var& x, const Var& x2, const Tensor& joined) const {
    const Range layer = range(x);
    return conv2d(x, weight_, bias(), params_, {}, 1.0, x2, joined);
  }
  /// filter(conv(x)) + bias.
  Var forward_then(const Var& x, Conv2dParams params, const ResampleParams& filter) const {
    const Range layer = range(x);
    return add_bias(resample(conv2d(x, weight_, {}, params), filter), bias());
  }
  /// Output as `dtype`; of an f32 x only the output is rounded.
  Var forward_as(const Var& x, DType dtype) const {
    Conv2dParams params = params_;
    params.round = dtype == DType::bf16;
    return forward(x, params);
  }
  /// f32 output whatever x is.
  Var forward_f32(const Var& x) const;

 private:
  Var bias() const { return bias_ ? *bias_ : Var(); }

  Var& weight_;
  Var* bias_ = nullptr;
  Conv2dParams params_;
};

/// Three 1x1 convolutions in one, for queries, keys and values: [N, H, W, C] -> [N, H, W, 3C]. Published
/// checkpoints store them as NIN_0, NIN_1, NIN_2.
class QkvLayer : public Module {
 public:
  QkvLayer(Builder& builder, int channels);
  Var forward(const Var& x) const {
    const Range layer = range(x);
    return conv2d(x, weight_, bias_);
  }

 private:
  Var &weight_, &bias_;
};

/// Group normalisation with a fused activation.
class NormLayer : public Module {
 public:
  NormLayer(Builder& builder, int channels, int groups, Activation activation = Activation::none,
            double eps = 1e-6);
  Var forward(const Var& x) const { return forward_two(x, {}); }
  /// Over the channels of x and then those of x2, which may be absent, leaving all of them in `joined` where
  /// that is given.
  Var forward_two(const Var& x, const Var& x2, const Tensor& joined = {}) const {
    const Range layer = range(x);
    return group_norm(x, gamma_, beta_, params_, {}, x2, joined);
  }
  /// Resampled, and x too.
  ResampledNorm forward_resampled(const Var& x, const ResampleParams& resample) const {
    const Range layer = range(x);
    return resampled_group_norm(x, gamma_, beta_, params_, resample);
  }
  /// With a shift before the norm and dropout after the activation.
  Var forward(const Var& x, const ChannelShift& shift, double dropout, const NoiseKey& key) const;

 private:
  Var &gamma_, &beta_;
  GroupNormParams params_;
};

/// Gaussian Fourier features of log(label), or sinusoidal positions of the label. Not differentiable.
class NoiseEmbedding : public Module {
 public:
  NoiseEmbedding(Builder& builder, const ModelConfig& model);
  /// Fourier features, their frequencies N(0, std^2).
  NoiseEmbedding(Builder& builder, int frequencies, double std);
  int dim() const { return dim_; }
  /// noise_label [N] f64 -> [N, dim].
  Var forward(const Tensor& noise_label, DType dtype) const;

 private:
  int dim_;
  Var* frequencies_ = nullptr;  // Fourier: [nf], fixed
};

}  // namespace sgm
