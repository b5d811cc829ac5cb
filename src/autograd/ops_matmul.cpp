#include <cmath>

#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

/// c = op(a) op(b) + bias for plain 2-D operands.
void multiply(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, const Tensor& bias, Tensor& c) {
  const std::int64_t m = c.shape()[0], n = c.shape()[1], k = a.shape()[trans_a ? 0 : 1];
  run(Matmul{a.buffer(), b.buffer(), bias.buffer(), c.buffer(), 1, m, n, k, a.shape()[1], b.shape()[1], n,
             a.numel(), b.numel(), c.numel(), trans_a, trans_b},
      c.context());
}

/// One operand of attention's batched products: a slice of qkv [N, T, 3C], or a matrix [N, T, T] or [N, T,
/// C].
struct Operand {
  ConstBuffer buffer;
  std::int64_t ld, stride;
};

/// Elements of one matrix of a batch.
std::int64_t matrix_size(const Shape& shape) {
  std::int64_t size = 1;
  for (int i = 1; i < shape.rank(); ++i) size *= shape[i];
  return size;
}

Operand slice(const Tensor& qkv, int which, std::int64_t c) {
  ConstBuffer buffer = qkv.buffer();
  buffer.data =
      static_cast<const char*>(buffer.data) + static_cast<std::size_t>(which * c) * size_of(qkv.dtype());
  return {buffer, 3 * c, matrix_size(qkv.shape())};
}

Operand whole(const Tensor& x, std::int64_t cols) { return {x.buffer(), cols, matrix_size(x.shape())}; }

void multiply(Context& context, std::int64_t batch, std::int64_t m, std::int64_t n, std::int64_t k, Operand a,
              bool trans_a, Operand b, bool trans_b, Operand c) {
  const Buffer out{const_cast<void*>(c.buffer.data), c.buffer.dtype};
  run(Matmul{a.buffer,
             b.buffer,
             {},
             out,
             batch,
             m,
             n,
             k,
             a.ld,
             b.ld,
             c.ld,
             a.stride,
             b.stride,
             c.stride,
             trans_a,
             trans_b},
      context);
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
    if (into.wanted(1)) {
      Tensor dw = Tensor::empty(w.context(), w.shape(), w.dtype());
      multiply(grad, true, in, false, {}, dw);
      into.add(1, {dw, dy.factor});
    }
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

Var attention(const Var& qkv) {
  const Tensor& in = qkv.value();
  const Shape s = in.shape();
  check(s.rank() == 4 && s[3] % 3 == 0, "attention: qkv must be [N, H, W, 3C], got ", s);
  const std::int64_t n = s[0], t = s[1] * s[2], c = s[3] / 3;
  const double scale = 1.0 / std::sqrt(static_cast<double>(c));
  const DType type = in.dtype(), score_type = type == DType::f64 ? DType::f64 : DType::f32;
  const auto weights = [=] {
    Tensor p = Tensor::empty(in.context(), {n, t, t}, type);
    const Tensor scores = Tensor::empty(in.context(), {n, t, t}, score_type);
    multiply(in.context(), n, t, t, c, slice(in, 0, c), false, slice(in, 1, c), true, whole(scores, t));
    run(Softmax{scores.const_buffer(), p.buffer(), n * t, t, scale}, in.context());
    return p;
  };
  const auto mixed = [=](const Tensor& p) {
    const Tensor y = Tensor::empty(in.context(), {n, s[1], s[2], c}, type);
    multiply(in.context(), n, t, c, t, whole(p, t), false, slice(in, 2, c), false, whole(y, c));
    return y;
  };
  const Tensor p = weights();
  Var result = record(
      "attention", mixed(p), {qkv},
      [=, kept = Saved(p, weights)](const Gradient& grad, InputGradients& into) {
        const Tensor& dy = grad.tensor;
        const Tensor probabilities = kept.get();
        Context& ctx = in.context();
        Tensor dqkv = Tensor::empty(ctx, in.shape(), type), dscores = Tensor::empty(ctx, {n, t, t}, type);
        {
          Tensor dp = Tensor::empty(ctx, {n, t, t}, score_type);
          multiply(ctx, n, t, t, c, whole(dy, c), false, slice(in, 2, c), true, whole(dp, t));
          run(SoftmaxGrad{probabilities.buffer(), dp.const_buffer(), dscores.buffer(), n * t, t, scale}, ctx);
        }
        multiply(ctx, n, t, c, t, whole(dscores, t), false, slice(in, 1, c), false, slice(dqkv, 0, c));
        multiply(ctx, n, t, c, t, whole(dscores, t), true, slice(in, 0, c), false, slice(dqkv, 1, c));
        multiply(ctx, n, t, c, t, whole(probabilities, t), true, whole(dy, c), false, slice(dqkv, 2, c));
        into.add(0, {dqkv, grad.factor});
      });
  result.set_recipe([=] { return mixed(weights()); });
  return result;
}

}  // namespace sgm
