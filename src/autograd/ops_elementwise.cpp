#include "kernels/elementwise.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

Tensor scaled_rows(const Tensor& x, const Tensor& scale, double factor, double shift) {
  Tensor y = Tensor::empty(x.context(), x.shape(), x.dtype());
  const std::int64_t rows = x.shape().rank() ? x.shape()[0] : 1;
  if (y.numel() == 0) return y;
  run(ScaleRows{x.buffer(), scale.buffer(), y.buffer(), rows, x.numel() / rows, factor, shift}, x.context());
  return y;
}

}  // namespace

Var add(const Var& a, const Var& b, double alpha, double beta) {
  check(a.shape() == b.shape(), "add: shapes ", a.shape(), " and ", b.shape(), " differ");
  check(a.value().dtype() == b.value().dtype(), "add: element types ", a.value().dtype(), " and ",
        b.value().dtype(), " differ");
  Tensor y = Tensor::empty(a.value().context(), a.shape(), a.value().dtype());
  run(AddScaled{a.value().const_buffer(), b.value().const_buffer(), y.buffer(), y.numel(), alpha, beta},
      y.context());
  return record(
      "add", y, {a, b},
      [alpha, beta](const Gradient& dy, InputGradients& into) {
        into.add(0, {dy.tensor, alpha * dy.factor, dy.sums});
        into.add(1, {dy.tensor, beta * dy.factor, dy.sums});
      },
      a.uses_sums() || b.uses_sums());
}

Var affine(const Var& x, double factor, double shift) {
  const Tensor y = scaled_rows(x.value(), {}, factor, shift);
  return record(
      "affine", y, {x},
      [factor](const Gradient& dy, InputGradients& into) {
        into.add(0, {dy.tensor, factor * dy.factor, dy.sums});
      },
      x.uses_sums());
}

Var scale_images(const Var& x, const Tensor& scale) {
  check(scale.dtype() == DType::f64 && scale.shape() == Shape({x.shape()[0]}),
        "scale_images: scale must be [", x.shape()[0], "] f64, got ", scale.shape(), " ", scale.dtype());
  return record("scale_images", scaled_rows(x.value(), scale, 1.0, 0.0), {x},
                [scale](const Gradient& dy, InputGradients& into) {
                  into.add(0, {scaled_rows(dy.tensor, scale, dy.factor, 0.0)});
                });
}

Var add_bias(const Var& x, const Var& bias) {
  const std::int64_t cols = x.shape()[-1], rows = x.value().numel() / cols;
  check(bias.shape() == Shape({cols}), "add_bias: bias ", bias.shape(), " for ", cols, " channels");
  const DType type = bias.value().dtype(), x_type = x.value().dtype();
  check(type == (x_type == DType::f64 ? DType::f64 : DType::f32), "add_bias: bias is ", type, " beside ",
        x_type, "; it is f64 beside f64, else f32");
  Tensor y = Tensor::empty(x.value().context(), x.shape(), x.value().dtype());
  run(AddBias{x.value().const_buffer(), bias.value().const_buffer(), y.buffer(), rows, cols}, y.context());
  return record(
      "add_bias", y, {x, bias},
      [rows, cols, type](const Gradient& dy, InputGradients& into) {
        into.add(0, dy);
        if (!into.wanted(1)) return;
        if (dy.sums.defined()) return into.add(1, {dy.sums, dy.factor});
        Tensor sums = Tensor::empty(dy.tensor.context(), {cols}, type);
        run(SumRows{dy.tensor.buffer(), sums.buffer(), rows, cols, dy.factor}, sums.context());
        into.add(1, {sums});
      },
      true);
}

Var activate(const Var& x, Activation activation) {
  const auto activated = [activation](const Tensor& in) {
    Tensor y = Tensor::empty(in.context(), in.shape(), in.dtype());
    run(Activate{in.buffer(), y.buffer(), y.numel(), activation}, y.context());
    return y;
  };
  Var y = record(
      "activate", activated(x.value()), {x},
      [kept = x.saved(), activation](const Gradient& dy, InputGradients& into) {
        const Tensor in = kept.get();
        Tensor dx = Tensor::empty(in.context(), in.shape(), in.dtype());
        run(ActivateGrad{in.buffer(), dy.tensor.buffer(), dx.buffer(), dx.numel(), activation}, in.context());
        into.add(0, {dx, dy.factor});
      });
  y.set_recipe([kept = x.saved(), activated] { return activated(kept.get()); });
  return y;
}

Var cast(const Var& x, DType dtype) {
  const DType from = x.value().dtype();
  if (from == dtype) return x;
  return record(
      "cast", x.value().to(dtype), {x},
      [from](const Gradient& dy, InputGradients& into) {
        into.add(0, {dy.tensor.to(from), dy.factor, dy.sums});
      },
      x.uses_sums());
}

Var reshape(const Var& x, Shape shape) {
  const Shape before = x.shape();
  return record("reshape", x.value().reshape(shape), {x}, [before](const Gradient& dy, InputGradients& into) {
    into.add(0, {dy.tensor.reshape(before), dy.factor});
  });
}

Var concat_channels(const Var& a, const Var& b) {
  const Shape sa = a.shape(), sb = b.shape();
  check(sa.rank() == 4 && sb.rank() == 4 && sa[0] == sb[0] && sa[1] == sb[1] && sa[2] == sb[2] &&
            a.value().dtype() == b.value().dtype(),
        "concat_channels: ", sa, " and ", sb, " differ in more than channels");
  const std::int64_t rows = sa[0] * sa[1] * sa[2], ca = sa[3], cb = sb[3];
  Tensor y = Tensor::empty(a.value().context(), {sa[0], sa[1], sa[2], ca + cb}, a.value().dtype());
  run(ConcatChannels{a.value().const_buffer(), b.value().const_buffer(), y.buffer(), rows, ca, cb},
      y.context());
  return record(
      "concat_channels", y, {a, b}, [sa, sb, rows, ca, cb](const Gradient& dy, InputGradients& into) {
        Tensor da, db;
        if (into.wanted(0)) da = Tensor::empty(dy.tensor.context(), sa, dy.tensor.dtype());
        if (into.wanted(1)) db = Tensor::empty(dy.tensor.context(), sb, dy.tensor.dtype());
        run(SplitChannels{dy.tensor.buffer(), da.buffer(), db.buffer(), rows, ca, cb}, dy.tensor.context());
        into.add(0, {da, dy.factor});
        into.add(1, {db, dy.factor});
      });
}

}  // namespace sgm
