#pragma once
// Convolutions in bf16 as one matrix product each: a row of the first matrix holds the pixels under the
// filter. With 1x1 filters that is the image as it lies in memory; with 3x3 filters and small images it is
// copied, and but for the gradient of weights rows of taps outside of the image are left out. Weights are
// rounded for every call, each panel of them into the cache of the thread that multiplies it; for their
// gradient the pairs of numbers whose products are added lie in two pixels, so dy is copied, too.

#include "kernels/conv.h"

namespace sgm::unfolded {

/// Whether the processor multiplies bf16 fast, the copy pays and there is work for all threads.
bool suits(const ConvShape& shape, DType dtype);

void convolve(const Conv2d& op, Context& context);
void convolve_grad_input(const Conv2dGradInput& op, Context& context);
void convolve_grad_weight(const Conv2dGradWeight& op, Context& context);

}  // namespace sgm::unfolded
