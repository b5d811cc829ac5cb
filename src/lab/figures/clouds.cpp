// Clouds of points: drawing them, and numbers that compare them.

#include <algorithm>
#include <cmath>
#include <limits>

#include "lab/figures/parts.h"
#include "lab/symmetric.h"
#include "sgm/core/random.h"
#include "sgm/sampling/sampler.h"

namespace sgm::lab {

void tell(const Laboratory& lab, const std::string& what, double fraction) {
  if (lab.progress && !lab.progress(what, fraction)) throw LabInterrupted();
}

Cloud to_cloud(const Tensor& x) {
  const std::vector<float> values = x.to(DType::f32).to_host();
  return {values.begin(), values.end()};
}

Tensor to_batch(const Laboratory& lab, const Cloud& cloud) {
  const int dim = lab.density.dim();
  return Tensor::from_host(lab.context, std::span<const double>(cloud),
                           {static_cast<std::int64_t>(cloud.size()) / dim, 1, 1, dim}, DType::f32);
}

Array to_array(const Cloud& cloud, int dim) {
  const std::vector<float> values(cloud.begin(), cloud.end());
  return make_array({static_cast<std::int64_t>(values.size()) / dim, dim}, std::span<const float>(values));
}

std::vector<double> coordinate(std::span<const double> cloud, int dim, int i) {
  std::vector<double> values;
  for (std::size_t at = static_cast<std::size_t>(i); at < cloud.size(); at += static_cast<std::size_t>(dim))
    values.push_back(cloud[at]);
  return values;
}

Drawn draw_samples(const Laboratory& lab, const SamplingConfig& settings, const std::string& what) {
  SampleRequest request{.shape = {lab.n, 1, 1, lab.density.dim()}, .seed = lab.seed};
  request.progress = [&](std::int64_t done, std::int64_t total) {
    tell(lab, what, static_cast<double>(done) / static_cast<double>(total));
    return true;
  };
  const SampleResult result = create_sampler(lab.sde, settings)->sample(lab.context, lab.score, request);
  double nfe = 0;
  for (const std::int64_t of_point : result.nfe)
    nfe += static_cast<double>(of_point) / static_cast<double>(lab.n);
  return {to_cloud(result.x), nfe};
}

double share(const Density& density, std::span<const double> cloud) {
  const auto dim = static_cast<std::size_t>(density.dim());
  const Eigensystem axes = eigensystem(density.covariance(), density.dim());
  const auto largest = static_cast<std::size_t>(std::max_element(axes.values.begin(), axes.values.end()) -
                                                axes.values.begin());
  const std::span<const double> axis = std::span(axes.vectors).subspan(largest * dim, dim);
  const double middle = (density.range().low + density.range().high) / 2;
  const auto side = [&](std::span<const double> point) {
    double height = 0;
    for (std::size_t i = 0; i < dim; ++i) height += (point[i] - middle) * axis[i];
    return height;
  };
  const double up = side(density.mean()) >= 0 ? 1.0 : -1.0;
  double above = 0;
  for (std::size_t at = 0; at < cloud.size(); at += dim) above += up * side(cloud.subspan(at, dim)) > 0;
  return above * static_cast<double>(dim) / static_cast<double>(cloud.size());
}

double sliced_distance(std::span<const double> a, std::span<const double> b, int dim) {
  constexpr int kDirections = 64, kQuantiles = 1000;
  const auto is_finite = [](double x) { return std::isfinite(x); };
  if (!std::ranges::all_of(a, is_finite) || !std::ranges::all_of(b, is_finite))
    return std::numeric_limits<double>::quiet_NaN();  // a sampler that diverged
  const auto projected = [dim](std::span<const double> cloud, const std::vector<double>& axis) {
    std::vector<double> values(cloud.size() / static_cast<std::size_t>(dim));
    for (std::size_t p = 0; p < values.size(); ++p)
      for (std::size_t i = 0; i < axis.size(); ++i) values[p] += cloud[p * axis.size() + i] * axis[i];
    std::sort(values.begin(), values.end());
    return values;
  };
  const auto quantile = [](const std::vector<double>& sorted, int q) {
    return sorted[static_cast<std::size_t>((q + 0.5) / kQuantiles * static_cast<double>(sorted.size()))];
  };
  double distance = 0;
  for (int k = 0; k < kDirections; ++k) {
    std::vector<double> axis(static_cast<std::size_t>(dim));
    double norm = 0;
    for (std::size_t i = 0; i < axis.size(); ++i) {
      float z[4];
      normals_of(
          philox({0, Purpose::direction, static_cast<std::uint32_t>(k)}, 0, static_cast<std::uint32_t>(i)),
          z);
      axis[i] = static_cast<double>(z[0]);
      norm += axis[i] * axis[i];
    }
    for (double& value : axis) value /= std::sqrt(norm);
    const std::vector<double> of_a = projected(a, axis), of_b = projected(b, axis);
    for (int q = 0; q < kQuantiles; ++q)
      distance += std::abs(quantile(of_a, q) - quantile(of_b, q)) / kQuantiles / kDirections;
  }
  return distance;
}

}  // namespace sgm::lab
