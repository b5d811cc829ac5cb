#include "kernel_checks.h"
#include "kernels/elementwise.h"
#include "kernels/fill.h"
#include "naive.h"

namespace sgm {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f64};

constexpr Activation kActivations[] = {Activation::none, Activation::swish, Activation::elu, Activation::relu,
                                       Activation::lrelu};

void check_activate(Context& context, DType dtype) {
  for (const std::int64_t n : {1, 7, 1021})
    for (const Activation activation : kActivations) {
      const std::vector<double> x = normals(n, 1, dtype, 3.0);
      const Guarded in(context, x, dtype), y(context, n, dtype);
      run(Activate{in.buffer(), y.buffer(), n, activation}, context);
      expect_close(y.values(), map(x, [&](double v, auto) { return naive::activate(activation, v); }),
                   roundings(dtype));
    }
}

void check_activate_grad(Context& context, DType dtype) {
  for (const std::int64_t n : {1, 7, 1021})
    for (const Activation activation : kActivations) {
      const std::vector<double> x = normals(n, 1, dtype, 3.0), dy = normals(n, 2, dtype);
      const Guarded in(context, x, dtype), out(context, dy, dtype), dx(context, n, dtype);
      run(ActivateGrad{in.buffer(), out.buffer(), dx.buffer(), n, activation}, context);
      expect_close(dx.values(),
                   map(x, [&](double v, auto i) { return dy[i] * naive::activate_grad(activation, v); }),
                   roundings(dtype));
    }
}

/// The operand without its first element: on no boundary of sixteen bytes.
Buffer after_first(const Guarded& operand) {
  const Buffer all = operand.buffer();
  return {all.as<std::byte>() + size_of(all.dtype), all.dtype};
}

void check_add_scaled(Context& context, DType dtype) {
  for (const std::int64_t n : {1, 13, 1021}) {
    const std::vector<double> a = normals(n, 1, dtype), b = normals(n, 2, dtype);
    const auto sum = map(a, [&](double v, auto i) { return 0.3 * v - 1.7 * b[i]; });
    const Guarded pa(context, a, dtype), pb(context, b, dtype), y(context, n, dtype), z(context, n, dtype);
    run(AddScaled{pa.buffer(), pb.buffer(), y.buffer(), n, 0.3, -1.7}, context);
    expect_close(y.values(), sum, roundings(dtype));
    run(AddScaled{pa.buffer(), {}, z.buffer(), n, 0.3, -1.7}, context);
    expect_close(z.values(), map(a, [](double v, auto) { return 0.3 * v; }), roundings(dtype));
    const Guarded into_a(context, a, dtype, true), into_b(context, b, dtype, true);
    run(AddScaled{into_a.buffer(), pb.buffer(), into_a.buffer(), n, 0.3, -1.7}, context);
    expect_close(into_a.values(), sum, roundings(dtype), "y is a");
    run(AddScaled{pa.buffer(), into_b.buffer(), into_b.buffer(), n, 0.3, -1.7}, context);
    expect_close(into_b.values(), sum, roundings(dtype), "y is b");

    const Guarded shifted(context, n, dtype);
    run(AddScaled{after_first(pa), after_first(pb), after_first(shifted), n - 1, 0.3, -1.7}, context);
    const std::vector<double> rest = shifted.values();
    EXPECT_TRUE(std::isnan(rest[0]));
    expect_close(std::span(rest).subspan(1), std::span(sum).subspan(1), roundings(dtype), "unaligned");
  }
}

void check_scale_rows(Context& context, DType dtype) {
  for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {5, 13}, {3, 257}, {3, 64}}) {
    const std::vector<double> x = normals(rows * cols, 1, dtype), scale = random_values(rows, 2);
    const Guarded in(context, x, dtype), factors(context, scale, DType::f64), y(context, rows * cols, dtype),
        z(context, rows * cols, dtype);
    run(ScaleRows{in.buffer(), factors.buffer(), y.buffer(), rows, cols, 2.5, -0.25}, context);
    const auto columns = static_cast<std::size_t>(cols);
    expect_close(y.values(), map(x, [&](double v, auto i) { return 2.5 * scale[i / columns] * v - 0.25; }),
                 roundings(dtype));
    run(ScaleRows{in.buffer(), {}, z.buffer(), rows, cols, 2.5, -0.25}, context);
    expect_close(z.values(), map(x, [](double v, auto) { return 2.5 * v - 0.25; }), roundings(dtype));
  }
}

