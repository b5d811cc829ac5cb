#include <cmath>
#include <utility>

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
  DType statistics() const { return qkv.dtype() == DType::f64 ? DType::f64 : DType::f32; }
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
  const Call call(qkv.value());
  const auto [y, lse] = fused(call);
  const auto again = [call] { return fused(call).first; };
  Var result = record("attention", y, {qkv},
                      [call, lse = lse, kept = Saved(y, again)](const Gradient& dy, InputGradients& into) {
                        const Tensor made = kept.get();
                        Tensor dqkv = Tensor::empty(call.context(), call.qkv.shape(), call.qkv.dtype()), sums;
                        if (into.wants_sums(0))
                          sums = Tensor::empty(call.context(), {3 * call.c}, call.statistics());
                        run(AttentionGrad{call.qkv.buffer(), made.buffer(), lse.buffer(), dy.tensor.buffer(),
                                          dqkv.buffer(), sums.buffer(), call.n, call.t, call.c, call.scale},
                            call.context());
                        into.add(0, {dqkv, dy.factor, sums});
                      });
  result.set_recipe(again);
  return result;
}

// ---- by batched products, which keep the weights ----------------------------------------------------------

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

Var attention_by_products(const Var& qkv) {
  const Call call(qkv.value());
  const std::int64_t n = call.n, t = call.t, c = call.c;
  const DType type = call.qkv.dtype(), score_type = call.statistics();
  const auto weights = [=] {
    Tensor p = Tensor::empty(call.context(), {n, t, t}, type);
    const Tensor scores = Tensor::empty(call.context(), {n, t, t}, score_type);
    multiply(call.context(), n, t, t, c, slice(call.qkv, 0, c), false, slice(call.qkv, 1, c), true,
             whole(scores, t));
    run(Softmax{scores.const_buffer(), p.buffer(), n * t, t, call.scale}, call.context());
    return p;
  };
  const auto mixed = [=](const Tensor& p) {
    const Tensor y = call.output();
    multiply(call.context(), n, t, c, t, whole(p, t), false, slice(call.qkv, 2, c), false, whole(y, c));
    return y;
  };
  const Tensor p = weights();
  Var result = record(
      "attention", mixed(p), {qkv},
      [=, kept = Saved(p, weights)](const Gradient& grad, InputGradients& into) {
        const Tensor &dy = grad.tensor, &in = call.qkv;
        const Tensor probabilities = kept.get();
        Context& ctx = call.context();
        Tensor dqkv = Tensor::empty(ctx, in.shape(), type), dscores = Tensor::empty(ctx, {n, t, t}, type);
        {
          Tensor dp = Tensor::empty(ctx, {n, t, t}, score_type);
          multiply(ctx, n, t, t, c, whole(dy, c), false, slice(in, 2, c), true, whole(dp, t));
          run(SoftmaxGrad{probabilities.buffer(), dp.const_buffer(), dscores.buffer(), n * t, t, call.scale},
              ctx);
        }
        multiply(ctx, n, t, c, t, whole(dscores, t), false, slice(in, 1, c), false, slice(dqkv, 0, c));
        multiply(ctx, n, t, c, t, whole(dscores, t), true, slice(in, 0, c), false, slice(dqkv, 1, c));
        multiply(ctx, n, t, c, t, whole(probabilities, t), true, whole(dy, c), false, slice(dqkv, 2, c));
        into.add(0, {dqkv, grad.factor});
      });
  result.set_recipe([=] { return mixed(weights()); });
  return result;
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
