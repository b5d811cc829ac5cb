#pragma once
// Small symmetric matrices, row-major.

#include <span>
#include <vector>

namespace sgm {

/// matrix = sum_i values[i] v_i v_i^T with orthonormal v_i, row i of `vectors`.
struct Eigensystem {
  std::vector<double> values;   // [n]
  std::vector<double> vectors;  // [n, n]
};

/// Of a symmetric matrix [n, n], by Jacobi's rotations; accurate to rounding.
Eigensystem eigensystem(std::span<const double> matrix, int n);

}  // namespace sgm
