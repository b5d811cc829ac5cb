#pragma once
// Products in bf16 on processors whose oneDNN has none (those without AVX-512): operands are widened to f32,
// and what comes out is rounded. This saves no time, but a model trained in bf16 runs there.

#include "kernels/conv.h"

namespace sgm::widened {

/// Whether products in this type need to be widened.
bool suits(DType dtype);

void convolve(const Conv2d& op, Context& context);
void convolve_grad_input(const Conv2dGradInput& op, Context& context);
void convolve_grad_weight(const Conv2dGradWeight& op, Context& context);
void multiply(const Matmul& op, Context& context);

}  // namespace sgm::widened
