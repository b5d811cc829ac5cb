#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

/// c = op(a) op(b) + bias, where rows of a lie `lda` numbers apart.
void multiply(const ConstBuffer& a, std::int64_t lda, bool trans_a, const Tensor& b, bool trans_b,
              const Tensor& bias, Tensor& c) {
  const std::int64_t m = c.shape()[0], n = c.shape()[1], k = b.shape()[trans_b ? 1 : 0];
  // The sum over no rows: oneDNN 3 would leave c as it was.
  if (k == 0 && !bias.defined()) return c.fill(0.0);
  run(Matmul{a, b.buffer(), bias.buffer(), c.buffer(), 1, m, n, k, lda, b.shape()[1], n,
             lda * (trans_a ? k : m), b.numel(), c.numel(), trans_a, trans_b},
      c.context());
}

/// The same for a whole matrix a.
void multiply(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, const Tensor& bias, Tensor& c) {
  multiply(a.buffer(), a.shape()[1], trans_a, b, trans_b, bias, c);
}

/// The gradient dy^T x of a [K, C] weight in linear().
LateGradient weight_gradient(const Tensor& x, const Gradient& dy) {
  const auto make = [x, dy](std::int64_t first, std::int64_t count) {
    Tensor dw = Tensor::empty(x.context(), {count, x.shape()[1]}, x.dtype());
    ConstBuffer columns = dy.tensor.buffer();
    columns.data = columns.as<char>() + first * static_cast<std::int64_t>(size_of(columns.dtype));
    multiply(columns, dy.tensor.shape()[1], true, x, false, {}, dw);
    return Gradient{dw, dy.factor};
  };
  return {.holds = x.bytes() + dy.tensor.bytes(), .by_rows = true, .make = make};
}

}  // namespace

Var linear(const Var& x, const Var& weight, const Var& bias) {
  const Tensor &in = x.value(), &w = weight.value();
  check(in.shape().rank() == 2 && w.shape().rank() == 2 && in.shape()[1] == w.shape()[1] &&
            (!bias.defined() || bias.shape() == Shape({w.shape()[0]})),
        "linear: x ", in.shape(), ", weight ", w.shape(), ", bias ", bias.shape(), " do not fit");
  check(in.dtype() != DType::bf16 && w.dtype() == in.dtype() &&
            (!bias.defined() || bias.value().dtype() == in.dtype()),
        "linear: x, weight and bias must all be f32 or all f64, got ", in.dtype(), " and ", w.dtype(),
        bias.defined() ? " and " : "", bias.defined() ? name_of(bias.value().dtype()) : "");
  Tensor y = Tensor::empty(in.context(), {in.shape()[0], w.shape()[0]}, in.dtype());
  multiply(in, false, w, true, bias.value(), y);
  return record("linear", y, {x, weight, bias}, [in, w](const Gradient& dy, InputGradients& into) {
    const Tensor& grad = dy.tensor;
    if (into.wanted(0)) {
      Tensor dx = Tensor::empty(in.context(), in.shape(), in.dtype());
      multiply(grad, false, w, false, {}, dx);
      into.add(0, {dx, dy.factor});
    }
    into.add_late(1, in.dtype(), weight_gradient(in, dy));
    if (into.wanted(2)) {
      Tensor db = Tensor::empty(w.context(), {grad.shape()[1]}, w.dtype());
      run(SumRows{grad.buffer(), db.buffer(), grad.shape()[0], grad.shape()[1], dy.factor}, grad.context());
      into.add(2, {db});
    }
  });
}

Var linear_transposed(const Var& x, const Var& weight) {
  const Tensor &in = x.value(), &w = weight.value();
  check(in.shape().rank() == 2 && w.shape().rank() == 2 && in.shape()[1] == w.shape()[0],
        "linear_transposed: x ", in.shape(), " and weight ", w.shape(), " do not fit");
  check(in.dtype() != DType::bf16 && w.dtype() == in.dtype(),
        "linear_transposed: x and weight must both be f32 or both f64, got ", in.dtype(), " and ", w.dtype());
  Tensor y = Tensor::empty(in.context(), {in.shape()[0], w.shape()[1]}, in.dtype());
  multiply(in, false, w, false, {}, y);
  return record("linear_transposed", y, {x, weight}, [in, w](const Gradient& dy, InputGradients& into) {
    if (into.wanted(0)) {
      Tensor dx = Tensor::empty(in.context(), in.shape(), in.dtype());
      multiply(dy.tensor, false, w, true, {}, dx);
      into.add(0, {dx, dy.factor});
    }
    if (into.wanted(1)) {
      Tensor dw = Tensor::empty(w.context(), w.shape(), w.dtype());
      multiply(in, true, dy.tensor, false, {}, dw);
      into.add(1, {dw, dy.factor});
    }
  });
}

}  // namespace sgm
