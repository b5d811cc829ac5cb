#pragma once
// Products of bf16 matrices, as attention has them, in whole panels of 32 columns: each panel of b is packed
// into the cache of the thread that multiplies with it; rows of a are words where they lie, columns are
// packed.

#include "kernels/conv.h"

namespace sgm::batched_product {

/// Whether the processor multiplies bf16 fast, and panels and words are whole.
bool suits(const Matmul& op);

void multiply(const Matmul& op, Context& context);

}  // namespace sgm::batched_product
