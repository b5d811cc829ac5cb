#pragma once
// What likelihoods ask of a score besides its values: products with its Jacobian.

#include <functional>
#include <span>

#include "sgm/sampling/score_fn.h"

namespace sgm {

/// The score of a batch and the product of its Jacobian J with one direction per image, v^T J or J v: the
/// trace is estimated from <v, product>, which is the same for both. Both are shaped like x.
struct ScoreAndProduct {
  Tensor score, product;
};
/// x and direction are [M, ...], f32 or f64, with one time per image.
using ScoreProductFn = std::function<ScoreAndProduct(const Tensor& x, const Tensor& direction,
                                                     std::span<const ImageTime> times)>;

}  // namespace sgm
