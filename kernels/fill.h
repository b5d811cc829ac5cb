#pragma once
// Filling and converting.

#include "kernels/op.h"

namespace sgm {

/// y[i] = value.
struct Fill {
  Buffer y;
  std::int64_t n;
  double value;
  OpCost cost() const { return {bytes_of(y, n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[i] = scale x[i], rounded to y's element type.
struct Cast {
  ConstBuffer x;
  Buffer y;
  std::int64_t n;
  double scale = 1.0;
  OpCost cost() const { return {bytes_of({x, y}, n)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