void check_add_bias(Context& context, DType dtype) {
  for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {5, 13}, {257, 3}, {5, 24}}) {
    const std::vector<double> x = normals(rows * cols, 1, dtype),
                              bias = normals(cols, 2, parameter_type(dtype));
    const Guarded in(context, x, dtype), b(context, bias, parameter_type(dtype)),
        y(context, rows * cols, dtype);
    run(AddBias{in.buffer(), b.buffer(), y.buffer(), rows, cols}, context);
    const auto columns = static_cast<std::size_t>(cols);
    expect_close(y.values(), map(x, [&](double v, auto i) { return v + bias[i % columns]; }),
                 roundings(dtype));
  }
}

struct ConcatSizes {
  std::int64_t rows, ca, cb;
};
constexpr ConcatSizes kConcats[] = {{1, 1, 1}, {7, 5, 3}, {13, 1, 16}, {5, 24, 8}, {3, 16, 4}};

void check_concat_channels(Context& context, DType dtype) {
  for (const auto& [rows, ca, cb] : kConcats) {
    const std::vector<double> a = normals(rows * ca, 1, dtype), b = normals(rows * cb, 2, dtype);
    const Guarded pa(context, a, dtype), pb(context, b, dtype), y(context, rows * (ca + cb), dtype);
    run(ConcatChannels{pa.buffer(), pb.buffer(), y.buffer(), rows, ca, cb}, context);
    std::vector<double> expected;
    for (std::int64_t r = 0; r < rows; ++r) {
      expected.insert(expected.end(), a.begin() + r * ca, a.begin() + (r + 1) * ca);
      expected.insert(expected.end(), b.begin() + r * cb, b.begin() + (r + 1) * cb);
    }
    EXPECT_EQ(y.values(), expected);
  }
}

void check_split_channels(Context& context, DType dtype) {
  for (const auto& [rows, ca, cb] : kConcats) {
    const std::vector<double> y = normals(rows * (ca + cb), 1, dtype);
    std::vector<double> a, b;
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto row = y.begin() + r * (ca + cb);
      a.insert(a.end(), row, row + ca);
      b.insert(b.end(), row + ca, row + ca + cb);
    }
    for (const bool want_a : {true, false})
      for (const bool want_b : {true, false}) {
        const Guarded in(context, y, dtype), pa(context, rows * ca, dtype), pb(context, rows * cb, dtype);
        run(SplitChannels{in.buffer(), want_a ? pa.buffer() : Buffer{}, want_b ? pb.buffer() : Buffer{}, rows,
                          ca, cb},
            context);
        EXPECT_TRUE(!want_a || pa.values() == a);
        EXPECT_TRUE(!want_b || pb.values() == b);
      }
  }
}

void check_sum_rows(Context& context, DType dtype) {
  // No rows, one, several chunks of them; columns by sixteen bytes, one by one, and more than a tile.
  for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{0, 3},
                                   {1, 1},
                                   {13, 7},
                                   {1021, 3},
                                   {300, 130},
                                   {257, 72},
                                   {5, 1000},
                                   {9000, 1}})
    for (const DType to : {parameter_type(dtype), DType::f64})
      for (const double scale : {1.0, -0.3}) {
        const std::vector<double> x = normals(rows * cols, 1, dtype);
        const Guarded in(context, x, dtype), y(context, cols, to), again(context, cols, to);
        run(SumRows{in.buffer(), y.buffer(), rows, cols, scale}, context);
        run(SumRows{in.buffer(), again.buffer(), rows, cols, scale}, context);
        std::vector<long double> sums(static_cast<std::size_t>(cols)), sizes(sums.size());
        for (std::size_t i = 0; i < x.size(); ++i) {
          sums[i % sums.size()] += scale * static_cast<long double>(x[i]);
          sizes[i % sums.size()] += std::abs(scale * x[i]);
        }
        // Sums in any order err by about one rounding of the sum of magnitudes.
        const std::vector<double> actual = y.values();
        for (std::size_t c = 0; c < sums.size(); ++c)
          ASSERT_TRUE(std::abs(actual[c] - sums[c]) <= 4.0 * unit_roundoff(parameter_type(dtype)) * sizes[c])
              << "column " << c << " of [" << rows << ", " << cols << "]: " << actual[c] << " is not "
              << sums[c];
        EXPECT_EQ(again.values(), y.values()) << "the order of a sum is fixed";
      }
}

