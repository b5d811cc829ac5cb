// Rows of the ops that tangents are made of.

#include "naive.h"
#include "op_table.h"

namespace sgm {
namespace {

/// The derivative of x sigmoid(x) of order 0 to 2, by Leibniz's rule.
double swish_derivative(double x, int order) {
  const double s = 1.0 / (1.0 + std::exp(-x)), first = s * (1.0 - s), second = first * (1.0 - 2.0 * s);
  return order == 0 ? x * s : order == 1 ? s + x * first : 2.0 * first + x * second;
}

void add_derivative_product(std::vector<OpRow>& rows, Activation activation, int order, const Shape& shape,
                            std::int64_t copies) {
  std::vector<std::int64_t> sizes(shape.begin(), shape.end());
  sizes[0] *= copies;
  const bool linear = activation == Activation::none;
  std::ostringstream name;
  name << "derivative_product " << (linear ? "none " : "swish ") << order << ' ' << shape << ", " << copies;
  rows.push_back(
      {.name = name.str(),
       .op = "derivative_product",
       .inputs = {{.shape = shape, .std = linear ? 1.0 : 2.0}, {Shape(sizes)}},
       .build = [=](std::span<const Var> v) { return derivative_product(v[0], v[1], activation, order); },
       .naive =
           [=](const std::vector<Values>& v) {
             Values y = v[1];
             for (std::size_t i = 0; i < y.data.size(); ++i) {
               const double x = v[0].data[i % v[0].data.size()];
               y.data[i] *= !linear ? swish_derivative(x, order) : order == 0 ? x : order == 1;
             }
             return y;
           },
       .affine = linear,
       // Differences of sigmoids near one lose what an exponential to 2 ulp leaves.
       .f32 = {6e-7, 2e-6}});
}

void add_linear_transposed(std::vector<OpRow>& rows, std::int64_t m, std::int64_t out, std::int64_t in) {
  std::ostringstream name;
  name << "linear_transposed " << m << " x " << out << " -> " << in;
  rows.push_back(
      {.name = name.str(),
       .op = "linear_transposed",
       .inputs = {{{m, out}}, {.shape = {out, in}, .role = Role::parameter}},
       .build = [](std::span<const Var> v) { return linear_transposed(v[0], v[1]); },
       .naive = [](const std::vector<Values>& v) { return naive::matmul(v[0], false, v[1], false, nullptr); },
       .bf16 = false});
}

}  // namespace

void add_tangent_ops(std::vector<OpRow>& rows) {
  for (const Shape& shape : {Shape{1, 1}, {5, 13}, {6, 16}})
    for (const std::int64_t copies : {1, 3}) {
      for (const int order : {0, 1, 2}) add_derivative_product(rows, Activation::swish, order, shape, copies);
      add_derivative_product(rows, Activation::none, 0, shape, copies);
    }
  add_derivative_product(rows, Activation::none, 1, {2, 3, 5, 7}, 2);
  add_derivative_product(rows, Activation::swish, 1, {64, 128}, 2);
  for (const auto& [m, out, in] : {std::array<std::int64_t, 3>{1, 1, 1}, {5, 7, 13}, {256, 128, 2}})
    add_linear_transposed(rows, m, out, in);
}

}  // namespace sgm
