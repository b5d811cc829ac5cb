// Pooling, resizing and InstanceNorm++.

#include "kernel_checks.h"
#include "kernels/instance_norm.h"
#include "kernels/pooling.h"
#include "naive_refine.h"

namespace sgm {
namespace {

constexpr double kScale = 0.7;

// One pixel; windows larger than the image; whole packs and remainders; many equal values.
const Shape kPooled[] = {{1, 1, 1, 1}, {2, 3, 4, 5}, {1, 11, 6, 8}, {2, 7, 9, 33}};

/// Whole numbers from -1 to 2, so that windows have several largest values.
std::vector<double> steps(std::int64_t n) {
  return map(normals(n, 1, DType::f64),
             [](double value, auto) { return std::clamp(std::round(value), -1.0, 2.0); });
}

void check_max_pool(Context& context, DType dtype) {
  for (const Shape& s : kPooled)
    for (const int radius : {1, 2}) {
      SCOPED_TRACE(testing::Message() << s << ", radius " << radius);
      const Values x{s, normals(s.numel(), 1, dtype)};
      const Guarded px(context, x.data, dtype), y(context, s.numel(), dtype);
      run(MaxPool{px.buffer(), y.buffer(), s[0], s[1], s[2], s[3], radius}, context);
      EXPECT_EQ(y.values(), naive::max_pool(x, radius).data);
    }
}

void check_max_pool_grad(Context& context, DType dtype) {
  for (const Shape& s : kPooled)
    for (const int radius : {1, 2}) {
      SCOPED_TRACE(testing::Message() << s << ", radius " << radius);
      const Values x{s, steps(s.numel())}, y = naive::max_pool(x, radius);
      const std::vector<double> dy = normals(s.numel(), 2, dtype);
      const auto at = [&s](std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) {
        return static_cast<std::size_t>(((n * s[1] + h) * s[2] + w) * s[3] + c);
      };
      std::vector<double> expected(dy.size());
      std::size_t window = 0;
      naive::image_of(s, [&](std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) {
        for (std::int64_t i = std::max<std::int64_t>(0, h - radius); i <= std::min(s[1] - 1, h + radius); ++i)
          for (std::int64_t j = std::max<std::int64_t>(0, w - radius); j <= std::min(s[2] - 1, w + radius);
               ++j)
            if (x.data[at(n, i, j, c)] == y.data[window]) {
              expected[at(n, i, j, c)] += dy[window++];
              return 0.0;
            }
        throw std::runtime_error("a window without its largest value");
      });
      const Guarded px(context, x.data, dtype), py(context, y.data, dtype), pdy(context, dy, dtype),
          dx(context, s.numel(), dtype);
      run(MaxPoolGrad{px.buffer(), py.buffer(), pdy.buffer(), dx.buffer(), s[0], s[1], s[2], s[3], radius},
          context);
      expect_close(dx.values(), expected, roundings(dtype));
    }
}

void check_bilinear(Context& context, DType dtype) {
  struct Sizes {
    std::int64_t n, h, w, oh, ow, c;
  };
  for (const auto& [n, h, w, oh, ow, c] : {Sizes{1, 1, 1, 1, 1, 1},
                                           {2, 5, 3, 9, 6, 3},
                                           {1, 8, 7, 3, 4, 8},
                                           {1, 1, 4, 5, 1, 33},
                                           {1, 14, 14, 28, 28, 16}}) {
    SCOPED_TRACE(testing::Message() << h << " x " << w << " to " << oh << " x " << ow);
    const Values x{{n, h, w, c}, normals(n * h * w * c, 1, dtype)};
    const std::vector<double> dy = normals(n * oh * ow * c, 2, dtype);
    const Guarded px(context, x.data, dtype), pdy(context, dy, dtype), y(context, n * oh * ow * c, dtype),
        dx(context, n * h * w * c, dtype);
    run(Bilinear{px.buffer(), y.buffer(), n, h, w, oh, ow, c, false, kScale}, context);
    std::vector<double> expected = naive::resize_bilinear(x, oh, ow).data, adjoint(x.data.size());
    for (double& value : expected) value *= kScale;
    expect_close(y.values(), expected, roundings(dtype));
    // Its adjoint: each input pixel collects what an image that is 1 there alone becomes.
    for (std::int64_t p = 0; p < h * w; ++p) {
      Values one{{1, h, w, 1}, std::vector<double>(static_cast<std::size_t>(h * w))};
      one.data[static_cast<std::size_t>(p)] = kScale;
      const std::vector<double> spread = naive::resize_bilinear(one, oh, ow).data;
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t q = 0; q < oh * ow; ++q)
          for (std::int64_t k = 0; k < c; ++k)
            adjoint[static_cast<std::size_t>((i * h * w + p) * c + k)] +=
                spread[static_cast<std::size_t>(q)] * dy[static_cast<std::size_t>((i * oh * ow + q) * c + k)];
    }
    run(Bilinear{pdy.buffer(), dx.buffer(), n, h, w, oh, ow, c, true, kScale}, context);
    expect_close(dx.values(), adjoint, roundings(dtype), "adjoint");
  }
}

struct InstanceNormCase {
  Shape x;
  int rows;  // of the table; 0: one, without labels
};
const InstanceNormCase kInstanceNorms[] = {
    {{1, 1, 3, 2}, 0}, {{3, 3, 5, 7}, 4}, {{5, 2, 3, 40}, 3}, {{2, 9, 9, 130}, 0}, {{2, 20, 20, 16}, 4}};

/// Operands of a normalisation and its statistics.
struct InstanceNormOperands {
  DType type;  // of the table and the statistics
  std::int64_t n, hw, c, rows;
  std::vector<double> labels;
  std::vector<int> used;
  Values x, table;
  naive::Levels stats;

