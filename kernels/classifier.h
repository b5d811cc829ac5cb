#pragma once
// What classifiers need besides the layers of score networks: their input's standardisation, the mean over
// all pixels, and the cross entropy.

#include "kernels/op.h"

namespace sgm {

/// y[n, i] = (u[n, i] - mean[n]) rstd[n], u[n, i] = scale[i mod c] x[n, i] + shift[i mod c]; mean and
/// variance are those of an image's u, and rstd = 1 / max(sqrt(variance), 1 / sqrt(per)), so that an image of
/// one colour stays finite.
struct Standardise {
  ConstBuffer x;             // [n, per]
  ConstBuffer scale, shift;  // [c], f64
  Buffer y;                  // [n, per]
  Buffer mean, rstd;         // [n], f64
  std::int64_t n, per, c;
  OpCost cost() const {
    return {bytes_of({x, y}, n * per) + bytes_of({scale, shift}, c) + bytes_of({mean, rstd}, n)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dx = scale rstd (dy - <dy> - y <dy y>), where <> is the mean over an image; without the last term where
/// rstd has reached its bound sqrt(per).
struct StandardiseGrad {
  ConstBuffer x;             // [n, per]
  ConstBuffer scale, shift;  // [c], f64
  ConstBuffer mean, rstd;    // [n], f64
  ConstBuffer dy;            // [n, per], like x
  Buffer dx;                 // [n, per], like x
  std::int64_t n, per, c;
  OpCost cost() const {
    return {bytes_of({x, dy, dx}, n * per) + bytes_of({scale, shift}, c) + bytes_of({mean, rstd}, n)};
  }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// y[n, c] = the mean over pixels p of x[n, p, c].
struct MeanPixels {
  ConstBuffer x;  // [n, pixels, c]
  Buffer y;       // [n, c]; f32 beside bf16
  std::int64_t n, pixels, c;
  OpCost cost() const { return {bytes_of(x, n * pixels * c) + bytes_of(y, n * c)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// dx[n, p, c] = factor dy[n, c] / pixels.
struct MeanPixelsGrad {
  ConstBuffer dy;  // [n, c]; f32 beside bf16
  Buffer dx;       // [n, pixels, c]
  std::int64_t n, pixels, c;
  double factor;
  OpCost cost() const { return {bytes_of(dy, n * c) + bytes_of(dx, n * pixels * c)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

/// loss[r] = -log softmax(x[r, :])[label[r]], its gradient with respect to x, and whether that class has the
/// largest of the numbers (the first of equal ones). Sums are in double. A label outside [0, cols) gives NaN.
struct CrossEntropy {
  ConstBuffer x;      // [rows, cols], f32 or f64
  ConstBuffer label;  // [rows], f64: whole numbers
  Buffer loss;        // [rows], f64
  Buffer dx;          // [rows, cols], like x
  Buffer correct;     // [rows], f64: 1 or 0
  std::int64_t rows, cols;
  OpCost cost() const { return {bytes_of({x, dx}, rows * cols) + bytes_of({label, loss, correct}, rows)}; }
  void cpu(Context& context) const;
  void cuda(Context& context) const;
};

}  // namespace sgm
