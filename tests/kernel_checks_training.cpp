#include "kernel_checks.h"
#include "kernels/training.h"

namespace sgm {
namespace {

void check_residual_loss(Context& context, DType dtype) {
  for (const auto& [n, per] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 13}, {2, 1021}})
    for (const bool mean : {true, false}) {
      const std::vector<double> net = normals(n * per, 1, dtype), z = normals(n * per, 2, dtype),
                                a = random_values(n, 3), b = random_values(n, 4),
                                weight = random_values(n, 5);
      const Guarded pn(context, net, dtype), pz(context, z, dtype), pa(context, a, DType::f64),
          pb(context, b, DType::f64), pw(context, weight, DType::f64), loss(context, n, DType::f64),
          dnet(context, n * per, dtype);
      run(ResidualLoss{pn.buffer(), pz.buffer(), pa.buffer(), pb.buffer(), pw.buffer(), loss.buffer(),
                       dnet.buffer(), n, per, mean},
          context);
      const double reduction = mean ? 1.0 / static_cast<double>(per) : 0.5;
      std::vector<double> losses(static_cast<std::size_t>(n));
      const std::vector<double> gradient = map(net, [&](double v, std::size_t i) {
        const std::size_t image = i / static_cast<std::size_t>(per);
        const double residual = a[image] * v + b[image] * z[i];
        losses[image] += weight[image] * reduction * residual * residual;
        return 2.0 * weight[image] * reduction * residual * a[image] / static_cast<double>(n);
      });
      expect_close(loss.values(), losses, {1e-13});
      expect_close(dnet.values(), gradient, roundings(dtype));
    }
}

void check_sum_of_squares(Context& context, DType dtype) {
  for (const std::int64_t n : {1, 13, 100'003}) {
    std::vector<double> x = normals(n, 1, dtype);
    x[0] = 1e4;  // must not swallow the others
    const Guarded in(context, x, dtype), y(context, 1, DType::f64);
    run(SumOfSquares{in.buffer(), y.buffer(), n}, context);
    std::vector<double> stored = rounded(x, dtype);
    expect_close(y.values(), std::vector<double>{dot(stored, stored)}, {1e-12});
  }
  // Squares beyond the range of f32.
  const Guarded huge(context, std::vector<double>{0x1p80, 0x1p80}, dtype), y(context, 1, DType::f64);
  run(SumOfSquares{huge.buffer(), y.buffer(), 2}, context);
  EXPECT_EQ(y.values()[0], 0x1p161);
}

void check_adam_step(Context& context, DType dtype) {
  if (dtype == DType::bf16) return;  // master weights are never bf16
  for (const std::int64_t n : {1, 13, 20'001}) {
    const std::vector<double> p = normals(n, 1, dtype), g = normals(n, 2, dtype), m = normals(n, 3, dtype),
                              ema = normals(n, 5, dtype);
    const std::vector<double> v = map(normals(n, 4, dtype), [](double x, auto) { return std::abs(x); });
    const Guarded pp(context, p, dtype, true), pm(context, m, dtype, true), pv(context, v, dtype, true),
        pe(context, ema, dtype, true), pg(context, g, dtype);
    run(AdamStep{pp.buffer(), pm.buffer(), pv.buffer(), pe.buffer(), pg.buffer(), n, 0.5, 1e-2, 0.9, 0.99,
                 1e-8, 0.1, 0.19, 0.0199, 0.999},
        context);
    std::vector<double> new_p, new_m, new_v, new_ema;
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double grad = 0.5 * g[i] + 0.1 * p[i];
      new_m.push_back(0.9 * m[i] + 0.1 * grad);
      new_v.push_back(0.99 * v[i] + 0.01 * grad * grad);
      new_p.push_back(p[i] - 1e-2 * (new_m[i] / 0.19) / (std::sqrt(new_v[i] / 0.0199) + 1e-8));
      new_ema.push_back(ema[i] - 0.001 * (ema[i] - new_p[i]));
    }
    expect_close(pm.values(), new_m, roundings(dtype), "m");
    expect_close(pv.values(), new_v, roundings(dtype), "v");
    expect_close(pp.values(), new_p, roundings(dtype), "p");
    expect_close(pe.values(), new_ema, roundings(dtype), "ema");
  }
}

}  // namespace

std::vector<KernelRow> training_kernels() {
  return {{"ResidualLoss", check_residual_loss},
          {"SumOfSquares", check_sum_of_squares},
          {"AdamStep", check_adam_step}};
}

}  // namespace sgm
