#include "sampling/inner_products.h"

#include "sgm/tensor/math.h"

namespace sgm {

std::vector<double> inner_products(const Tensor& a, const Tensor& b) {
  check(a.dtype() == DType::f64, "inner_products: the first batch must be f64, got ", a.dtype());
  // <a, b> = (|a + b|^2 - |a - b|^2) / 4. In double, what cancels costs nothing that f32 operands had.
  const auto norms_of = [&](double sign) {
    AffineTerms sum{.x = a, .score = b};
    sum.b = sign;
    return squared_norms(affine_step(sum).y).to_host_f64();
  };
  std::vector<double> products = norms_of(1.0);
  const std::vector<double> differences = norms_of(-1.0);
  for (std::size_t i = 0; i < products.size(); ++i) products[i] = 0.25 * (products[i] - differences[i]);
  return products;
}

}  // namespace sgm
