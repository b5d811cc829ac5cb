#include "kernels/classifier.h"
#include "kernels/elementwise.h"
#include "sgm/autograd/ops.h"

namespace sgm {

Var standardise(const Var& x, const Tensor& scale, const Tensor& shift) {
  const Tensor& in = x.value();
  const Shape s = in.shape();
  check(s.rank() == 4, "standardise: x must be [N, H, W, C], got ", s);
  check(scale.shape() == Shape({s[3]}) && shift.shape() == scale.shape() && scale.dtype() == DType::f64 &&
            shift.dtype() == DType::f64,
        "standardise: scale and shift must be [", s[3], "] f64, got ", scale.shape(), ' ', scale.dtype(),
        " and ", shift.shape(), ' ', shift.dtype());
  Context& context = in.context();
  const std::int64_t n = s[0], per = s[1] * s[2] * s[3];
  Tensor y = Tensor::empty(context, s, in.dtype());
  Tensor mean = Tensor::empty(context, {n}, DType::f64), rstd = Tensor::empty(context, {n}, DType::f64);
  run(Standardise{in.buffer(), scale.buffer(), shift.buffer(), y.buffer(), mean.buffer(), rstd.buffer(), n,
                  per, s[3]},
      context);
  return record("standardise", y, {x}, [=](const Gradient& dy, InputGradients& into) {
    Tensor dx = Tensor::empty(in.context(), in.shape(), in.dtype());
    run(StandardiseGrad{in.buffer(), scale.buffer(), shift.buffer(), mean.buffer(), rstd.buffer(),
                        dy.tensor.buffer(), dx.buffer(), n, per, s[3]},
        in.context());
    into.add(0, {dx, dy.factor});
  });
}

Var mean_pixels(const Var& x) {
  const Shape s = x.shape();
  check(s.rank() == 4, "mean_pixels: x must be [N, H, W, C], got ", s);
  const std::int64_t n = s[0], pixels = s[1] * s[2], c = s[3];
  const DType type = x.value().dtype();
  Tensor y = Tensor::empty(x.value().context(), {n, c}, type == DType::f64 ? DType::f64 : DType::f32);
  run(MeanPixels{x.value().const_buffer(), y.buffer(), n, pixels, c}, y.context());
  return record("mean_pixels", y, {x}, [=](const Gradient& dy, InputGradients& into) {
    Tensor dx = Tensor::empty(dy.tensor.context(), s, type);
    run(MeanPixelsGrad{dy.tensor.buffer(), dx.buffer(), n, pixels, c, dy.factor}, dx.context());
    into.add(0, {dx});
  });
}

CrossEntropyResult cross_entropy(const Var& logits, const Tensor& labels) {
  const Shape s = logits.shape();
  check(s.rank() == 2, "cross_entropy: logits must be [N, K], got ", s);
  check(labels.shape() == Shape({s[0]}) && labels.dtype() == DType::f64, "cross_entropy: labels must be [",
        s[0], "] f64, got ", labels.shape(), ' ', labels.dtype());
  const Tensor& x = logits.value();
  Context& context = x.context();
  Tensor loss = Tensor::empty(context, {s[0]}, DType::f64),
         correct = Tensor::empty(context, {s[0]}, DType::f64), slope = Tensor::empty(context, s, x.dtype());
  run(CrossEntropy{x.buffer(), labels.buffer(), loss.buffer(), slope.buffer(), correct.buffer(), s[0], s[1]},
      context);
  const Var on_tape =
      record("cross_entropy", loss, {logits}, [slope, s](const Gradient& dy, InputGradients& into) {
        Tensor dx = Tensor::empty(slope.context(), s, slope.dtype());
        run(ScaleRows{slope.buffer(), dy.tensor.buffer(), dx.buffer(), s[0], s[1], dy.factor, 0.0},
            slope.context());
        into.add(0, {dx});
      });
  return {on_tape, correct};
}

}  // namespace sgm
