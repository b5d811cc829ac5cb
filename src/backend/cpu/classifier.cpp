#include "kernels/classifier.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/parallel.h"

namespace sgm {
namespace {

/// u of an image, in double.
template <class T>
std::vector<double> scaled_image(const T* x, const double* scale, const double* shift, std::int64_t per,
                                 std::int64_t c) {
  std::vector<double> u(static_cast<std::size_t>(per));
  for (std::int64_t i = 0; i < per; ++i) u[i] = scale[i % c] * double(Accumulator<T>(x[i])) + shift[i % c];
  return u;
}

}  // namespace

void Standardise::cpu(Context&) const {
  dispatch_float(x.dtype, "standardise", [&]<class T>(T) {
#pragma omp parallel for if (n * per > kParallelFrom)
    for (std::int64_t image = 0; image < n; ++image) {
      const std::vector<double> u =
          scaled_image(x.as<T>() + image * per, scale.as<double>(), shift.as<double>(), per, c);
      double sum = 0, squares = 0;
      for (const double value : u) sum += value;
      const double center = sum / static_cast<double>(per);
      for (const double value : u) squares += (value - center) * (value - center);
      const double slope = std::sqrt(static_cast<double>(per) / std::max(squares, 1.0));
      for (std::int64_t i = 0; i < per; ++i)
        y.as<T>()[image * per + i] = T(Accumulator<T>((u[i] - center) * slope));
      mean.as<double>()[image] = center;
      rstd.as<double>()[image] = slope;
    }
  });
}

void StandardiseGrad::cpu(Context&) const {
  dispatch_float(x.dtype, "standardise", [&]<class T>(T) {
    using A = Accumulator<T>;
#pragma omp parallel for if (n * per > kParallelFrom)
    for (std::int64_t image = 0; image < n; ++image) {
      const double center = mean.as<double>()[image], slope = rstd.as<double>()[image];
      std::vector<double> normal =
          scaled_image(x.as<T>() + image * per, scale.as<double>(), shift.as<double>(), per, c);
      const T* grad = dy.as<T>() + image * per;
      double sum = 0, dot = 0;
      for (std::int64_t i = 0; i < per; ++i) {
        normal[i] = (normal[i] - center) * slope;
        sum += double(A(grad[i]));
        dot += double(A(grad[i])) * normal[i];
      }
      const auto count = static_cast<double>(per);
      if (!(slope < std::sqrt(count))) dot = 0;
      for (std::int64_t i = 0; i < per; ++i)
        dx.as<T>()[image * per + i] = T(A(scale.as<double>()[i % c] * slope *
                                          (double(A(grad[i])) - sum / count - normal[i] * (dot / count))));
    }
  });
}

void MeanPixels::cpu(Context&) const {
  dispatch_float(x.dtype, "mean_pixels", [&]<class T>(T) {
    using A = Accumulator<T>;
#pragma omp parallel for if (n * pixels * c > kParallelFrom)
    for (std::int64_t image = 0; image < n; ++image) {
      std::vector<A> sums(static_cast<std::size_t>(c));
      const T* in = x.as<T>() + image * pixels * c;
      for (std::int64_t p = 0; p < pixels; ++p)
        for (std::int64_t k = 0; k < c; ++k) sums[k] += A(in[p * c + k]);
      for (std::int64_t k = 0; k < c; ++k) y.as<A>()[image * c + k] = sums[k] / static_cast<A>(pixels);
    }
  });
}

void MeanPixelsGrad::cpu(Context&) const {
  dispatch_float(dx.dtype, "mean_pixels", [&]<class T>(T) {
    using A = Accumulator<T>;
    const A share = static_cast<A>(factor / static_cast<double>(pixels));
#pragma omp parallel for if (n * pixels * c > kParallelFrom)
    for (std::int64_t image = 0; image < n; ++image)
      for (std::int64_t p = 0; p < pixels; ++p)
        for (std::int64_t k = 0; k < c; ++k)
          dx.as<T>()[(image * pixels + p) * c + k] = T(share * dy.as<A>()[image * c + k]);
  });
}

void CrossEntropy::cpu(Context&) const {
  dispatch_float(x.dtype, "cross_entropy", [&]<class T>(T) {
    using A = Accumulator<T>;
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* in = x.as<T>() + r * cols;
      const double wanted = label.as<double>()[r];
      const bool known = wanted >= 0 && wanted < static_cast<double>(cols);
      const std::int64_t chosen = known ? static_cast<std::int64_t>(wanted) : 0;
      const double own = known ? double(A(in[chosen])) : std::numeric_limits<double>::quiet_NaN();
      double largest = -std::numeric_limits<double>::infinity(), sum = 0;
      bool first = known;
      for (std::int64_t k = 0; k < cols; ++k) {
        const double value = double(A(in[k]));
        largest = std::max(largest, value);
        first = first && (value < own || (value == own && k >= chosen));
      }
      for (std::int64_t k = 0; k < cols; ++k) sum += std::exp(double(A(in[k])) - largest);
      loss.as<double>()[r] = std::log(sum) + largest - own;
      correct.as<double>()[r] = first ? 1.0 : 0.0;
      for (std::int64_t k = 0; k < cols; ++k) {
        const double p = std::exp(double(A(in[k])) - largest) / sum;
        dx.as<T>()[r * cols + k] = T(A(known ? p - (k == chosen) : own));
      }
    }
  });
}

}  // namespace sgm
