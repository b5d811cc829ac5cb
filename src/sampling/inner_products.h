#pragma once

#include <vector>

#include "sgm/tensor/tensor.h"

namespace sgm {

/// <a, b> of every image, of batches of one shape: a f64, b of any type. Accumulated in double.
std::vector<double> inner_products(const Tensor& a, const Tensor& b);

}  // namespace sgm
