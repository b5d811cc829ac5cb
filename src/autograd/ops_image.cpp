#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/group_norm.h"
#include "kernels/upfirdn.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

ConvShape conv_shape(const Shape& x, const Shape& w, const Conv2dParams& p) {
  check(x.rank() == 4 && w.rank() == 4 && x[3] == w[3], "conv2d: x ", x, " and weight ", w,
        " do not fit; want [N, H, W, C] and [K, R, S, C]");
  const auto out = [&](std::int64_t in, std::int64_t filter) {
    const std::int64_t last = in + p.pad_begin + p.pad_end - filter;
    return last < 0 ? 0 : last / p.stride + 1;
  };
  const ConvShape shape{
      x[0],     x[1],        x[2],      x[3], w[0], w[1], w[2], out(x[1], w[1]), out(x[2], w[2]),
      p.stride, p.pad_begin, p.pad_end, 0};
  check(shape.oh > 0 && shape.ow > 0, "conv2d: x ", x, " is smaller than the filter ", w);
  return shape;
}

/// Parameters of norms stay in f32 beside bf16 activations, and in f64 beside f64 ones.
DType parameter_type(DType activations) { return activations == DType::f64 ? DType::f64 : DType::f32; }

Tensor filtered(const Tensor& x, const ResampleParams& p) {
  const auto taps = static_cast<int>(p.taps.size());
  check(taps >= 1 && taps <= UpFirDn::kMaxTaps, "resample: 1 to ", UpFirDn::kMaxTaps, " taps, got ", taps);
  const Shape s = x.shape();
  check(s.rank() == 4, "resample: x must be [N, H, W, C], got ", s);
  const auto out = [&](std::int64_t in) {
    const std::int64_t last = in * p.up + p.pad0 + p.pad1 - taps;
    return last < 0 ? 0 : last / p.down + 1;
  };
  check(out(s[1]) > 0 && out(s[2]) > 0, "resample: x ", s, " is smaller than the filter");
  Tensor y = Tensor::empty(x.context(), {s[0], out(s[1]), out(s[2]), s[3]}, x.dtype());
  UpFirDn op{x.buffer(), y.buffer(), s[0],   s[1],   s[2], s[3], out(s[1]),
             out(s[2]),  p.up,       p.down, p.pad0, taps, {},   1.0};
  std::copy(p.taps.begin(), p.taps.end(), op.taps);
  run(op, x.context());
  return y;
}

/// The adjoint of filtered() from size `out` back to size `in` along one axis.
ResampleParams adjoint(const ResampleParams& p, std::int64_t in, std::int64_t out) {
  ResampleParams q{p.down, p.up, 0, 0, p.taps};
  std::reverse(q.taps.begin(), q.taps.end());
  q.pad0 = static_cast<int>(p.taps.size()) - p.pad0 - 1;
  q.pad1 = static_cast<int>(in * p.up - out * p.down + p.pad0 - p.up + 1);
  return q;
}

/// Correlation taps of a separable kernel whose sum along one axis is `gain`.
std::vector<double> taps_of(const std::vector<int>& kernel, double gain) {
  const double sum = std::accumulate(kernel.begin(), kernel.end(), 0.0);
  std::vector<double> taps(kernel.rbegin(), kernel.rend());
  for (double& tap : taps) tap *= gain / sum;
  return taps;
}

}  // namespace

Var conv2d(const Var& x, const Var& weight, const Var& bias, Conv2dParams params, const Var& residual,
           double scale) {
  const Tensor &in = x.value(), &w = weight.value();
  const ConvShape shape = conv_shape(in.shape(), w.shape(), params);
  const DType out_type = params.keep_f32 && in.dtype() == DType::bf16 ? DType::f32 : in.dtype();
  Tensor y = Tensor::empty(in.context(), {shape.n, shape.oh, shape.ow, shape.k}, out_type);
  check(!bias.defined() || bias.shape() == Shape({shape.k}), "conv2d: bias ", bias.shape(), " for ", shape.k,
        " channels");
  check(!residual.defined() || residual.shape() == y.shape(), "conv2d: residual ", residual.shape(),
        " for an output ", y.shape());
  const DType type = parameter_type(in.dtype());
  check(w.dtype() == type && (!bias.defined() || bias.value().dtype() == type) &&
            (!residual.defined() || residual.value().dtype() == out_type),
        "conv2d: weight and bias must be ", type, " and the residual ", out_type, " beside ", in.dtype(),
        " activations");
  // Packed weights are worth keeping while the weights stand still, that is outside training.
  const std::uint64_t version = weight.requires_grad() ? 0 : w.version();
  run(Conv2d{.x = in.buffer(),
             .x2 = {},
             .weight = w.buffer(),
             .bias = bias.value().const_buffer(),
             .residual = residual.value().const_buffer(),
             .y = y.buffer(),
             .shape = shape,
             .scale = scale,
             .weight_version = version},
      y.context());
  return record(
      "conv2d", y, {x, weight, bias, residual},
      [in, w, shape, scale](const Tensor& grad, const std::vector<bool>& wanted) {
        Context& context = grad.context();
        Tensor dy = grad.to(in.dtype());
        if (scale != 1.0) {
          const Tensor unscaled = std::exchange(dy, Tensor::empty(context, grad.shape(), in.dtype()));
          run(AddScaled{unscaled.buffer(), {}, dy.buffer(), dy.numel(), scale, 0.0}, context);
        }
        std::vector<Tensor> grads(4);
        if (wanted[1] || wanted[2]) {
          grads[1] = Tensor::empty(context, w.shape(), w.dtype());
          if (wanted[2]) grads[2] = Tensor::empty(context, {shape.k}, w.dtype());
          run(Conv2dGradWeight{.x = in.buffer(),
                               .x2 = {},
                               .dy = dy.const_buffer(),
                               .dweight = grads[1].buffer(),
                               .dbias = grads[2].buffer(),
                               .shape = shape,
                               .scale = 1.0},
              context);
        }
        if (wanted[0]) {
          grads[0] = Tensor::empty(context, in.shape(), in.dtype());
          run(Conv2dGradInput{dy.const_buffer(), w.buffer(), grads[0].buffer(), {}, shape, 1.0}, context);
        }
        if (wanted[3]) grads[3] = dy.to(grad.dtype());
        return grads;
      });
}