// Rows, columns: any number, then as attention has them on images of 4, 16 and 32 pixels, and more.
constexpr std::pair<std::int64_t, std::int64_t> kSoftmaxSizes[] = {{1, 1},   {5, 13},   {3, 257}, {17, 16},
                                                                   {9, 256}, {2, 1024}, {2, 1032}};

void check_softmax(Context& context, DType dtype) {
  for (const auto& [rows, cols] : kSoftmaxSizes)
    // Scores of all sizes: an exponential of 300 must not overflow.
    for (const double size : {1.0, 300.0}) {
      const std::vector<double> x = normals(rows * cols, 1, parameter_type(dtype), size);
      const Guarded in(context, x, parameter_type(dtype)), y(context, rows * cols, dtype);
      run(Softmax{in.buffer(), y.buffer(), rows, cols, 0.7}, context);
      std::vector<double> expected;
      for (std::int64_t r = 0; r < rows; ++r) {
        const auto begin = x.begin() + r * cols, end = begin + cols;
        const double largest = *std::max_element(begin, end);
        double total = 0.0;
        for (auto it = begin; it != end; ++it) total += std::exp(0.7 * (*it - largest));
        for (auto it = begin; it != end; ++it) expected.push_back(std::exp(0.7 * (*it - largest)) / total);
      }
      // The exponent itself is rounded: its error is relative to the scores.
      expect_close(y.values(), expected,
                   {4 * unit_roundoff(dtype) + 4 * size * unit_roundoff(parameter_type(dtype))});
    }
}

void check_softmax_grad(Context& context, DType dtype) {
  for (const auto& [rows, cols] : kSoftmaxSizes) {
    const std::vector<double> y =
        map(normals(rows * cols, 1, dtype), [&](double v, auto) { return rounded(std::abs(v), dtype); });
    const std::vector<double> dy = normals(rows * cols, 2, parameter_type(dtype));
    const Guarded py(context, y, dtype), pdy(context, dy, parameter_type(dtype)),
        dx(context, rows * cols, dtype);
    run(SoftmaxGrad{py.buffer(), pdy.buffer(), dx.buffer(), rows, cols, 0.7}, context);
    std::vector<double> expected, products;
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
      const auto columns = static_cast<std::size_t>(cols);
      double product = 0.0;
      for (std::size_t i = r * columns; i < (r + 1) * columns; ++i) product += y[i] * dy[i];
      for (std::size_t i = r * columns; i < (r + 1) * columns; ++i)
        expected.push_back(0.7 * y[i] * (dy[i] - product));
    }
    // A sum of `cols` products, subtracted from each.
    expect_close(dx.values(), expected, {16 * unit_roundoff(dtype)});
  }
}

void check_fourier_embedding(Context& context, DType dtype) {
  const std::vector<double> u = {0.01, 0.3, 1.0, 12.0, 1348.0};
  const std::int64_t n = std::ssize(u), half = 7;
  const std::vector<double> w = normals(half, 1, dtype, 16.0);
  const Guarded pu(context, u, DType::f64), pw(context, w, dtype), y(context, n * 2 * half, dtype);
  run(FourierEmbedding{pu.buffer(), pw.buffer(), y.buffer(), n, half}, context);
  std::vector<double> expected;
  for (const double label : u)
    for (const bool cosine : {false, true})
      for (const double frequency : w) {
        // The angle, hundreds of radians, is rounded like the networks are used to: after every product.
        double angle = std::log(label);
        for (const double factor : {frequency, 2.0, M_PI})
          angle = rounded(rounded(angle, parameter_type(dtype)) * rounded(factor, parameter_type(dtype)),
                          parameter_type(dtype));
        expected.push_back(cosine ? std::cos(angle) : std::sin(angle));
      }
  expect_close(y.values(), expected, roundings(dtype));
}

