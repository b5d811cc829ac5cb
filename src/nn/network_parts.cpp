#include "nn/network_parts.h"

#include "kernels/elementwise.h"

namespace sgm {

void check_network_inputs(const Var& x, const Tensor& noise_label, const DataConfig& data, DType weights) {
  const Shape s = x.shape();
  check(s.rank() == 4 && s[3] == data.num_channels && s[1] == data.image_size && s[2] == data.image_size,
        "network: images must be [N, ", data.image_size, ", ", data.image_size, ", ", data.num_channels,
        "], got ", s);
  check(x.value().dtype() == weights, "network: images must be ", weights, " like the weights, got ",
        x.value().dtype());
  check(noise_label.shape() == Shape({s[0]}) && noise_label.dtype() == DType::f64,
        "network: noise labels must be [", s[0], "] f64, got ", noise_label.shape(), " ",
        noise_label.dtype());
}

Tensor inverse_sigma(const Tensor& noise_label, const SDEConfig& sde, LabelKind kind) {
  Tensor scale = Tensor::empty(noise_label.context(), noise_label.shape(), DType::f64);
  run(InverseSigma{noise_label.buffer(), scale.buffer(), scale.numel(), sde.sigma_min, sde.sigma_max,
                   kind == LabelKind::index ? sde.num_scales : 0},
      scale.context());
  return scale;
}

}  // namespace sgm
