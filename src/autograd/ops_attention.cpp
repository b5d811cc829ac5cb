#include <cmath>
#include <utility>

#include "autograd/image_shapes.h"
#include "kernels/attention.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

/// Attention over t tokens of c channels for each of n images.
struct Call {
  Tensor qkv;
  std::int64_t n, t, c;
  double scale;

  explicit Call(const Tensor& in)
      : qkv(in),
        n(in.shape()[0]),
        t(in.shape()[1] * in.shape()[2]),
        c(in.shape()[3] / 3),
        scale(1.0 / std::sqrt(static_cast<double>(c))) {}
  Context& context() const { return qkv.context(); }
  DType statistics() const { return parameter_type(qkv.dtype()); }
  Tensor output() const {
    return Tensor::empty(context(), {n, qkv.shape()[1], qkv.shape()[2], c}, qkv.dtype());
  }
};

// ---- in one pass ------------------------------------------------------------------------------------------

/// y, and what makes the weights again.
std::pair<Tensor, Tensor> fused(const Call& call) {
  Tensor y = call.output(), lse = Tensor::empty(call.context(), {call.n, call.t}, call.statistics());
  run(Attention{call.qkv.buffer(), y.buffer(), lse.buffer(), call.n, call.t, call.c, call.scale},
      call.context());
  return {y, lse};
}

Var fused_attention(const Var& qkv) {
  const auto [y, lse] = fused(Call(qkv.value()));
  return record("attention", y, {qkv},
                [kept = qkv.saved(), y = y, lse = lse](const Gradient& dy, InputGradients& into) {
                  const Call call(kept.get());
                  Tensor dqkv = Tensor::empty(call.context(), call.qkv.shape(), call.qkv.dtype()), sums;
                  if (into.wants_sums(0))
                    sums = Tensor::empty(call.context(), {3 * call.c}, call.statistics());
                  run(AttentionGrad{call.qkv.buffer(), y.buffer(), lse.buffer(), dy.tensor.buffer(),
                                    dqkv.buffer(), sums.buffer(), call.n, call.t, call.c, call.scale},
                      call.context());
                  into.add(0, {dqkv, dy.factor, sums});
                });
}

// ---- by batched products ----------------------------------------------------------------------------------

/// One operand: a slice of qkv [N, T, 3C], or a matrix [N, T, T] or [N, T, C].
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

/// The weights, [N, T, T]: each token's of all tokens.
Tensor weights_of(const Call& call) {
  const std::int64_t n = call.n, t = call.t;
  Tensor p = Tensor::empty(call.context(), {n, t, t}, call.qkv.dtype());
  const Tensor scores = Tensor::empty(call.context(), {n, t, t}, call.statistics());
  multiply(call.context(), n, t, t, call.c, slice(call.qkv, 0, call.c), false, slice(call.qkv, 1, call.c),
           true, whole(scores, t));
  run(Softmax{scores.const_buffer(), p.buffer(), n * t, t, call.scale}, call.context());
  return p;
}

/// The gradient of attention in qkv, given that of its output.
Tensor products_backward(const Call& call, const Tensor& p, const Tensor& dy) {
  const std::int64_t n = call.n, t = call.t, c = call.c;
  const Tensor& in = call.qkv;
  Context& context = call.context();
  Tensor dscores = Tensor::empty(context, {n, t, t}, in.dtype());
  {
    const Tensor dp = Tensor::empty(context, {n, t, t}, call.statistics());
    multiply(context, n, t, t, c, whole(dy, c), false, slice(in, 2, c), true, whole(dp, t));
    run(SoftmaxGrad{p.buffer(), dp.buffer(), dscores.buffer(), n * t, t, call.scale}, context);
  }
  const Tensor dqkv = Tensor::empty(context, in.shape(), in.dtype());
  multiply(context, n, t, c, t, whole(dscores, t), false, slice(in, 1, c), false, slice(dqkv, 0, c));
  multiply(context, n, t, c, t, whole(dscores, t), true, slice(in, 0, c), false, slice(dqkv, 1, c));
  multiply(context, n, t, c, t, whole(p, t), true, whole(dy, c), false, slice(dqkv, 2, c));
  return dqkv;
}

Var attention_by_products(const Var& qkv) {
  const Call call(qkv.value());
  const Tensor p = weights_of(call), y = call.output();
  multiply(call.context(), call.n, call.t, call.c, call.t, whole(p, call.t), false,
           slice(call.qkv, 2, call.c), false, whole(y, call.c));
  const bool again = call.context().recomputes();
  return record(
      "attention", y, {qkv},
      [kept = qkv.saved(), p = again ? Tensor() : p](const Gradient& dy, InputGradients& into) {
        const Call of(kept.get());
        into.add(0, {products_backward(of, p.defined() ? p : weights_of(of), dy.tensor), dy.factor});
      });
}

}  // namespace

Var attention(const Var& qkv) {
  const Tensor& in = qkv.value();
  const Shape s = in.shape();
  check(s.rank() == 4 && s[3] % 3 == 0, "attention: qkv must be [N, H, W, 3C], got ", s);
  return in.context().fuses_attention(in.dtype(), s[3] / 3) ? fused_attention(qkv)
                                                            : attention_by_products(qkv);
}

}  // namespace sgm
