#pragma once
// Residual, attention and resampling blocks of NCSN++, DDPM++ and DDPM.

#include <cmath>
#include <vector>

#include "sgm/nn/layers.h"

namespace sgm {

/// What all blocks of one network share.
struct BlockOptions {
  Activation activation = Activation::swish;
  int temb_dim = 0;    // width of the time embedding
  bool biggan = true;  // resampling inside the block, 1x1 shortcut
  bool fir = true;
  std::vector<int> fir_kernel = {1, 3, 3, 1};
  bool skip_rescale = true;
  double init_scale = 0.0;
  double dropout = 0.1;
  int fixed_groups = 0;  // groups of every norm; 0: min(channels / 4, 32)

  explicit BlockOptions(const ModelConfig& model);
  int groups(int channels) const;
  double rescale() const { return skip_rescale ? std::sqrt(0.5) : 1.0; }
  ResampleParams up() const { return upsample_params(fir ? fir_kernel : std::vector<int>{1, 1}); }
  ResampleParams down() const { return downsample_params(fir ? fir_kernel : std::vector<int>{1, 1}); }
};

/// What tells the residual blocks the noise level: a projection of the time embedding to one number per
/// channel of each block, added to the output of its first convolution. One matrix product serves all blocks;
/// the biases of those convolutions are kept here, because they are added at the same place.
class NoiseShifts : public Module {
 public:
  /// Makes room for a block that published checkpoints call `reference`; returns its first column.
  std::int64_t add(const std::string& reference, int channels);
  /// Makes the parameters, after the last add().
  void build(Builder& builder, int temb_dim);
  /// temb [N, temb_dim], activated already -> [N, channels of all blocks].
  Var forward(const Var& temb) const;
  /// The same without a time embedding, for a batch of n.
  Var forward(Context& context, std::int64_t n) const;

 private:
  struct Block {
    std::string reference;
    std::int64_t first, channels;
  };
  std::vector<Block> blocks_;
  std::int64_t channels_ = 0;
  Var *weight_ = nullptr, *bias_ = nullptr, *conv_bias_ = nullptr;
};

enum class Resampling { none, up, down };

/// The residual block: norm, act, [resample,] conv, + noise shift, norm, act, dropout, conv, + shortcut.
class ResBlock : public Module {
 public:
  /// first_shift: the block's first column of the noise shifts.
  ResBlock(Builder& builder, const BlockOptions& options, std::int64_t first_shift, int in, int out,
           Resampling resampling = Resampling::none);
  /// x and x2 (may be absent) hold together [N, H, W, in]; shifts as from NoiseShifts.
  Var forward(const Var& x, const Var& x2, const Var& shifts, const ForwardMode& mode) const;

 private:
  Resampling resampling_;
  ResampleParams resample_;
  double rescale_, dropout_;
  std::uint32_t dropout_index_;
  std::int64_t first_shift_;
  NormLayer* norm0_;
  ConvLayer* conv0_;
  NormLayer* norm1_;
  ConvLayer* conv1_;
  ConvLayer* shortcut_ = nullptr;
};

/// Single-head self-attention over all pixels, with a residual connection.
class AttentionBlock : public Module {
 public:
  AttentionBlock(Builder& builder, const BlockOptions& options, int channels);
  Var forward(const Var& x) const;

 private:
  double rescale_;
  NormLayer* norm_;
  QkvLayer* qkv_;
  ConvLayer* project_;
};

/// Halves or doubles the resolution, optionally with a 3x3 convolution: FIR or plain.
class ResampleBlock : public Module {
 public:
  ResampleBlock(Builder& builder, const BlockOptions& options, Resampling resampling, bool with_conv, int in,
                int out);
  Var forward(const Var& x) const;

 private:
  Var down(const Var& x) const;
  Var up(const Var& x) const;

  Resampling resampling_;
  bool fir_;
  ResampleParams plain_, around_conv_;
  ConvLayer* conv_ = nullptr;
};

}  // namespace sgm
