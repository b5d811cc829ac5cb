#pragma once
// What ops over images [N, H, W, C] say of shapes and types.

#include <cstdint>

#include "sgm/tensor/tensor.h"

namespace sgm {

/// `shape` with c channels.
inline Shape with_channels(const Shape& shape, std::int64_t c) { return {shape[0], shape[1], shape[2], c}; }

/// Parameters of norms and convolutions stay in f32 beside bf16 activations, and in f64 beside f64 ones.
inline DType parameter_type(DType activations) { return activations == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace sgm
