#include <algorithm>
#include <cmath>

#include "sgm/core/error.h"
#include "sgm/lab/density.h"

namespace sgm {
namespace {

/// The points of a batch in double precision, and the density at each one's time.
class PointBatch {
 public:
  PointBatch(const Density& density, const SDE& sde, const Tensor& points, std::span<const ImageTime> times)
      : density_(density),
        sde_(sde),
        times_(times),
        x_(points.to_host_f64()),
        dim_(static_cast<std::size_t>(density.dim())) {
    const Shape& shape = points.shape();
    const bool fits = shape.rank() >= 2 && shape[0] == static_cast<std::int64_t>(times.size()) &&
                      shape.numel() == shape[0] * density.dim() && shape[-1] == density.dim();
    check(fits, "density: expected a batch [", times.size(), ", ", density.dim(), "] or [", times.size(),
          ", 1, 1, ", density.dim(), "], got ", shape);
    const bool one_time =
        std::all_of(times.begin(), times.end(), [&](const auto& at) { return at.t == times[0].t; });
    if (one_time && !times.empty()) shared_ = at_time(times[0].t);
  }

  /// Calls work(density, first, count) for runs of points that share a density, on the host's threads.
  template <class Work>
  void for_runs(const Work& work) const {
    const std::size_t n = times_.size(), longest = shared_ ? kRun : 1;
#pragma omp parallel for schedule(dynamic, 4)
    for (std::size_t first = 0; first < n; first += longest) {
      const std::size_t count = std::min(longest, n - first);
      if (shared_)
        work(*shared_, first * dim_, count * dim_);
      else
        work(*at_time(times_[first].t), first * dim_, count * dim_);
    }
  }

  std::span<const double> x() const { return x_; }
  std::size_t dim() const { return dim_; }

 private:
  static constexpr std::size_t kRun = 256;

  std::unique_ptr<PerturbedDensity> at_time(double t) const {
    return density_.at({sde_.mean_coeff(t), sde_.marginal_std(t)});
  }

  const Density& density_;
  const SDE& sde_;
  std::span<const ImageTime> times_;
  std::vector<double> x_;
  std::size_t dim_;
  std::unique_ptr<PerturbedDensity> shared_;  // where all points stand at one time
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
    const PointBatch batch(density, sde, x, times);
    std::vector<double> score(batch.x().size());
    batch.for_runs([&](const PerturbedDensity& p, std::size_t first, std::size_t size) {
      p.scores(batch.x().subspan(first, size), std::span(score).subspan(first, size));
    });
    return like(x, score);
  };
}

ScoreProductFn exact_score_product(const Density& density, const SDE& sde) {
  return [&density, &sde](const Tensor& x, const Tensor& direction, std::span<const ImageTime> times) {
    check(direction.shape() == x.shape(), "density: directions must be like the points, ", x.shape(),
          ", got ", direction.shape());
    const PointBatch batch(density, sde, x, times);
    const std::vector<double> v = direction.to_host_f64();
    std::vector<double> score(v.size()), product(v.size());
    batch.for_runs([&](const PerturbedDensity& p, std::size_t first, std::size_t size) {
      for (std::size_t at = first; at < first + size; at += batch.dim())
        p.score_product(batch.x().subspan(at, batch.dim()), std::span(v).subspan(at, batch.dim()),
                        std::span(score).subspan(at, batch.dim()),
                        std::span(product).subspan(at, batch.dim()));
    });
    return ScoreAndProduct{like(x, score), like(x, product)};
  };
}

}  // namespace sgm
