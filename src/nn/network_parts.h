#pragma once
// What networks have in common at their ends.

#include "sgm/nn/module.h"

namespace sgm {

/// Throws Error unless x is [N, image_size, image_size, num_channels] of the weights' type and noise_label
/// [N] f64.
void check_network_inputs(const Var& x, const Tensor& noise_label, const DataConfig& data, DType weights);

/// 1 / sigma of every image, [N] f64. Labels are sigmas, or indices into the geometric table from sigma_max
/// down to sigma_min.
enum class LabelKind { sigma, index };
Tensor inverse_sigma(const Tensor& noise_label, const SDEConfig& sde, LabelKind kind);

}  // namespace sgm