void check_positional_embedding(Context& context, DType dtype) {
  const std::vector<double> t = {0.0, 0.999, 37.5, 999.0};
  for (const std::int64_t dim : {4, 7, 16, 127}) {
    const std::int64_t n = std::ssize(t), half = dim / 2;
    const Guarded pt(context, t, DType::f64), y(context, n * dim, dtype);
    run(PositionalEmbedding{pt.buffer(), y.buffer(), n, dim}, context);
    std::vector<double> expected;
    for (const double label : t) {
      for (const bool cosine : {false, true})
        for (std::int64_t j = 0; j < half; ++j) {
          const double angle =
              label * std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(half - 1));
          expected.push_back(cosine ? std::cos(angle) : std::sin(angle));
        }
      if (dim % 2) expected.push_back(0.0);
    }
    // An f32 angle of up to 999 has an error of up to 999 times a few roundings.
    expect_close(y.values(), expected, {2e-4 + 2 * unit_roundoff(dtype)});
    for (std::size_t i = static_cast<std::size_t>(dim) - 1; dim % 2 && i < y.values().size();
         i += static_cast<std::size_t>(dim))
      EXPECT_EQ(y.values()[i], 0.0);
  }
}

/// Labels are f64 whatever the network's type is.
void check_inverse_sigma(Context& context, DType) {
  const std::vector<double> sigmas = {0.01, 1.0, 37.5, 1348.0};
  const Guarded in(context, sigmas, DType::f64), y(context, std::ssize(sigmas), DType::f64);
  run(InverseSigma{in.buffer(), y.buffer(), std::ssize(sigmas), 0.01, 50.0, 0}, context);
  expect_close(y.values(), map(sigmas, [](double v, auto) { return 1.0 / v; }), roundings(DType::f64));
  const Guarded soft(context, std::ssize(sigmas), DType::f64);
  run(InverseSigma{in.buffer(), soft.buffer(), std::ssize(sigmas), 0.01, 50.0, 0, 2.5}, context);
  expect_close(soft.values(), map(sigmas, [](double v, auto) { return 1.0 / std::hypot(v, 2.5); }),
               roundings(DType::f64));

  // Between two indices the lower one counts, beyond the table its ends do.
  const std::vector<double> labels = {0.0, 0.999, 1.0, 7.5, 8.0, 9.0, 1e9, -0.5, -3.0, NAN};
  const std::int64_t n = std::ssize(labels);
  for (const std::int64_t scales : {9, 1}) {
    const Guarded from(context, labels, DType::f64), to(context, n, DType::f64);
    run(InverseSigma{from.buffer(), to.buffer(), n, 0.01, 50.0, scales}, context);
    std::vector<double> values = to.values(), expected;
    for (const double label : {0.0, 0.0, 1.0, 7.0, 8.0, 8.0, 8.0, 0.0, 0.0}) {
      const double way = scales > 1 ? label / 8.0 : 0.0;
      expected.push_back(std::exp(-std::log(50.0) + way * std::log(5000.0)));
    }
    EXPECT_TRUE(std::isnan(values.back()));
    values.pop_back();
    expect_close(values, expected, roundings(DType::f64, 16));
  }
}

void check_fill(Context& context, DType dtype) {
  for (const std::int64_t n : {0, 1, 13, 70'001}) {
    const Guarded y(context, n, dtype);
    run(Fill{y.buffer(), n, 0.3}, context);
    EXPECT_EQ(y.values(), std::vector<double>(static_cast<std::size_t>(n), rounded(0.3, dtype)));
  }
}

void check_cast(Context& context, DType dtype) {
  for (const DType to : kTypes)
    for (const std::int64_t n : {0, 1, 13, 70'001}) {
      const std::vector<double> x = normals(n, 1, dtype);
      const Guarded in(context, x, dtype), y(context, n, to);
      run(Cast{in.buffer(), y.buffer(), n}, context);
      EXPECT_EQ(y.values(), rounded(x, to));
    }
}

}  // namespace

std::vector<KernelRow> elementwise_kernels() {
  return {{"Activate", check_activate},
          {"ActivateGrad", check_activate_grad},
          {"AddScaled", check_add_scaled},
          {"ScaleRows", check_scale_rows},
          {"AddBias", check_add_bias},
          {"ConcatChannels", check_concat_channels},
          {"SplitChannels", check_split_channels},
          {"SumRows", check_sum_rows},
          {"Softmax", check_softmax},
          {"SoftmaxGrad", check_softmax_grad},
          {"FourierEmbedding", check_fourier_embedding},
          {"PositionalEmbedding", check_positional_embedding},
          {"InverseSigma", check_inverse_sigma},
          {"Fill", check_fill},
          {"Cast", check_cast}};
}

}  // namespace sgm
