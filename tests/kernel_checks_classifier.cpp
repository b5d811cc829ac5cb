#include <cmath>
#include <limits>

#include "kernel_checks.h"
#include "kernels/classifier.h"

namespace sgm {
namespace {

struct ImageSizes {
  std::int64_t n, per, c;
};
constexpr ImageSizes kImages[] = {{1, 1, 1}, {2, 15, 3}, {3, 784, 1}, {2, 4101, 3}};

/// Images of which the last is nearly of one colour, so that its standard deviation is below the bound.
std::vector<double> images(const ImageSizes& s, DType dtype) {
  std::vector<double> x = normals(s.n * s.per, 1, dtype, 2.0);
  for (std::int64_t i = (s.n - 1) * s.per; i < s.n * s.per; ++i)
    x[i] = rounded(0.5 + 1e-4 * x[i] / static_cast<double>(s.per), dtype);
  return x;
}

/// What one image becomes, in double.
struct Standardised {
  std::vector<double> u;
  double mean = 0, rstd = 0;
  bool bounded = false;

  Standardised(const double* x, const ImageSizes& s, const std::vector<double>& scale,
               const std::vector<double>& shift) {
    double squares = 0;
    const auto per = static_cast<double>(s.per);
    for (std::int64_t i = 0; i < s.per; ++i) u.push_back(scale[i % s.c] * x[i] + shift[i % s.c]);
    for (const double value : u) mean += value / per;
    for (const double value : u) squares += (value - mean) * (value - mean);
    bounded = std::sqrt(squares / per) <= 1.0 / std::sqrt(per);
    rstd = bounded ? std::sqrt(per) : 1.0 / std::sqrt(squares / per);
  }
};

void check_standardise(Context& context, DType dtype) {
  for (const ImageSizes& s : kImages) {
    const std::vector<double> x = images(s, dtype), scale(static_cast<std::size_t>(s.c), 1.5),
                              shift = random_values(s.c, 3);
    const Guarded in(context, x, dtype), a(context, scale, DType::f64), b(context, shift, DType::f64),
        y(context, s.n * s.per, dtype), mean(context, s.n, DType::f64), rstd(context, s.n, DType::f64);
    run(Standardise{in.buffer(), a.buffer(), b.buffer(), y.buffer(), mean.buffer(), rstd.buffer(), s.n, s.per,
                    s.c},
        context);
    std::vector<double> expected, means, rstds;
    for (std::int64_t n = 0; n < s.n; ++n) {
      const Standardised image(x.data() + n * s.per, s, scale, shift);
      for (const double u : image.u) expected.push_back((u - image.mean) * image.rstd);
      means.push_back(image.mean), rstds.push_back(image.rstd);
    }
    // Sums are in double whatever x is, and the mean is a thousand times what an image differs from it by.
    const Tolerance tolerance{roundings(dtype).l2 + 1e-12, roundings(dtype).element + 1e-12, 1e-3};
    expect_close(y.values(), expected, tolerance, "y");
    expect_close(mean.values(), means, {1e-13}, "mean");
    expect_close(rstd.values(), rstds, {1e-13}, "rstd");
  }
}

void check_standardise_grad(Context& context, DType dtype) {
  for (const ImageSizes& s : kImages) {
    const std::vector<double> x = images(s, dtype), dy = normals(s.n * s.per, 2, dtype),
                              scale(static_cast<std::size_t>(s.c), 1.5), shift = random_values(s.c, 3);
    std::vector<double> expected, means, rstds;
    for (std::int64_t n = 0; n < s.n; ++n) {
      const Standardised image(x.data() + n * s.per, s, scale, shift);
      means.push_back(image.mean), rstds.push_back(image.rstd);
      const double* g = dy.data() + n * s.per;
      double sum = 0, dot = 0;
      for (std::int64_t i = 0; i < s.per; ++i) sum += g[i], dot += g[i] * (image.u[i] - image.mean);
      const auto per = static_cast<double>(s.per);
      for (std::int64_t i = 0; i < s.per; ++i) {
        const double slope = image.bounded ? 0.0 : image.rstd * image.rstd * dot / per;
        expected.push_back(1.5 * image.rstd * (g[i] - sum / per - (image.u[i] - image.mean) * slope));
      }
    }
    const Guarded in(context, x, dtype), a(context, scale, DType::f64), b(context, shift, DType::f64),
        mean(context, means, DType::f64), rstd(context, rstds, DType::f64), grad(context, dy, dtype),
        dx(context, s.n * s.per, dtype);
    run(StandardiseGrad{in.buffer(), a.buffer(), b.buffer(), mean.buffer(), rstd.buffer(), grad.buffer(),
                        dx.buffer(), s.n, s.per, s.c},
        context);
    const Tolerance tolerance{roundings(dtype).l2 + 1e-12, roundings(dtype).element + 1e-12, 1e-3};
    expect_close(dx.values(), expected, tolerance);
  }
}

struct PixelSizes {
  std::int64_t n, pixels, c;
};
constexpr PixelSizes kPixels[] = {{1, 1, 1}, {2, 49, 5}, {3, 4, 24}, {1, 9, 2056}};

void check_mean_pixels(Context& context, DType dtype) {
  for (const auto& [n, pixels, c] : kPixels) {
    const std::vector<double> x = normals(n * pixels * c, 1, dtype);
    const Guarded in(context, x, dtype), y(context, n * c, parameter_type(dtype));
    run(MeanPixels{in.buffer(), y.buffer(), n, pixels, c}, context);
    std::vector<double> expected(static_cast<std::size_t>(n * c));
    for (std::int64_t i = 0; i < n * pixels * c; ++i)
      expected[i / (pixels * c) * c + i % c] += x[i] / static_cast<double>(pixels);
    expect_close(y.values(), expected, roundings(parameter_type(dtype)));
  }
}

void check_mean_pixels_grad(Context& context, DType dtype) {
  for (const auto& [n, pixels, c] : kPixels) {
    const std::vector<double> dy = normals(n * c, 1, parameter_type(dtype));
    const Guarded in(context, dy, parameter_type(dtype)), dx(context, n * pixels * c, dtype);
    run(MeanPixelsGrad{in.buffer(), dx.buffer(), n, pixels, c, -0.3}, context);
    std::vector<double> expected;
    for (std::int64_t i = 0; i < n * pixels * c; ++i)
      expected.push_back(-0.3 * dy[i / (pixels * c) * c + i % c] / static_cast<double>(pixels));
    expect_close(dx.values(), expected, roundings(dtype));
  }
}

void check_cross_entropy(Context& context, DType dtype) {
  const DType type = parameter_type(dtype);
  for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {11, 10}, {3, 2}, {9, 101}})
    // Numbers of all sizes: an exponential of 300 must not overflow, nor the loss of a hopeless class.
    for (const double size : {1.0, 300.0}) {
      std::vector<double> x = normals(rows * cols, 1, type, size), labels, losses, slopes, correct;
      if (rows > 2) x[2 * cols] = x[2 * cols + 1] = 4.0 * size;  // two equal numbers; the first is the class
      for (std::int64_t r = 0; r < rows; ++r) {
        const double* row = x.data() + r * cols;
        const std::int64_t label = r == 2 ? 0 : (3 * r) % cols;
        labels.push_back(static_cast<double>(label));
        const double largest = *std::max_element(row, row + cols);
        double sum = 0;
        for (std::int64_t k = 0; k < cols; ++k) sum += std::exp(row[k] - largest);
        losses.push_back(std::log(sum) + largest - row[label]);
        correct.push_back(std::max_element(row, row + cols) == row + label ? 1.0 : 0.0);
        for (std::int64_t k = 0; k < cols; ++k)
          slopes.push_back(std::exp(row[k] - largest) / sum - (k == label ? 1.0 : 0.0));
      }
      const Guarded in(context, x, type), at(context, labels, DType::f64), loss(context, rows, DType::f64),
          dx(context, rows * cols, type), hit(context, rows, DType::f64);
      run(CrossEntropy{in.buffer(), at.buffer(), loss.buffer(), dx.buffer(), hit.buffer(), rows, cols},
          context);
      expect_close(loss.values(), losses, {1e-13, 1e-12, 1e-3});
      Tolerance tolerance = roundings(type);
      tolerance.floor = 1e-3;  // of one class there is no doubt
      expect_close(dx.values(), slopes, tolerance);
      EXPECT_EQ(hit.values(), correct);
    }
  const Guarded in(context, std::vector<double>{1, 2, 3, 4}, type),
      at(context, std::vector<double>{2, -1}, DType::f64), loss(context, 2, DType::f64), dx(context, 4, type),
      hit(context, 2, DType::f64);
  run(CrossEntropy{in.buffer(), at.buffer(), loss.buffer(), dx.buffer(), hit.buffer(), 2, 2}, context);
  for (const Guarded* output : {&loss, &dx})
    for (const double value : output->values()) EXPECT_TRUE(std::isnan(value)) << "no such class";
  EXPECT_EQ(hit.values(), (std::vector<double>{0, 0}));
}

}  // namespace

std::vector<KernelRow> classifier_kernels() {
  return {{"Standardise", check_standardise},
          {"StandardiseGrad", check_standardise_grad},
          {"MeanPixels", check_mean_pixels},
          {"MeanPixelsGrad", check_mean_pixels_grad},
          {"CrossEntropy", check_cross_entropy}};
}

}  // namespace sgm
