// Ops of the RefineNets: pooling, resizing, InstanceNorm++.

#include "autograd/image_shapes.h"
#include "kernels/instance_norm.h"
#include "kernels/pooling.h"
#include "sgm/autograd/ops.h"

namespace sgm {

Var max_pool(const Var& x, int radius) {
  const Tensor& in = x.value();
  const Shape s = in.shape();
  check(s.rank() == 4 && radius >= 0, "max_pool: x must be [N, H, W, C] and the radius not negative, got ", s,
        " and ", radius);
  Tensor y = Tensor::empty(in.context(), s, in.dtype());
  run(MaxPool{in.buffer(), y.buffer(), s[0], s[1], s[2], s[3], radius}, in.context());
  return record("max_pool", y, {x}, [in, kept = y, s, radius](const Gradient& dy, InputGradients& into) {
    Tensor dx = Tensor::empty(in.context(), s, in.dtype());
    run(MaxPoolGrad{in.buffer(), kept.buffer(), dy.tensor.buffer(), dx.buffer(), s[0], s[1], s[2], s[3],
                    radius},
        in.context());
    into.add(0, {dx, dy.factor});
  });
}

Var resize_bilinear(const Var& x, std::int64_t height, std::int64_t width) {
  const Tensor& in = x.value();
  const Shape s = in.shape();
  check(s.rank() == 4 && s[1] > 0 && s[2] > 0 && height > 0 && width > 0,
        "resize_bilinear: x must be [N, H, W, C] and the new size positive, got ", s, " and ", height, " x ",
        width);
  Tensor y = Tensor::empty(in.context(), {s[0], height, width, s[3]}, in.dtype());
  run(Bilinear{in.buffer(), y.buffer(), s[0], s[1], s[2], height, width, s[3], false, 1.0}, in.context());
  return record("resize_bilinear", y, {x}, [s, height, width](const Gradient& dy, InputGradients& into) {
    Tensor dx = Tensor::empty(dy.tensor.context(), s, dy.tensor.dtype());
    run(Bilinear{dy.tensor.buffer(), dx.buffer(), s[0], s[1], s[2], height, width, s[3], true, dy.factor},
        dx.context());
    into.add(0, {dx});
  });
}

Var instance_norm_plus(const Var& x, const Var& table, const Tensor& label, double eps) {
  const Tensor &in = x.value(), &rows = table.value();
  const Shape s = in.shape(), t = rows.shape();
  check(s.rank() == 4 && s[3] > 1,
        "instance_norm_plus: x must be [N, H, W, C] with two channels or more, got ", s);
  check((t.rank() == 1 || t.rank() == 2) && t[0] > 0 && t[-1] == 3 * s[3], "instance_norm_plus: a table ", t,
        " for ", s[3], " channels; want [", 3 * s[3], "] or [rows, ", 3 * s[3], "]");
  const DType type = parameter_type(in.dtype());
  check(rows.dtype() == type, "instance_norm_plus: the table must be ", type, " beside ", in.dtype(),
        " activations, got ", rows.dtype());
  check(!label.defined() || (label.shape() == Shape({s[0]}) && label.dtype() == DType::f64),
        "instance_norm_plus: labels must be [", s[0], "] f64, got ", label.shape(), " ", label.dtype());
  Context& context = in.context();
  Tensor mean = Tensor::empty(context, {s[0], s[3]}, type), rstd = Tensor::empty(context, mean.shape(), type),
         level = Tensor::empty(context, mean.shape(), type),
         level_rstd = Tensor::empty(context, {s[0]}, type);
  const std::int64_t hw = s[1] * s[2], count = t.rank() == 1 ? 1 : t[0];
  const Saved kept = x.saved();
  auto normalised = [=](const Tensor& from) mutable {
    Tensor y = Tensor::empty(from.context(), s, from.dtype());
    run(InstanceNorm{from.buffer(), rows.const_buffer(), label.const_buffer(), y.buffer(), mean.buffer(),
                     rstd.buffer(), level.buffer(), level_rstd.buffer(), s[0], hw, s[3], count, eps},
        from.context());
    return y;
  };
  Var result =
      record("instance_norm_plus", normalised(in), {x, table}, [=](const Gradient& dy, InputGradients& into) {
        const Tensor from = kept.get();
        Tensor dx = Tensor::empty(from.context(), s, from.dtype()), dtable;
        if (into.wanted(1)) dtable = Tensor::empty(from.context(), t, type);
        run(InstanceNormGrad{from.buffer(), rows.const_buffer(), label.const_buffer(), mean.const_buffer(),
                             rstd.const_buffer(), level.const_buffer(), level_rstd.const_buffer(),
                             dy.tensor.buffer(), dx.buffer(), dtable.buffer(), s[0], hw, s[3], count,
                             dy.factor},
            from.context());
        into.add(0, {dx});
        into.add(1, {dtable});
      });
  result.set_recipe([=]() mutable { return normalised(kept.get()); });
  return result;
}

}  // namespace sgm
