#include "kernels/instance_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/assign.h"

namespace sgm {
namespace {

/// The row of the table that image n uses.
template <class Op>
std::int64_t row_of(const Op& op, std::int64_t n) {
  return op.label ? row_of_label(op.label.template as<double>()[n], op.rows) : 0;
}

/// gamma, alpha and beta of one row.
template <class A>
struct Affine {
  A *gamma, *alpha, *beta;
  Affine(A* table, std::int64_t row, std::int64_t c)
      : gamma(table + row * 3 * c), alpha(gamma + c), beta(alpha + c) {}
};

/// sums[c] += f(value of the pixel's channel, c) over all pixels of an image.
template <class T, class F>
void sum_pixels(const T* image, std::int64_t hw, std::int64_t c, std::vector<double>& sums, F&& f) {
  std::fill(sums.begin(), sums.end(), 0.0);
  for (std::int64_t p = 0; p < hw; ++p)
    for (std::int64_t k = 0; k < c; ++k) sums[k] += f(Accumulator<T>(image[p * c + k]), p, k);
}

template <class T>
void normalise(const InstanceNorm& op) {
  using A = Accumulator<T>;
  const std::int64_t c = op.c;
#pragma omp parallel
  {
    std::vector<double> means(static_cast<std::size_t>(c)), sums(means.size());
#pragma omp for
    for (std::int64_t n = 0; n < op.n; ++n) {
      const T* x = op.x.as<T>() + n * op.hw * c;
      T* y = op.y.as<T>() + n * op.hw * c;
      A *mean = op.mean.as<A>() + n * c, *rstd = op.rstd.as<A>() + n * c, *level = op.level.as<A>() + n * c;
      sum_pixels(x, op.hw, c, means, [](A value, std::int64_t, std::int64_t) { return value; });
      double centre = 0.0, variance = 0.0;
      for (double& each : means) centre += (each /= static_cast<double>(op.hw)) / static_cast<double>(c);
      sum_pixels(x, op.hw, c, sums, [&](A value, std::int64_t, std::int64_t k) {
        return (value - means[k]) * (value - means[k]);
      });
      for (const double each : means) variance += (each - centre) * (each - centre);
      const double level_rstd = 1.0 / std::sqrt(variance / static_cast<double>(c - 1) + op.eps);
      op.level_rstd.as<A>()[n] = A(level_rstd);
      for (std::int64_t k = 0; k < c; ++k) {
        mean[k] = A(means[k]);
        rstd[k] = A(1.0 / std::sqrt(sums[k] / static_cast<double>(op.hw) + op.eps));
        level[k] = A((means[k] - centre) * level_rstd);
      }
      const Affine<const A> affine(op.table.as<A>(), row_of(op, n), c);
      for (std::int64_t p = 0; p < op.hw; ++p)
#pragma omp simd
        for (std::int64_t k = 0; k < c; ++k)
          y[p * c + k] =
              T(affine.gamma[k] * ((A(x[p * c + k]) - mean[k]) * rstd[k] + affine.alpha[k] * level[k]) +
                affine.beta[k]);
    }
  }
}

/// Writes dx of image n, and the gradient of its row into drow [3 c].
template <class T>
void image_gradient(const InstanceNormGrad& op, std::int64_t n, double* drow) {
  using A = Accumulator<T>;
  const std::int64_t c = op.c;
  const T *x = op.x.as<T>() + n * op.hw * c, *dy = op.dy.as<T>() + n * op.hw * c;
  T* dx = op.dx.as<T>() + n * op.hw * c;
  const A *mean = op.mean.as<A>() + n * c, *rstd = op.rstd.as<A>() + n * c, *level = op.level.as<A>() + n * c;
  const Affine<const A> affine(op.table.as<A>(), row_of(op, n), c);
  const Affine<double> gradient(drow, 0, c);
  const double count = static_cast<double>(op.hw), scale = op.dy_scale;

  std::vector<double> sum(static_cast<std::size_t>(c)),
      sum_h(sum.size());  // of dy, and of dy (x - mean) rstd
  sum_pixels(dy, op.hw, c, sum, [&](A value, std::int64_t, std::int64_t) { return scale * value; });
  sum_pixels(dy, op.hw, c, sum_h, [&](A value, std::int64_t p, std::int64_t k) {
    return scale * value * (A(x[p * c + k]) - mean[k]) * rstd[k];
  });
  double along_one = 0.0, along_level = 0.0;  // of the gradient in level
  for (std::int64_t k = 0; k < c; ++k) {
    gradient.gamma[k] = sum_h[k] + affine.alpha[k] * level[k] * sum[k];
    gradient.alpha[k] = affine.gamma[k] * level[k] * sum[k];
    gradient.beta[k] = sum[k];
    const double dlevel = affine.gamma[k] * affine.alpha[k] * sum[k];
    along_one += dlevel / static_cast<double>(c),
        along_level += dlevel * level[k] / static_cast<double>(c - 1);
  }
  std::vector<A> of_dy(sum.size()), of_x(sum.size()),
      constant(sum.size());  // dx is affine in dy and x - mean
  for (std::int64_t k = 0; k < c; ++k) {
    const double slope = affine.gamma[k] * rstd[k], dlevel = affine.gamma[k] * affine.alpha[k] * sum[k];
    const double dmean = op.level_rstd.as<A>()[n] * (dlevel - along_one - level[k] * along_level);
    of_dy[k] = A(slope * scale);
    of_x[k] = A(-slope * rstd[k] * sum_h[k] / count);
    constant[k] = A((dmean - slope * sum[k]) / count);
  }
  for (std::int64_t p = 0; p < op.hw; ++p)
#pragma omp simd
    for (std::int64_t k = 0; k < c; ++k)
      assign(dx[p * c + k],
             of_dy[k] * A(dy[p * c + k]) + of_x[k] * (A(x[p * c + k]) - mean[k]) + constant[k]);
}

template <class T>
void gradients(const InstanceNormGrad& op) {
  const std::int64_t width = 3 * op.c;
  std::vector<double> drows(static_cast<std::size_t>(op.n * width));
#pragma omp parallel for
  for (std::int64_t n = 0; n < op.n; ++n) image_gradient<T>(op, n, drows.data() + n * width);
  if (!op.dtable) return;
  std::vector<double> dtable(static_cast<std::size_t>(op.rows * width));
  for (std::int64_t n = 0; n < op.n; ++n)
    for (std::int64_t i = 0; i < width; ++i) dtable[row_of(op, n) * width + i] += drows[n * width + i];
  std::copy(dtable.begin(), dtable.end(), op.dtable.as<Accumulator<T>>());
}

}  // namespace

void InstanceNorm::cpu(Context&) const {
  dispatch_float(x.dtype, "instance_norm", [&]<class T>(T) { normalise<T>(*this); });
}

void InstanceNormGrad::cpu(Context&) const {
  dispatch_float(x.dtype, "instance_norm", [&]<class T>(T) { gradients<T>(*this); });
}

}  // namespace sgm