Var group_norm(const Var& x, const Var& gamma, const Var& beta, const GroupNormParams& p, const Var& shift) {
  const Tensor &in = x.value(), &g = gamma.value(), &b = beta.value(), &s = shift.value();
  const Shape shape = in.shape();
  check(shape.rank() == 4 && p.groups > 0 && shape[3] % p.groups == 0, "group_norm: x ", shape,
        " cannot be split into ", p.groups, " groups of channels");
  const std::int64_t n = shape[0], hw = shape[1] * shape[2], c = shape[3];
  check(g.shape() == Shape({c}) && b.shape() == Shape({c}), "group_norm: gamma ", g.shape(), " and beta ",
        b.shape(), " for ", c, " channels");
  check(!s.defined() || s.shape() == Shape({n, c}), "group_norm: shift ", s.shape(), " for x ", shape);
  const DType type = parameter_type(in.dtype());
  check(g.dtype() == type && b.dtype() == type && (!s.defined() || s.dtype() == type),
        "group_norm: gamma, beta and shift must be ", type, " beside ", in.dtype(), " activations");
  check(p.dropout >= 0.0 && p.dropout < 1.0, "group_norm: dropout rate must lie in [0, 1), got ", p.dropout);
  Context& context = in.context();
  Tensor y = Tensor::empty(context, shape, in.dtype());
  Tensor mean = Tensor::empty(context, {n, p.groups}, type),
         rstd = Tensor::empty(context, {n, p.groups}, type);
  const DropoutMask mask{p.dropout, p.dropout_key};
  run(GroupNorm{.x = in.buffer(),
                .x2 = {},
                .shift = s.buffer(),
                .gamma = g.buffer(),
                .beta = b.buffer(),
                .y = y.buffer(),
                .mean = mean.buffer(),
                .rstd = rstd.buffer(),
                .n = n,
                .hw = hw,
                .c = c,
                .c2 = 0,
                .groups = p.groups,
                .shift_ld = c,
                .eps = p.eps,
                .activation = p.activation,
                .dropout = mask},
      context);
  return record("group_norm", y, {x, gamma, beta, shift},
                [=](const Tensor& dy, const std::vector<bool>& wanted) {
                  Context& ctx = dy.context();
                  std::vector<Tensor> grads(4);
                  grads[0] = Tensor::empty(ctx, shape, in.dtype());
                  for (int i : {1, 2})
                    if (wanted[i]) grads[i] = Tensor::empty(ctx, {c}, type);
                  if (wanted[3]) grads[3] = Tensor::empty(ctx, {n, c}, type);
                  GroupNormGrad op{};
                  op.x = in.buffer(), op.shift = s.buffer(), op.gamma = g.buffer(), op.beta = b.buffer();
                  op.mean = mean.const_buffer(), op.rstd = rstd.const_buffer(), op.dy = dy.buffer();
                  op.dx = grads[0].buffer(), op.dshift = grads[3].buffer();
                  op.dgamma = grads[1].buffer(), op.dbeta = grads[2].buffer();
                  op.n = n, op.hw = hw, op.c = c, op.groups = p.groups, op.shift_ld = c, op.dy_scale = 1.0;
                  op.activation = p.activation, op.dropout = mask;
                  run(op, ctx);
                  return grads;
                });
}

Var resample(const Var& x, const ResampleParams& params) {
  const Shape in = x.shape();
  const Tensor y = filtered(x.value(), params);
  const Shape out = y.shape();
  return record("resample", y, {x}, [in, out, params](const Tensor& dy, const std::vector<bool>&) {
    check(in[1] * params.up - out[1] * params.down == in[2] * params.up - out[2] * params.down,
          "resample: image ", in, " has no common padding along both axes");
    return std::vector<Tensor>{filtered(dy, adjoint(params, in[1], out[1]))};
  });
}

ResampleParams upsample_params(const std::vector<int>& kernel) {
  const int k = static_cast<int>(kernel.size());
  return {2, 1, (k + 1) / 2, k / 2 - 1, taps_of(kernel, 2.0)};
}

ResampleParams downsample_params(const std::vector<int>& kernel) {
  const int k = static_cast<int>(kernel.size());
  return {1, 2, (k - 1) / 2, k / 2 - 1, taps_of(kernel, 1.0)};
}

ResampleParams conv_downsample_params(const std::vector<int>& kernel) {
  const int k = static_cast<int>(kernel.size());
  return {1, 1, (k + 1) / 2, k / 2, taps_of(kernel, 1.0)};
}

ResampleParams upsample_conv_params(const std::vector<int>& kernel) {
  const int k = static_cast<int>(kernel.size());
  return {1, 1, (k - 1) / 2, k / 2 - 1, taps_of(kernel, 2.0)};
}

}  // namespace sgm
