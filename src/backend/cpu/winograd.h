#pragma once
// 3x3 convolutions by Winograd's minimal filtering: tiles of 4x4 outputs from 6x6 inputs, a quarter of the
// multiplications.
//
//   y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A                   (Lavin and Gray 2016)
//
// The products are matrix products, one for each of the 36 points of a transformed tile. The transform
// interpolates at 0, +-1/sqrt 2, +-sqrt 2 and infinity: its f32 error is 1.6 times that of the direct sum,
// where the usual points 0, +-1, +-2 give 3.4 times.
//
// The transforms multiply rounding errors by five, of which bf16 has none to spare. Beside bf16 the
// transformed numbers are therefore integers of 16 bits in units of their row, whose products processors add
// up as fast as those of bf16: exactly, and so with errors below those of rounding the weights to bf16.

#include "kernels/conv.h"

namespace sgm::winograd {

/// Whether the tiles pay for their transforms.
bool suits(const ConvShape& shape, DType dtype);

void convolve(const Conv2d& op, Context& context);
void convolve_grad_input(const Conv2dGradInput& op, Context& context);
void convolve_grad_weight(const Conv2dGradWeight& op, Context& context);

}  // namespace sgm::winograd
