#pragma once
// InstanceNorm++ (Song and Ermon 2019): instance normalisation that remembers how the channels' means differ.

#include <algorithm>

#include "kernels/op.h"

namespace sgm {

/// Which row of a table of `rows` a noise label names: cut to an integer, and clamped to the table.
SGM_HD inline std::int64_t row_of_label(double label, std::int64_t rows) {
  if (!(label > 0.0)) return 0;  // NaN too
  return label < static_cast<double>(rows) ? static_cast<std::int64_t>(label) : rows - 1;
}

/// y = gamma ((x - mean) rstd + alpha level) + beta. mean and rstd are those of each channel of each image
/// over its pixels; level = (mean - the image's mean of mean) level_rstd, where level_rstd comes from the
/// variance over the channels with the divisor c - 1.
struct InstanceNorm {
  ConstBuffer x;      // [n, hw, c]
  ConstBuffer table;  // [rows, 3 c]: gamma, alpha, beta; f32 beside bf16
  ConstBuffer label;  // [n], f64: each image's row of the table; absent: row 0
  Buffer y;           // [n, hw, c]
  Buffer mean, rstd;  // [n, c], of the table's type
  Buffer level;       // [n, c]
  Buffer level_rstd;  // [n]
  std::int64_t n, hw, c, rows;
  double eps;
  OpCost cost() const {
    return {bytes_of({x, y}, n * hw * c) + bytes_of(table, std::min(n, rows) * 3 * c) + bytes_of(label, n) +
            bytes_of({mean, rstd, level}, n * c) + bytes_of(level_rstd, n)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// All gradients of InstanceNorm, times dy_scale.
struct InstanceNormGrad {
  ConstBuffer x, table, label, mean, rstd, level, level_rstd;  // as above
  ConstBuffer dy;                                              // [n, hw, c]
  Buffer dx;                                                   // [n, hw, c]
  Buffer dtable;                                               // [rows, 3 c], optional
  std::int64_t n, hw, c, rows;
  double dy_scale;
  OpCost cost() const {
    return {bytes_of({x, dy, dx}, n * hw * c) + bytes_of(table, std::min(n, rows) * 3 * c) +
            bytes_of(dtable, rows * 3 * c) + bytes_of(label, n) + bytes_of({mean, rstd, level}, n * c) +
            bytes_of(level_rstd, n)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
