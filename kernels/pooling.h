#pragma once
// Max pooling and bilinear resizing.

#include "kernels/op.h"

namespace sgm {

/// y = the largest x within `radius` pixels along both axes; what lies outside the image does not count. NaN
/// counts as larger than any number.
struct MaxPool {
  ConstBuffer x;  // [n, h, w, c]
  Buffer y;       // [n, h, w, c]
  std::int64_t n, h, w, c;
  int radius;
  OpCost cost() const { return {bytes_of({x, y}, n * h * w * c)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dx = the sum of the dy of all windows in which the pixel is the first, row by row, to hold the largest
/// value.
struct MaxPoolGrad {
  ConstBuffer x, y, dy;  // [n, h, w, c], x and y as above
  Buffer dx;             // [n, h, w, c]
  std::int64_t n, h, w, c;
  int radius;
  OpCost cost() const { return {bytes_of({x, y, dy, dx}, n * h * w * c)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// One axis of bilinear resizing from `from` to `to` pixels whose first and last pixels coincide: pixel o of
/// the result lies at o (from - 1) / (to - 1), and the weight of input pixel i falls linearly from 1 there to
/// 0 one pixel away. All in integers but the weight.
struct BilinearAxis {
  std::int64_t from, to;

  struct Range {
    std::int64_t first, last;  // both included
  };
  SGM_HD std::int64_t step() const { return to > 1 ? from - 1 : 0; }
  SGM_HD std::int64_t unit() const { return to > 1 ? to - 1 : 1; }
  /// The input pixels that result pixel o reads.
  SGM_HD Range inputs_of(std::int64_t o) const {
    const std::int64_t first = o * step() / unit();
    return {first, first * unit() < o * step() ? first + 1 : first};
  }
  /// The result pixels that read input pixel i.
  SGM_HD Range outputs_of(std::int64_t i) const {
    if (step() == 0) return {0, i == 0 ? to - 1 : -1};
    const std::int64_t last = ((i + 1) * unit() - 1) / step();
    return {i == 0 ? 0 : (i - 1) * unit() / step() + 1, last < to ? last : to - 1};
  }
  template <class A>
  SGM_HD A weight(std::int64_t o, std::int64_t i) const {
    const std::int64_t distance = o * step() - i * unit();
    return A(unit() - (distance < 0 ? -distance : distance)) / A(unit());
  }
};

/// Bilinear resizing of images, or its adjoint, times scale.
struct Bilinear {
  ConstBuffer x;  // [n, h, w, c]; adjoint: [n, oh, ow, c]
  Buffer y;       // [n, oh, ow, c]; adjoint: [n, h, w, c]
  std::int64_t n, h, w, oh, ow, c;
  bool adjoint;
  double scale;
  OpCost cost() const {
    return {bytes_of(adjoint ? y : x, n * h * w * c) + bytes_of(adjoint ? x : y, n * oh * ow * c)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
