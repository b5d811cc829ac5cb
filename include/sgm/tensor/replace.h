#pragma once
// Parts of images replaced by those of others. Batches are f32 [N, ...].

#include "sgm/tensor/tensor.h"

namespace sgm {

/// `from` where the mask is not 0, else x; the mask (f32) has the size of one image.
Tensor replace_where(const Tensor& mask, const Tensor& x, const Tensor& from);

/// x with the channel means of `from`: at every pixel of [N, H, W, C] the same number is added to all
/// channels of x.
Tensor replace_channel_mean(const Tensor& x, const Tensor& from);

}  // namespace sgm
