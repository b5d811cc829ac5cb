#include "nn/mlp.h"

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/elementwise.h"
#include "sgm/nn/layers.h"
#include "sgm/nn/tangent_network.h"

namespace sgm {
namespace {

/// weight h + bias + shift temb. The bias or the shift may be missing.
class Layer : public Module {
 public:
  Layer(Builder& b, int in, int out, double scale, bool has_bias, int temb)
      : weight_(add_parameter("weight", b.uniform({out, in}, init_bound(scale, in, out)), {{"weight"}})) {
    if (has_bias) bias_ = &add_parameter("bias", b.constant({out}, 0.0), {{"bias"}});
    if (temb > 0)
      shift_ = &add_parameter("shift", b.uniform({out, temb}, init_bound(1.0, temb, out)), {{"shift"}});
  }
  Var forward(const Var& h, const Var& temb = {}) const {
    const Range layer = range(h);
    const Var own = linear(h, weight_, bias_ ? *bias_ : Var());
    return shift_ ? add(own, linear(temb, *shift_, {})) : own;
  }
  Var times_weight(const Var& v) const { return linear(v, weight_, {}); }
  Var times_transpose(const Var& v) const { return linear_transposed(v, weight_); }

 private:
  Var& weight_;
  Var *bias_ = nullptr, *shift_ = nullptr;
};

/// output(x, label) = c f(k x, temb) with c = 1 / sigma and k = 1 / sqrt(1 + sigma^2) where the output is
/// divided by the noise level, else one. f is a network with d outputs, or minus the gradient of one with a
/// single output, the energy. f sees inputs of the size of one, and its outputs are, too.
class Mlp final : public TangentNetwork {
 public:
  Mlp(const Config& config, Builder& b);
  Var forward(const Var& x, const Tensor& noise_label, const ForwardMode& mode) override;
  Tangent forward_tangent(const Var& x, const Tensor& v, const Tensor& noise_label,
                          const ForwardMode& mode) override;
  Var energy(const Var& x, const Tensor& noise_label) override;

 private:
  /// f's evaluation, as its derivatives need it.
  struct Pass {
    std::vector<Var> before;     // what the activation of every layer sees
    Var h;                       // the last one's result
    std::vector<Var> gradients;  // of the energy: by the input, then by the result of every layer
    Var f;
  };
  Pass hidden_pass(const Var& x, const Tensor& noise_label) const;
  Pass evaluate(const Var& x, const Tensor& noise_label) const;
  std::vector<Var> gradients(const Pass& pass) const;
  /// Products of f's Jacobian with v [K N, d].
  Var product(const Pass& pass, const Var& v) const;
  Var gradient_tangent(const Pass& pass, const std::vector<Var>& tangents) const;
  Tensor scale(const Tensor& noise_label, double softening) const;

