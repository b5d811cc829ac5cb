#include "kernels/score_matching.h"
#include "sgm/autograd/ops.h"

namespace sgm {

Var derivative_product(const Var& x, const Var& v, Activation activation, int order) {
  const Tensor &in = x.value(), &factor = v.value();
  check(activation == Activation::none || activation == Activation::swish,
        "derivative_product: only swish has derivatives of every order");
  check(order >= 0 && order <= 2, "derivative_product: order must be 0, 1 or 2, got ", order);
  const Shape &sx = in.shape(), &sv = factor.shape();
  const std::int64_t n = in.numel(), copies = n > 0 ? factor.numel() / n : 1;
  check(sv.rank() == sx.rank() && factor.numel() == copies * n && sv[0] == copies * sx[0],
        "derivative_product: v ", sv, " must hold one or more batches like x ", sx);
  check(in.dtype() == factor.dtype(), "derivative_product: element types ", in.dtype(), " and ",
        factor.dtype(), " differ");
  Tensor y = Tensor::empty(in.context(), sv, in.dtype());
  run(DerivativeProduct{in.buffer(), factor.buffer(), y.buffer(), n, copies, {activation, order}},
      in.context());
  return record("derivative_product", y, {x, v}, [=](const Gradient& dy, InputGradients& into) {
    if (into.wanted(0)) {
      Tensor dx = Tensor::empty(in.context(), in.shape(), in.dtype());
      run(DerivativeProductGrad{in.buffer(),
                                factor.buffer(),
                                dy.tensor.buffer(),
                                dx.buffer(),
                                n,
                                copies,
                                {activation, order + 1}},
          in.context());
      into.add(0, {dx, dy.factor});
    }
    if (into.wanted(1)) {
      Tensor dv = Tensor::empty(in.context(), factor.shape(), in.dtype());
      run(DerivativeProduct{in.buffer(), dy.tensor.buffer(), dv.buffer(), n, copies, {activation, order}},
          in.context());
      into.add(1, {dv, dy.factor});
    }
  });
}

Var multiply(const Var& x, const Var& v) { return derivative_product(x, v, Activation::none, 0); }

}  // namespace sgm
