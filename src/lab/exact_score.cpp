#include <cmath>
#include <limits>
#include <optional>

#include "sgm/core/error.h"
#include "sgm/lab/density.h"

namespace sgm {
namespace {

/// The points of a batch in double precision, and each one's density; points at one time share it.
struct Batch {
  std::vector<double> x;
  std::size_t dim;
  std::vector<std::shared_ptr<const PerturbedDensity>> densities;

  Batch(const Density& density, const SDE& sde, const Tensor& points, std::span<const ImageTime> times)
      : x(points.to_host_f64()), dim(static_cast<std::size_t>(density.dim())) {
    const Shape& shape = points.shape();
    const bool fits = shape.rank() >= 2 && shape[0] == static_cast<std::int64_t>(times.size()) &&
                      shape.numel() == shape[0] * density.dim() && shape[-1] == density.dim();
    check(fits, "density: expected a batch [", times.size(), ", ", density.dim(), "] or [", times.size(),
          ", 1, 1, ", density.dim(), "], got ", shape);
    double t = std::numeric_limits<double>::quiet_NaN();
    for (const ImageTime& time : times) {
      if (time.t != t)
        densities.push_back(density.at({sde.mean_coeff(time.t), sde.marginal_std(time.t)}));
      else
        densities.push_back(densities.back());
      t = time.t;
    }
  }

  std::span<const double> point(std::size_t n) const { return std::span(x).subspan(n * dim, dim); }
};

Tensor like(const Tensor& x, const std::vector<double>& values) {
  return Tensor::from_host(x.context(), std::span<const double>(values), x.shape(), x.dtype());
}

}  // namespace

Tensor sample_tensor(const Density& density, Context& context, std::int64_t n, std::uint64_t seed,
                     std::int64_t first, const Marginal& marginal) {
  const std::vector<double> points = density.sample(n, seed, first, marginal);
  return Tensor::from_host(context, std::span<const double>(points), {n, 1, 1, density.dim()}, DType::f32);
}

ScoreFn exact_score(const Density& density, const SDE& sde) {
  return [&density, &sde](const Tensor& x, std::span<const ImageTime> times) {
    const Batch batch(density, sde, x, times);
    std::vector<double> score(batch.x.size());
#pragma omp parallel for schedule(static)
    for (std::size_t n = 0; n < times.size(); ++n)
      batch.densities[n]->score(batch.point(n), std::span(score).subspan(n * batch.dim, batch.dim));
    return like(x, score);
  };
}

ScoreProductFn exact_score_product(const Density& density, const SDE& sde) {
  return [&density, &sde](const Tensor& x, const Tensor& direction, std::span<const ImageTime> times) {
    check(direction.shape() == x.shape(), "density: directions must be like the points, ", x.shape(),
          ", got ", direction.shape());
    const Batch batch(density, sde, x, times);
    const std::vector<double> v = direction.to_host_f64();
    std::vector<double> score(batch.x.size()), product(batch.x.size());
#pragma omp parallel for schedule(static)
    for (std::size_t n = 0; n < times.size(); ++n) {
      const std::size_t first = n * batch.dim, d = batch.dim;
      batch.densities[n]->score_product(batch.point(n), std::span(v).subspan(first, d),
                                        std::span(score).subspan(first, d),
                                        std::span(product).subspan(first, d));
    }
    return ScoreAndProduct{like(x, score), like(x, product)};
  };
}

}  // namespace sgm