  Config config_;
  DType dtype_;
  std::int64_t dim_;
  NoiseEmbedding* embedding_ = nullptr;
  LinearLayer* temb_ = nullptr;
  std::vector<Layer*> hidden_;
  Layer* output_;
};

Mlp::Mlp(const Config& config, Builder& b)
    : config_(config), dtype_(b.dtype), dim_(config.data.num_channels) {
  const ModelConfig& m = config.model;
  check(m.nonlinearity == "swish",
        "model.nonlinearity must be swish for the mlp, whose losses need smooth "
        "derivatives; got ",
        m.nonlinearity);
  const int temb = m.conditional ? m.hidden.front() : 0;
  if (m.conditional) {
    embedding_ = &add_module<NoiseEmbedding>("embedding", "embedding", b, m);
    temb_ = &add_module<LinearLayer>("embedding.linear", "embedding.linear", b, embedding_->dim(), temb);
  }
  int width = config.data.num_channels;
  for (std::size_t l = 0; l < m.hidden.size(); ++l) {
    const std::string name = "hidden" + std::to_string(l);
    hidden_.push_back(&add_module<Layer>(name, name, b, width, m.hidden[l], 1.0, true, temb));
    width = m.hidden[l];
  }
  output_ = &add_module<Layer>("output", "output", b, width, m.energy ? 1 : config.data.num_channels,
                               m.init_scale, !m.energy, 0);
}

/// 1 / sqrt(sigma^2 + softening^2), or one.
Tensor Mlp::scale(const Tensor& noise_label, double softening) const {
  Context& context = noise_label.context();
  if (!config_.model.scale_by_sigma) return Tensor::full(context, noise_label.shape(), 1.0, DType::f64);
  const SDEConfig& sde = config_.sde;
  Tensor result = Tensor::empty(context, noise_label.shape(), DType::f64);
  const bool sigmas = config_.model.embedding_type == "fourier";
  run(InverseSigma{noise_label.buffer(), result.buffer(), result.numel(), sde.sigma_min, sde.sigma_max,
                   sigmas ? 0 : sde.num_scales, softening},
      context);
  return result;
}

Mlp::Pass Mlp::hidden_pass(const Var& x, const Tensor& noise_label) const {
  const Shape s = x.shape();
  check(s.rank() == 4 && s[1] == 1 && s[2] == 1 && s[3] == dim_, "network: points must be [N, 1, 1, ", dim_,
        "], got ", s);
  check(x.value().dtype() == dtype_, "network: points must be ", dtype_, " like the weights, got ",
        x.value().dtype());
  check(noise_label.shape() == Shape({s[0]}) && noise_label.dtype() == DType::f64,
        "network: noise labels must be [", s[0], "] f64, got ", noise_label.shape(), ' ',
        noise_label.dtype());
  Var temb;
  if (embedding_)
    temb = activate(temb_->forward(embedding_->forward(noise_label, dtype_)), Activation::swish);
  Pass pass;
  pass.h = scale_images(reshape(x, {s[0], dim_}), scale(noise_label, 1.0));
  for (const Layer* layer : hidden_) {
    pass.before.push_back(layer->forward(pass.h, temb));
    pass.h = activate(pass.before.back(), Activation::swish);
  }
  return pass;
}

std::vector<Var> Mlp::gradients(const Pass& pass) const {
  Var gradient = output_->times_transpose(
      Var(Tensor::full(pass.h.value().context(), {pass.h.shape()[0], 1}, 1.0, dtype_)));
  std::vector<Var> all = {gradient};
  for (std::size_t l = hidden_.size(); l-- > 0;) {
    gradient =
        hidden_[l]->times_transpose(derivative_product(pass.before[l], gradient, Activation::swish, 1));
    all.push_back(gradient);
  }
  std::reverse(all.begin(), all.end());  // the input's first
  return all;
}

Mlp::Pass Mlp::evaluate(const Var& x, const Tensor& noise_label) const {
  Pass pass = hidden_pass(x, noise_label);
  if (config_.model.energy) {
    pass.gradients = gradients(pass);
    pass.f = affine(pass.gradients.front(), -1.0);
  } else {
    pass.f = output_->forward(pass.h);
  }
  return pass;
}

Var Mlp::product(const Pass& pass, const Var& v) const {
  std::vector<Var> tangents;  // of what the activations see
  Var tangent = v;
  for (std::size_t l = 0; l < hidden_.size(); ++l) {
    tangents.push_back(hidden_[l]->times_weight(tangent));
    tangent = derivative_product(pass.before[l], tangents.back(), Activation::swish, 1);
  }
  return config_.model.energy ? affine(gradient_tangent(pass, tangents), -1.0)
                              : output_->times_weight(tangent);
}

/// The tangent of the input's gradient, from the last layer back as that gradient itself.
Var Mlp::gradient_tangent(const Pass& pass, const std::vector<Var>& tangents) const {
  Var tangent;  // of gradients[l + 1]; that of the last is zero
  for (std::size_t l = hidden_.size(); l-- > 0;) {
    const Var curvature = derivative_product(pass.before[l], pass.gradients[l + 1], Activation::swish, 2);
    Var sum = multiply(curvature, tangents[l]);
    if (tangent.defined()) sum = add(sum, derivative_product(pass.before[l], tangent, Activation::swish, 1));
    tangent = hidden_[l]->times_transpose(sum);
  }
  return tangent;
}

Var Mlp::forward(const Var& x, const Tensor& noise_label, const ForwardMode&) {
  return reshape(scale_images(evaluate(x, noise_label).f, scale(noise_label, 0.0)), x.shape());
}

TangentNetwork::Tangent Mlp::forward_tangent(const Var& x, const Tensor& v, const Tensor& noise_label,
                                             const ForwardMode&) {
  const Pass pass = evaluate(x, noise_label);
  const Tensor c = scale(noise_label, 0.0), k = scale(noise_label, 1.0);
  const std::int64_t rows = v.shape()[0];
  const Var derivative = product(pass, Var(v.reshape({rows, dim_})));
  const Var ones(Tensor::full(v.context(), pass.f.shape(), 1.0, dtype_));
  const Var factor = scale_images(scale_images(ones, c), k);  // for all directions of an image
  return {reshape(scale_images(pass.f, c), x.shape()), reshape(multiply(factor, derivative), v.shape())};
}

Var Mlp::energy(const Var& x, const Tensor& noise_label) {
  check(config_.model.energy, "network: only a network with model.energy = true has an energy");
  // c / k times the energy of k x has the output as minus its gradient.
  const std::vector<double> c = scale(noise_label, 0.0).to_host_f64(),
                            k = scale(noise_label, 1.0).to_host_f64();
  std::vector<double> ratio;
  for (std::size_t i = 0; i < c.size(); ++i) ratio.push_back(c[i] / k[i]);
  return scale_images(
      output_->forward(hidden_pass(x, noise_label).h),
      Tensor::from_host(x.value().context(), std::span<const double>(ratio), noise_label.shape()));
}

}  // namespace

std::unique_ptr<ScoreNetwork> create_mlp(const Config& config, Builder& builder) {
  return std::make_unique<Mlp>(config, builder);
}

}  // namespace sgm
