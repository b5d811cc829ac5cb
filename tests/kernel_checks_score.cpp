#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "kernel_checks.h"
#include "kernels/score_matching.h"

namespace sgm {
namespace {

/// In double, by Leibniz's rule for x sigmoid(x).
double derivative_of(const Derivative& f, double x) {
  if (f.activation == Activation::none) return f.order == 0 ? x : f.order == 1;
  const double s = 1.0 / (1.0 + std::exp(-x)), s1 = s * (1 - s), s2 = s1 * (1 - 2 * s);
  const double sigmoid[] = {s, s1, s2, s1 * (1 - 6 * s1)};
  return x * sigmoid[f.order] + (f.order == 0 ? 0.0 : f.order * sigmoid[f.order - 1]);
}

void check_derivative_products(Context& context, DType dtype, bool gradient) {
  for (const auto& [n, copies] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {13, 3}, {4096, 2}, {0, 1}})
    for (const Activation activation : {Activation::none, Activation::swish})
      for (int order = 0; order <= 3; ++order) {
        const Derivative f{activation, order};
        SCOPED_TRACE(std::to_string(n) + " order " + std::to_string(order));
        const std::vector<double> x = normals(n, 1, dtype, 2.0), v = normals(n * copies, 2, dtype),
                                  dy = normals(n * copies, 3, dtype);
        const Guarded px(context, x, dtype), pv(context, v, dtype), pdy(context, dy, dtype),
            y(context, gradient ? n : n * copies, dtype);
        // The derivatives, of size one, are sums of terms of that size and pass through zero.
        Tolerance tolerance = roundings(dtype, 8.0);
        tolerance.floor = 0.5;
        if (!gradient) {
          run(DerivativeProduct{px.buffer(), pv.buffer(), y.buffer(), n, copies, f}, context);
          expect_close(
              y.values(),
              map(v, [&, size = x.size()](double each,
                                          std::size_t i) { return each * derivative_of(f, x[i % size]); }),
              tolerance);
          continue;
        }
        run(DerivativeProductGrad{px.buffer(), pv.buffer(), pdy.buffer(), y.buffer(), n, copies, f}, context);
        expect_close(y.values(),
                     map(x,
                         [&](double each, std::size_t i) {
                           double sum = 0;
                           for (std::size_t k = i; k < v.size(); k += x.size()) sum += v[k] * dy[k];
                           return derivative_of(f, each) * sum;
                         }),
                     tolerance);
      }
}

/// As often one as minus one, whatever the batch, and not the signs of another image, step or seed.
void check_random_signs(Context& context, DType dtype) {
  const auto draw = [&](std::int64_t n, std::int64_t per_image, const NoiseKey& key) {
    const Guarded y(context, n * per_image, dtype);
    run(RandomSigns{y.buffer(), n, per_image, key}, context);
    return y.values();
  };
  const NoiseKey key{5, Purpose::direction, 3};
  const std::vector<double> signs = draw(3, 1021, key);
  double sum = 0;
  for (const double sign : signs) {
    ASSERT_EQ(std::abs(sign), 1.0);
    sum += sign;
  }
  EXPECT_LE(std::abs(sum), 4.0 * std::sqrt(3.0 * 1021.0));
  NoiseKey second = key;
  second.first_sample = 1;
  const std::vector<double> rest = draw(2, 1021, second);
  EXPECT_EQ(rest, std::vector<double>(signs.begin() + 1021, signs.end()));
  EXPECT_NE(rest, std::vector<double>(signs.begin(), signs.end() - 1021));
  EXPECT_NE(draw(3, 1021, {5, Purpose::direction, 4}), signs);
  EXPECT_NE(draw(3, 1021, {6, Purpose::direction, 3}), signs);
  EXPECT_EQ(std::abs(draw(1, 1, key)[0]), 1.0);
  draw(0, 5, key);
}

void check_directional_loss(Context& context, DType dtype) {
  for (const auto& [n, per, copies] : {std::array<std::int64_t, 3>{1, 1, 1}, {3, 13, 2}, {2, 1021, 1}})
    for (const bool projected : {true, false})
      for (const bool mean : {true, false}) {
        const std::vector<double> net = normals(n * per, 1, dtype),
                                  tangent = normals(copies * n * per, 2, dtype),
                                  v = normals(copies * n * per, 3, dtype), a = random_values(n, 4),
                                  weight = random_values(n, 5);
        const Guarded pn(context, net, dtype), pt(context, tangent, dtype), pv(context, v, dtype),
            pa(context, a, DType::f64), pw(context, weight, DType::f64), loss(context, n, DType::f64),
            dnet(context, n * per, dtype), dtangent(context, copies * n * per, dtype);
        run(DirectionalLoss{pn.buffer(), pt.buffer(), pv.buffer(), pa.buffer(), pw.buffer(), loss.buffer(),
                            dnet.buffer(), dtangent.buffer(), n, per, copies, projected, mean},
            context);
        const double reduction = mean ? 1.0 / static_cast<double>(per) : 0.5;
        std::vector<double> losses(static_cast<std::size_t>(n)), dn(net.size()), dt(v.size());
        for (std::int64_t k = 0; k < copies; ++k)
          for (std::int64_t i = 0; i < n; ++i) {
            const auto at = [&, image = i, copy = k](const std::vector<double>& of, std::int64_t j) {
              const std::int64_t row = &of == &net ? image : copy * n + image;
              return of[static_cast<std::size_t>(row * per + j)];
            };
            const auto inner = [&](const std::vector<double>& left, const std::vector<double>& right) {
              double sum = 0;
              for (std::int64_t j = 0; j < per; ++j) sum += at(left, j) * at(right, j);
              return sum;
            };
            const double a_i = a[i], scale = weight[i] * reduction, images = static_cast<double>(n);
            const double along = inner(v, net), quadratic = projected ? along * along : inner(net, net);
            losses[i] += scale * (a_i * a_i * quadratic + 2 * a_i * inner(v, tangent));
            for (std::int64_t j = 0; j < per; ++j) {
              dt[(k * n + i) * per + j] = 2 * scale * a_i * at(v, j) / images;
              dn[i * per + j] += 2 * scale * a_i * a_i * (projected ? along * at(v, j) : at(net, j)) / images;
            }
          }
        expect_close(loss.values(), losses, {1e-12});
        expect_close(dnet.values(), dn, roundings(dtype));
        expect_close(dtangent.values(), dt, roundings(dtype));
      }
}

}  // namespace

std::vector<KernelRow> score_kernels() {
  return {{"DerivativeProduct", [](Context& c, DType type) { check_derivative_products(c, type, false); }},
          {"DerivativeProductGrad", [](Context& c, DType type) { check_derivative_products(c, type, true); }},
          {"RandomSigns", check_random_signs},
          {"DirectionalLoss", check_directional_loss}};
}

}  // namespace sgm
