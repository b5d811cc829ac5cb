#pragma once
// Blocks of the RefineNets of Song and Ermon (2019, 2020), initialised as PyTorch does.

#include <vector>

#include "sgm/nn/layers.h"

namespace sgm {

/// What all blocks of one RefineNet share.
struct RefineOptions {
  Activation activation = Activation::elu;
  /// NCSN: rows of the norms' tables, one for each noise scale, and norms in every block. 0: NCSNv2, whose
  /// norms are the same for all noise scales, and which has none in the blocks that refine.
  int noise_scales = 0;

  bool conditional() const { return noise_scales > 0; }
};

/// InstanceNorm++ and what its parameters are called: one table by noise scale, or alpha, gamma, beta.
class InstanceNormLayer : public Module {
 public:
  InstanceNormLayer(Builder& builder, const RefineOptions& options, int channels);
  /// label [N] f64: index of each image's noise scale.
  Var forward(const Var& x, const Tensor& label) const {
    const Range layer = range(x);
    return instance_norm_plus(x, table_, conditional_ ? label : Tensor());
  }

 private:
  bool conditional_;
  Var& table_;
};

/// norm, act, conv, norm, act, conv, + shortcut. A block that widens has a shortcut convolution; it halves
/// the image, or dilates its convolutions instead.
class RefineResBlock : public Module {
 public:
  struct Geometry {
    int in, out;
    bool widens;   // by name: `out` may equal `in` all the same
    int dilation;  // above 1: the image keeps its size
  };
  RefineResBlock(Builder& builder, const RefineOptions& options, const Geometry& geometry);
  Var forward(const Var& x, const Tensor& label) const;

 private:
  Activation activation_;
  bool halves_;
  ConvLayer* conv1_;
  InstanceNormLayer* norm2_;
  ConvLayer* conv2_;
  ConvLayer* shortcut_ = nullptr;
  InstanceNormLayer* norm1_;
};

/// "Residual convolution units": times x + conv(act(conv(act(x)))), with norms before the activations of
/// NCSN.
class ResidualUnits : public Module {
 public:
  ResidualUnits(Builder& builder, const RefineOptions& options, int channels, int times);
  Var forward(Var x, const Tensor& label) const;

 private:
  struct Step {
    InstanceNormLayer* norm;  // null in NCSNv2
    ConvLayer* conv;
  };
  struct Unit {
    Step first, second;
  };
  Step add_step(Builder& builder, const RefineOptions& options, int channels, const std::string& name);
  Var prepared(const Step& step, const Var& x, const Tensor& label) const;

  Activation activation_;
  std::vector<Unit> units_;
};

/// "Chained residual pooling": adds what two convolutions, each behind a 5x5 pooling and the second behind
/// the first, see of their surroundings. NCSN averages, NCSNv2 takes the largest.
class ChainedPooling : public Module {
 public:
  ChainedPooling(Builder& builder, const RefineOptions& options, int channels);
  Var forward(const Var& x, const Tensor& label) const;

 private:
  struct Stage {
    ConvLayer* conv;
    InstanceNormLayer* norm = nullptr;  // null in NCSNv2
  };
  Activation activation_;
  Stage stages_[2];
};

/// "Multi-scale fusion": the sum of one convolution of each input, resized to the first input's size.
class Fusion : public Module {
 public:
  Fusion(Builder& builder, const RefineOptions& options, const std::vector<int>& in, int out);
  Var forward(const std::vector<Var>& inputs, const Tensor& label) const;

 private:
  struct Branch {
    ConvLayer* conv;
    InstanceNormLayer* norm = nullptr;  // null in NCSNv2
  };
  std::vector<Branch> branches_;
};

/// One step of the way back: units for each input, their fusion where there are two, pooling, units.
class RefineBlock : public Module {
 public:
  /// in: channels of each input. The last block of a network has three units at its end, others one.
  RefineBlock(Builder& builder, const RefineOptions& options, const std::vector<int>& in, int out, bool last);
  /// [N, H, W, in[0]] and maybe a smaller second one -> [N, H, W, out].
  Var forward(const std::vector<Var>& inputs, const Tensor& label) const;

 private:
  std::vector<ResidualUnits*> adapt_;
  ResidualUnits* output_;
  Fusion* fusion_ = nullptr;
  ChainedPooling* pooling_;
};

}  // namespace sgm