  InstanceNormOperands(const InstanceNormCase& norm, DType dtype)
      : type(parameter_type(dtype)),
        n(norm.x[0]),
        hw(norm.x[1] * norm.x[2]),
        c(norm.x[3]),
        rows(std::max(1, norm.rows)),
        x{norm.x, normals(norm.x.numel(), 1, dtype)},
        table{{rows, 3 * c}, rounded(random_values(rows * 3 * c, 2, 0.5, 0.5), type)},
        stats(naive::levels(x, 1e-5)) {
    for (std::int64_t i = 0; i < n; ++i) {
      labels.push_back(static_cast<double>((3 * i + 1) % 5) - 0.5);  // cut to integers, clamped to the table
      used.push_back(norm.rows ? std::clamp(static_cast<int>(labels.back()), 0, norm.rows - 1) : 0);
    }
  }
  const double* affine(std::size_t image) const { return table.data.data() + used[image] * 3 * c; }
};

void check_instance_norm(Context& context, DType dtype) {
  for (const InstanceNormCase& norm : kInstanceNorms) {
    const InstanceNormOperands o(norm, dtype);
    SCOPED_TRACE(testing::Message() << norm.x << ", " << norm.rows << " rows");
    const Guarded x(context, o.x.data, dtype), table(context, o.table.data, o.type),
        label(context, o.labels, DType::f64), y(context, norm.x.numel(), dtype),
        mean(context, o.n * o.c, o.type), rstd(context, o.n * o.c, o.type), level(context, o.n * o.c, o.type),
        level_rstd(context, o.n, o.type);
    run(InstanceNorm{x.buffer(), table.buffer(), norm.rows ? label.buffer() : Buffer{}, y.buffer(),
                     mean.buffer(), rstd.buffer(), level.buffer(), level_rstd.buffer(), o.n, o.hw, o.c,
                     o.rows, 1e-5},
        context);
    expect_close(y.values(), naive::instance_norm_plus(o.x, o.table, o.used, 1e-5).data, roundings(dtype, 8));
    const Tolerance tolerance = {8 * unit_roundoff(o.type), 16 * unit_roundoff(o.type), 1.0};
    expect_close(mean.values(), o.stats.moments.mean, tolerance, "mean");
    expect_close(rstd.values(), o.stats.moments.rstd, tolerance, "rstd");
    expect_close(level.values(), o.stats.level, {4 * tolerance.l2, 4 * tolerance.element, 1.0}, "level");
    expect_close(level_rstd.values(), o.stats.level_rstd, {4 * tolerance.l2, 4 * tolerance.element, 1.0},
                 "level_rstd");
  }
}

/// The gradients from the formula: of the normalised channels, and through their levels.
struct InstanceNormGradients {
  std::vector<double> dx, dtable;

