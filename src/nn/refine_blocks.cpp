#include "nn/refine_blocks.h"

namespace sgm {
namespace {

constexpr int kPoolRadius = 2;  // 5x5 windows

/// gamma and alpha about 1, beta 0: [rows, 3 C], or [3 C] without rows.
Tensor initial_table(Builder& b, int rows, int c) {
  const Shape shape = rows ? Shape{rows, 3 * c} : Shape{3 * c};
  std::vector<double> values = b.normal(shape, 0.02).to_host_f64();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool beta = i % static_cast<std::size_t>(3 * c) >= static_cast<std::size_t>(2 * c);
    values[i] = beta ? 0.0 : 1.0 + values[i];
  }
  return Tensor::from_host(b.context, std::span<const double>(values), shape, b.dtype);
}

std::vector<ReferencePart> table_names(bool conditional, int c) {
  constexpr auto kSame = ReferencePart::Layout::same;
  if (conditional) return {{"embed.weight"}};
  return {{"alpha", kSame, c, c}, {"gamma", kSame, 0, c}, {"beta", kSame, 2 * c, c}};
}

/// Means over 2x2 pixels.
Var halved(const Var& x) { return resample(x, downsample_params({1, 1})); }

/// Means over 5x5 pixels, zeros around the image among them.
Var average_pool(const Var& x) {
  constexpr int kWidth = 2 * kPoolRadius + 1;
  return resample(x, {1, 1, kPoolRadius, kPoolRadius, std::vector<double>(kWidth, 1.0 / kWidth)});
}

}  // namespace

InstanceNormLayer::InstanceNormLayer(Builder& b, const RefineOptions& o, int channels)
    : conditional_(o.conditional()),
      table_(add_parameter("table", initial_table(b, o.noise_scales, channels),
                           table_names(o.conditional(), channels))) {}

RefineResBlock::RefineResBlock(Builder& b, const RefineOptions& o, const Geometry& g)
    : activation_(o.activation), halves_(g.widens && g.dilation == 1) {
  const PlainConv plain{.dilation = g.dilation};
  conv1_ = &add_module<ConvLayer>("conv1", "conv1", b, g.in, g.in, 3, plain);
  norm2_ = &add_module<InstanceNormLayer>("norm2", "normalize2", b, o, g.in);
  conv2_ = &add_module<ConvLayer>("conv2", halves_ ? "conv2.conv" : "conv2", b, g.in, g.out, 3, plain);
  if (g.widens)
    shortcut_ = &add_module<ConvLayer>("shortcut", halves_ ? "shortcut.conv" : "shortcut", b, g.in, g.out,
                                       halves_ ? 1 : 3, plain);
  norm1_ = &add_module<InstanceNormLayer>("norm1", "normalize1", b, o, g.in);
}

Var RefineResBlock::forward(const Var& x, const Tensor& label) const {
  const Range block = range(x);
  Var h = conv1_->forward(activate(norm1_->forward(x, label), activation_));
  h = activate(norm2_->forward(h, label), activation_);
  // The mean of a 1x1 convolution is the convolution of the mean, at a quarter of its cost.
  if (halves_) return shortcut_->forward(halved(x), halved(conv2_->forward(h)), 1.0);
  return conv2_->forward(h, shortcut_ ? shortcut_->forward(x) : x, 1.0);
}

ResidualUnits::ResidualUnits(Builder& b, const RefineOptions& o, int channels, int times)
    : activation_(o.activation) {
  for (int i = 1; i <= times; ++i) {
    const std::string unit = std::to_string(i) + '_';
    const Step first = add_step(b, o, channels, unit + '1');
    units_.push_back({first, add_step(b, o, channels, unit + '2')});
  }
}

ResidualUnits::Step ResidualUnits::add_step(Builder& b, const RefineOptions& o, int channels,
                                            const std::string& name) {
  const std::string norm = name + "_norm", conv = name + "_conv";
  InstanceNormLayer* layer =
      o.conditional() ? &add_module<InstanceNormLayer>(norm, norm, b, o, channels) : nullptr;
  return {layer, &add_module<ConvLayer>(conv, conv, b, channels, channels, 3, PlainConv{.bias = false})};
}

