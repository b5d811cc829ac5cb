#include "sgm/sampling/latent.h"

#include <algorithm>
#include <cmath>

#include "sampling/inner_products.h"

namespace sgm {
namespace {

FlowResult follow(const SDE& sde, const ScoreFn& score, const Tensor& x, double from, double to,
                  const ODEOptions& options) {
  check(x.defined() && x.dtype() == DType::f32, "flow: expected a batch of f32, got ", x.dtype(), ' ',
        x.shape());
  ODESolution solution = integrate(probability_flow(sde, score), x.to(DType::f64), from, to, options);
  return {solution.y.to(DType::f32), std::move(solution.nfe), solution.complete};
}

}  // namespace

FlowResult encode(const SDE& sde, const ScoreFn& score, const Tensor& x, const FlowOptions& options) {
  return follow(sde, score, x, options.eps, 1.0, options.ode);
}

FlowResult decode(const SDE& sde, const ScoreFn& score, const Tensor& z, const FlowOptions& options) {
  return follow(sde, score, z, 1.0, options.eps, options.ode);
}

Tensor slerp(const Tensor& a, const Tensor& b, double w) {
  check(a.shape() == b.shape(), "slerp: shapes ", a.shape(), " and ", b.shape(), " differ");
  const std::vector<double> product = inner_products(a.to(DType::f64), b);
  const std::vector<double> a2 = squared_norms(a).to_host_f64(), b2 = squared_norms(b).to_host_f64();
  std::vector<double> of_a, of_b;
  for (std::size_t i = 0; i < product.size(); ++i) {
    const double cosine = product[i] / std::sqrt(a2[i] * b2[i]);
    const double angle = std::acos(std::clamp(cosine, -1.0, 1.0));
    // Neither zero vectors nor opposite ones say which circle is meant.
    const bool straight = !(angle >= kLeastAngle && std::sin(angle) > kLeastAngle);
    of_a.push_back(straight ? 1.0 - w : std::sin((1.0 - w) * angle) / std::sin(angle));
    of_b.push_back(straight ? w : std::sin(w * angle) / std::sin(angle));
  }
  const Shape n{a.shape()[0]};
  AffineTerms terms{.x = a, .score = b};
  terms.a = Tensor::from_host(a.context(), std::span<const double>(of_a), n);
  terms.b = Tensor::from_host(a.context(), std::span<const double>(of_b), n);
  return affine_step(terms).y;
}

}  // namespace sgm
