#pragma once
// Convolution and matrix product in f64 by plain loops: the slow, exact path that gradient checks and
// `sgm verify --precision f64` use, and the specification of the library calls.

#include "kernels/conv.h"

namespace sgm::exact {

void convolve(const Conv2d& op);
void convolve_grad_input(const Conv2dGradInput& op);
void convolve_grad_weight(const Conv2dGradWeight& op);
void multiply(const Matmul& op);

}  // namespace sgm::exact