  InstanceNormGradients(const InstanceNormOperands& o, const std::vector<double>& dy)
      : dx(dy.size()), dtable(o.table.data.size()) {
    const auto c = static_cast<std::size_t>(o.c), hw = static_cast<std::size_t>(o.hw);
    const double count = static_cast<double>(o.hw), channels = static_cast<double>(o.c);
    for (std::size_t n = 0; n < static_cast<std::size_t>(o.n); ++n) {
      const double *gamma = o.affine(n), *alpha = gamma + c;
      double* row = dtable.data() + static_cast<std::size_t>(o.used[n]) * 3 * c;
      std::vector<long double> sum(c), sum_h(c), dlevel(c);
      const auto h = [&](std::size_t p, std::size_t k) {
        return (o.x.data[(n * hw + p) * c + k] - o.stats.moments.mean[n * c + k]) *
               o.stats.moments.rstd[n * c + k];
      };
      long double all = 0.0, along = 0.0;
      for (std::size_t k = 0; k < c; ++k) {
        for (std::size_t p = 0; p < hw; ++p)
          sum[k] += dy[(n * hw + p) * c + k], sum_h[k] += dy[(n * hw + p) * c + k] * h(p, k);
        const double level = o.stats.level[n * c + k];
        row[k] += static_cast<double>(sum_h[k] + alpha[k] * level * sum[k]);
        row[c + k] += static_cast<double>(gamma[k] * level * sum[k]);
        row[2 * c + k] += static_cast<double>(sum[k]);
        dlevel[k] = gamma[k] * alpha[k] * sum[k];
        all += dlevel[k] / channels, along += dlevel[k] * level / (channels - 1.0);
      }
      for (std::size_t k = 0; k < c; ++k) {
        const double slope = gamma[k] * o.stats.moments.rstd[n * c + k];
        const long double dmean =
            o.stats.level_rstd[n] * (dlevel[k] - all - o.stats.level[n * c + k] * along);
        for (std::size_t p = 0; p < hw; ++p)
          dx[(n * hw + p) * c + k] = static_cast<double>(
              slope * (dy[(n * hw + p) * c + k] - sum[k] / count - h(p, k) * sum_h[k] / count) +
              dmean / count);
      }
    }
  }
};

void check_instance_norm_grad(Context& context, DType dtype) {
  for (const InstanceNormCase& norm : kInstanceNorms) {
    const InstanceNormOperands o(norm, dtype);
    SCOPED_TRACE(testing::Message() << norm.x << ", " << norm.rows << " rows");
    const std::vector<double> dy = normals(norm.x.numel(), 5, dtype);
    const InstanceNormGradients exact(o, map(dy, [](double value, auto) { return kScale * value; }));
    const Guarded x(context, o.x.data, dtype), table(context, o.table.data, o.type),
        label(context, o.labels, DType::f64), mean(context, o.stats.moments.mean, o.type),
        rstd(context, o.stats.moments.rstd, o.type), level(context, o.stats.level, o.type),
        level_rstd(context, o.stats.level_rstd, o.type), pdy(context, dy, dtype);
    for (const bool want_table : {true, false}) {
      const Guarded dx(context, norm.x.numel(), dtype), dtable(context, o.rows * 3 * o.c, o.type);
      run(InstanceNormGrad{x.buffer(), table.buffer(), norm.rows ? label.buffer() : Buffer{}, mean.buffer(),
                           rstd.buffer(), level.buffer(), level_rstd.buffer(), pdy.buffer(), dx.buffer(),
                           want_table ? dtable.buffer() : Buffer{}, o.n, o.hw, o.c, o.rows, kScale},
          context);
      expect_close(dx.values(), exact.dx, roundings(dtype, 8), "dx");
      if (want_table)
        expect_close(dtable.values(), exact.dtable,
                     {16 * unit_roundoff(o.type), 32 * unit_roundoff(o.type), 1.0}, "dtable");
    }
  }
}

}  // namespace

std::vector<KernelRow> refine_kernels() {
  return {{"MaxPool", check_max_pool},
          {"MaxPoolGrad", check_max_pool_grad},
          {"Bilinear", check_bilinear},
          {"InstanceNorm", check_instance_norm},
          {"InstanceNormGrad", check_instance_norm_grad}};
}

}  // namespace sgm