Var ResidualUnits::prepared(const Step& step, const Var& x, const Tensor& label) const {
  return activate(step.norm ? step.norm->forward(x, label) : x, activation_);
}

Var ResidualUnits::forward(Var x, const Tensor& label) const {
  const Range block = range(x);
  for (const auto& [first, second] : units_) {
    const Var h = first.conv->forward(prepared(first, x, label));
    x = second.conv->forward(prepared(second, h, label), x, 1.0);
  }
  return x;
}

ChainedPooling::ChainedPooling(Builder& b, const RefineOptions& o, int channels) : activation_(o.activation) {
  for (int i = 0; i < 2; ++i) {
    const std::string name = "convs." + std::to_string(i);
    stages_[i].conv = &add_module<ConvLayer>(name, name, b, channels, channels, 3, PlainConv{.bias = false});
  }
  for (int i = 0; i < 2 && o.conditional(); ++i) {
    const std::string name = "norms." + std::to_string(i);
    stages_[i].norm = &add_module<InstanceNormLayer>(name, name, b, o, channels);
  }
}

Var ChainedPooling::forward(const Var& x, const Tensor& label) const {
  const Range block = range(x);
  Var sum = activate(x, activation_), path = sum;
  for (const Stage& stage : stages_) {
    path = stage.norm ? average_pool(stage.norm->forward(path, label)) : max_pool(path, kPoolRadius);
    path = stage.conv->forward(path);
    sum = add(sum, path);
  }
  return sum;
}

Fusion::Fusion(Builder& b, const RefineOptions& o, const std::vector<int>& in, int out) {
  for (const int channels : in) {
    const std::string name = "convs." + std::to_string(branches_.size());
    branches_.push_back({&add_module<ConvLayer>(name, name, b, channels, out, 3, PlainConv{})});
  }
  for (std::size_t i = 0; i < in.size() && o.conditional(); ++i) {
    const std::string name = "norms." + std::to_string(i);
    branches_[i].norm = &add_module<InstanceNormLayer>(name, name, b, o, in[i]);
  }
}

Var Fusion::forward(const std::vector<Var>& inputs, const Tensor& label) const {
  const Range block = range(inputs[0]);
  const Shape size = inputs[0].shape();
  Var sum;
  for (std::size_t i = 0; i < branches_.size(); ++i) {
    const auto& [conv, norm] = branches_[i];
    Var h = conv->forward(norm ? norm->forward(inputs[i], label) : inputs[i]);
    if (h.shape()[1] != size[1] || h.shape()[2] != size[2]) h = resize_bilinear(h, size[1], size[2]);
    sum = sum.defined() ? add(sum, h) : h;
  }
  return sum;
}

RefineBlock::RefineBlock(Builder& b, const RefineOptions& o, const std::vector<int>& in, int out, bool last) {
  for (const int channels : in) {
    const std::string name = "adapt_convs." + std::to_string(adapt_.size());
    adapt_.push_back(&add_module<ResidualUnits>(name, name, b, o, channels, 2));
  }
  output_ = &add_module<ResidualUnits>("output_convs", "output_convs", b, o, out, last ? 3 : 1);
  if (in.size() > 1) fusion_ = &add_module<Fusion>("msf", "msf", b, o, in, out);
  pooling_ = &add_module<ChainedPooling>("crp", "crp", b, o, out);
}

Var RefineBlock::forward(const std::vector<Var>& inputs, const Tensor& label) const {
  const Range block = range(inputs[0]);
  std::vector<Var> adapted;
  for (std::size_t i = 0; i < adapt_.size(); ++i) adapted.push_back(adapt_[i]->forward(inputs[i], label));
  const Var h = fusion_ ? fusion_->forward(adapted, label) : adapted[0];
  return output_->forward(pooling_->forward(h, label), label);
}

}  // namespace sgm
