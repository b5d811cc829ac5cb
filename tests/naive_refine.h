#pragma once
// The RefineNets' ops as their definitions say.

#include <algorithm>
#include <cmath>
#include <limits>

#include "naive.h"

namespace sgm::naive {

inline Values max_pool(const Values& x, int radius) {
  const Image in(x);
  const Shape& s = x.shape;
  return image_of(s, [&](std::int64_t n, std::int64_t y, std::int64_t q, std::int64_t c) {
    double most = -std::numeric_limits<double>::infinity();
    for (std::int64_t i = y - radius; i <= y + radius; ++i)
      for (std::int64_t j = q - radius; j <= q + radius; ++j)
        if (i >= 0 && i < s[1] && j >= 0 && j < s[2]) most = std::max(most, in.at(n, i, j, c));
    return most;
  });
}

/// Where pixel o of `to` lies among `from`, when first and last coincide; more exact than what it judges.
inline long double bilinear_position(std::int64_t o, std::int64_t from, std::int64_t to) {
  return to > 1 ? static_cast<long double>(o * (from - 1)) / static_cast<long double>(to - 1) : 0.0L;
}

inline Values resize_bilinear(const Values& x, std::int64_t height, std::int64_t width) {
  const Image in(x);
  const Shape& s = x.shape;
  return image_of({s[0], height, width, s[3]}, [&](auto n, auto y, auto q, auto c) {
    const long double row = bilinear_position(y, s[1], height), col = bilinear_position(q, s[2], width);
    const auto top = static_cast<std::int64_t>(row), left = static_cast<std::int64_t>(col);
    const double down = static_cast<double>(row - static_cast<long double>(top)),
                 right = static_cast<double>(col - static_cast<long double>(left));
    return (1 - down) * ((1 - right) * in.at(n, top, left, c) + right * in.at(n, top, left + 1, c)) +
           down * ((1 - right) * in.at(n, top + 1, left, c) + right * in.at(n, top + 1, left + 1, c));
  });
}

/// Statistics of InstanceNorm++: of each channel of each image, and of each image's channels.
struct Levels {
  Moments moments;
  std::vector<double> level, level_rstd;
};
inline Levels levels(const Values& x, double eps) {
  const std::int64_t n = x.shape[0], c = x.shape[3];
  Levels result{moments(x, nullptr, static_cast<int>(c), eps), {}, {}};
  for (std::int64_t i = 0; i < n; ++i) {
    const auto first = result.moments.mean.begin() + i * c;
    long double centre = 0.0, variance = 0.0;
    for (auto mean = first; mean != first + c; ++mean) centre += *mean;
    centre /= static_cast<long double>(c);
    for (auto mean = first; mean != first + c; ++mean) variance += (*mean - centre) * (*mean - centre);
    const auto rstd = 1.0 / std::sqrt(variance / static_cast<long double>(c - 1) + eps);
    result.level_rstd.push_back(static_cast<double>(rstd));
    for (auto mean = first; mean != first + c; ++mean)
      result.level.push_back(static_cast<double>((*mean - centre) * rstd));
  }
  return result;
}

/// rows[n]: the row of `table` that image n uses.
inline Values instance_norm_plus(const Values& x, const Values& table, const std::vector<int>& rows,
                                 double eps) {
  const Image in(x);
  const Levels stats = levels(x, eps);
  const std::int64_t channels = x.shape[3];
  return image_of(x.shape, [&](std::int64_t n, std::int64_t y, std::int64_t q, std::int64_t c) {
    const auto at = static_cast<std::size_t>(n * channels + c);
    const double* gamma = table.data.data() + 3 * channels * rows[static_cast<std::size_t>(n)] + c;
    const double h = (in.at(n, y, q, c) - stats.moments.mean[at]) * stats.moments.rstd[at];
    return gamma[0] * (h + gamma[channels] * stats.level[at]) + gamma[2 * channels];
  });
}

}  // namespace sgm::naive
