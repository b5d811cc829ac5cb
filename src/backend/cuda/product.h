#pragma once
// Matrix products in cuBLASLt, row-major.

#include <cstdint>

#include "backend/cuda/cuda_context.h"
#include "kernels/op.h"

namespace sgm {

/// d = alpha op(a) op(b) + beta c + bias for each of `batch` matrices; rows are lda, ldb, ldc, ldd elements
/// apart, matrices stride_a, ... apart.
struct Product {
  ConstBuffer a;       // [m, k], or [k, m] if trans_a
  ConstBuffer b;       // [k, n], or [n, k] if trans_b; of a's type
  ConstBuffer c{};     // [m, n], of d's type; absent: beta counts as 0; may be d
  ConstBuffer bias{};  // [n], f32 or d's type; optional
  Buffer d;            // [m, n]; f32, or bf16 where a and b are
  std::int64_t batch = 1, m, n, k;
  std::int64_t lda, ldb, ldc = 0, ldd;
  std::int64_t stride_a = 0, stride_b = 0, stride_c = 0, stride_d = 0;
  bool trans_a = false, trans_b = false;
  double alpha = 1.0, beta = 0.0;
};

/// Counts the product as one launch of `kernel` and executes it. Nothing happens where d is empty; k must not
/// be 0. Throws Error naming the sizes and types that cuBLASLt has no algorithm for.
void multiply(const char* kernel, const Product& product, CudaContext& device);

}  // namespace sgm
