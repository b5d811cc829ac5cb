#pragma once
// 3x3 convolutions by Winograd's minimal filtering: tiles of 4x4 outputs from 6x6 inputs in f32 (a quarter of
// the multiplications), of 2x2 from 4x4 in bf16 (four ninths; larger tiles would cost bf16 too many digits).
//
//   y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A                   (Lavin and Gray 2016)
//
// The products are matrix products, one for each of the 36 or 16 points of a transformed tile. The 6x6
// transform interpolates at 0, +-1/sqrt 2, +-sqrt 2 and infinity: its f32 error is 1.6 times that of the
// direct sum, where the usual points 0, +-1, +-2 give 3.4 times.

#include "kernels/conv.h"

namespace sgm::winograd {

/// Whether the tiles pay for their transforms.
bool suits(const ConvShape& shape, DType dtype);

void convolve(const Conv2d& op, Context& context);
void convolve_grad_input(const Conv2dGradInput& op, Context& context);
void convolve_grad_weight(const Conv2dGradWeight& op, Context& context);

}  // namespace sgm::winograd
