#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/group_norm.h"
#include "kernels/upfirdn.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

/// `shape` with c channels.
Shape with_channels(const Shape& shape, std::int64_t c) { return {shape[0], shape[1], shape[2], c}; }

ConvShape conv_shape(const Shape& x, const Shape& x2, const Shape& w, const Conv2dParams& p) {
  const std::int64_t c2 = x2.rank() == 4 ? x2[3] : 0;
  check(x.rank() == 4 && w.rank() == 4 && x[3] + c2 == w[3], "conv2d: x ", x, " and weight ", w,
        " do not fit; want [N, H, W, C] and [K, R, S, C]");
  check(x2.rank() == 0 || (x2 == with_channels(x, c2) && w[1] == 1 && w[2] == 1 && p.stride == 1 &&
                           p.pad_begin == 0 && p.pad_end == 0),
        "conv2d: a second input must be like the first and the filter 1x1, got ", x, ", ", x2, " and ", w);
  const auto out = [&](std::int64_t in, std::int64_t filter) {
    const std::int64_t last = in + p.pad_begin + p.pad_end - (filter - 1) * p.dilation - 1;
    return last < 0 ? 0 : last / p.stride + 1;
  };
  const ConvShape shape{
      x[0],     x[1],        x[2],      w[3], w[0],      w[1], w[2], out(x[1], w[1]), out(x[2], w[2]),
      p.stride, p.pad_begin, p.pad_end, c2,   p.dilation};
  check(shape.oh > 0 && shape.ow > 0, "conv2d: x ", x, " is smaller than the filter ", w);
  return shape;
}

/// Parameters of norms stay in f32 beside bf16 activations, and in f64 beside f64 ones.
DType parameter_type(DType activations) { return activations == DType::f64 ? DType::f64 : DType::f32; }

/// Of images of shape s, without operands.
UpFirDn resampling(const Shape& s, const ResampleParams& p) {
  const auto taps = static_cast<int>(p.taps.size());
  check(taps >= 1 && taps <= UpFirDn::kMaxTaps, "resample: 1 to ", UpFirDn::kMaxTaps, " taps, got ", taps);
  check(s.rank() == 4, "resample: x must be [N, H, W, C], got ", s);
  const auto out = [&](std::int64_t in) {
    const std::int64_t last = in * p.up + p.pad0 + p.pad1 - taps;
    return last < 0 ? 0 : last / p.down + 1;
  };
  check(out(s[1]) > 0 && out(s[2]) > 0, "resample: x ", s, " is smaller than the filter");
  UpFirDn op{{}, {}, s[0], s[1], s[2], s[3], out(s[1]), out(s[2]), p.up, p.down, p.pad0, taps, {}};
  std::copy(p.taps.begin(), p.taps.end(), op.taps);
  return op;
}

/// Room for what `op` makes of x.
Tensor output_of(const UpFirDn& op, const Tensor& x) {
  return Tensor::empty(x.context(), {op.n, op.oh, op.ow, op.c}, x.dtype());
}

Tensor filtered(const Tensor& x, const ResampleParams& p) {
  UpFirDn op = resampling(x.shape(), p);
  Tensor y = output_of(op, x);
  op.x = x.buffer(), op.y = y.buffer();
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

/// How a convolution keeps its input, the whole of it where it was joined.
Saved saved_input(const Var& x, const Var& x2, const Tensor& joined) {
  if (!joined.defined()) return x.saved();
  return Saved(joined, [kept = x.saved(), kept2 = x2.saved()] {
    const Tensor a = kept.get(), b = kept2.get();
    const std::int64_t ca = a.shape()[-1], cb = b.shape()[-1];
    Tensor both = Tensor::empty(a.context(), with_channels(a.shape(), ca + cb), a.dtype());
    run(ConcatChannels{a.buffer(), b.buffer(), both.buffer(), a.numel() / ca, ca, cb}, a.context());
    return both;
  });
}

}  // namespace

Var conv2d(const Var& x, const Var& weight, const Var& bias, Conv2dParams params, const Var& residual,
           double scale, const Var& x2, const Tensor& joined) {
  const Tensor &in = x.value(), &in2 = x2.value();
  const Tensor& w = weight.value();
  const ConvShape shape = conv_shape(in.shape(), in2.shape(), w.shape(), params);
  check(!joined.defined() || (in2.defined() && joined.dtype() == in.dtype() &&
                              joined.shape() == with_channels(in.shape(), shape.c)),
        "conv2d: joined inputs ", joined.shape(), " of ", in.shape(), " and ", in2.shape());
  // What forward and the gradient in the weights read.
  const Tensor read = joined.defined() ? joined : in, read2 = joined.defined() ? Tensor() : in2;
  ConvShape read_shape = shape;
  if (joined.defined()) read_shape.c2 = 0;
  const bool rounds = params.round && in.dtype() == DType::f32;
  check(!rounds || !residual.defined(), "conv2d: no residual where f32 is rounded");
  const DType out_type = params.keep_f32 && in.dtype() == DType::bf16 ? DType::f32 : in.dtype();
  Tensor y = Tensor::empty(in.context(), {shape.n, shape.oh, shape.ow, shape.k}, out_type);
  check(!bias.defined() || bias.shape() == Shape({shape.k}), "conv2d: bias ", bias.shape(), " for ", shape.k,
        " channels");
  check(!residual.defined() || residual.shape() == y.shape(), "conv2d: residual ", residual.shape(),
        " for an output ", y.shape());
  const DType type = parameter_type(in.dtype());
  check(w.dtype() == type && (!bias.defined() || bias.value().dtype() == type) &&
            (!residual.defined() || residual.value().dtype() == out_type) &&
            (!x2.defined() || in2.dtype() == in.dtype()),
        "conv2d: weight and bias must be ", type, ", the second input ", in.dtype(), " and the residual ",
        out_type, " beside ", in.dtype(), " activations");
  const bool low = in.dtype() == DType::bf16 && in.context().has_low_weights();
  const Tensor used = low ? w.low() : w;
  const Tensor scaled_bias = low && bias.defined() ? bias.value().low(scale) : Tensor();
  // Packed weights are worth keeping while the weights stand still, that is outside training.
  const std::uint64_t version = weight.requires_grad() ? 0 : w.version();
  run(Conv2d{.x = read.buffer(),
             .x2 = read2.buffer(),
             .weight = used.buffer(),
             .bias = bias.value().const_buffer(),
             .residual = residual.value().const_buffer(),
             .y = y.buffer(),
             .shape = read_shape,
             .scale = scale,
             .weight_version = version,
             .scaled_bias = scaled_bias.buffer()},
      y.context());
  // Only the gradient of the weights reads the input.
  const bool learns = weight.requires_grad() || bias.requires_grad();
  const Saved kept = learns ? saved_input(x, x2, joined) : Saved();
  const Saved kept2 = learns && !joined.defined() ? x2.saved() : Saved();
  const Shape in_shape = in.shape();
  const DType in_type = in.dtype();
  return record(
      "conv2d", rounds ? y.to(DType::bf16) : y, {x, weight, bias, residual, x2},
      [=](const Gradient& grad, InputGradients& into) {
        Context& context = grad.tensor.context();
        const double factor = scale * grad.factor;
        const Tensor dy = rounds ? grad.tensor : grad.tensor.to(in_type);
        into.add(3, {grad.tensor, factor, grad.sums});
        if (into.wanted(2) && grad.sums.defined()) into.add(2, {grad.sums, factor});
        if (const bool bias_too = into.wanted(2) && !grad.sums.defined(); bias_too || into.wanted(1)) {
          const Tensor again = kept.get().to(dy.dtype()), again2 = kept2.get();
          Tensor dweight = Tensor::empty(context, w.shape(), dy.dtype()), dbias;
          if (bias_too) dbias = Tensor::empty(context, {shape.k}, type);
          run(Conv2dGradWeight{again.buffer(), again2.buffer(), dy.buffer(), dweight.buffer(), dbias.buffer(),
                               read_shape, factor},
              context);
          into.add(1, {dweight});
          into.add(2, {dbias});
        }
        if (into.wanted(0) || into.wanted(4)) {
          Tensor dx = Tensor::empty(context, in_shape, in_type), dx2;
          if (shape.c2 > 0) dx2 = Tensor::empty(context, with_channels(in_shape, shape.c2), in_type);
          // GPUs write two alike by one batched product, for which they must lie in order.
          if (dx2.defined() && dx2.shape() == dx.shape() && dx2.buffer().data < dx.buffer().data)
            std::swap(dx, dx2);
          const Tensor dy_used = dy.to(in_type);
          run(Conv2dGradInput{dy_used.buffer(), used.buffer(), dx.buffer(), dx2.buffer(), shape, factor},
              context);
          into.add(0, {dx});
          into.add(4, {dx2});
        }
      },
      bias.defined());
}

namespace {

/// What a group norm and its gradient have in common.
struct NormCall {
  Tensor x, x2, gamma, beta, shift, mean, rstd;
  std::int64_t shift_first, n, hw, c, c2;
  GroupNormParams params;

  /// The columns of a [N, >= c] tensor that belong to this norm.
  template <class B>
  B columns(B all) const {
    if (all.data) all.data = static_cast<B>(all).template as<char>() + shift_first * size_of(all.dtype);
    return all;
  }
  std::int64_t shift_ld() const { return shift.defined() ? shift.shape()[1] : c; }
  DropoutMask mask() const { return {params.dropout, params.dropout_key}; }
};

/// Gradients of all inputs, by execute(op): op has everything but dy itself, and room for `more` addends.
template <class Execute>
void norm_backward(const NormCall& call, double dy_factor, InputGradients& into, std::size_t more,
                   Execute&& execute) {
  Context& context = call.x.context();
  const DType type = call.gamma.dtype();
  GroupNormGrad op{};
  op.x = call.x.buffer(), op.x2 = call.x2.buffer(), op.shift = call.columns(call.shift.const_buffer());
  op.gamma = call.gamma.buffer(), op.beta = call.beta.buffer();
  op.mean = call.mean.buffer(), op.rstd = call.rstd.buffer();
  op.n = call.n, op.hw = call.hw, op.c = call.c, op.c2 = call.c2, op.groups = call.params.groups;
  op.shift_ld = call.shift_ld(), op.dy_scale = dy_factor;
  op.activation = call.params.activation, op.dropout = call.mask();

  Tensor dx, dx2, sums, sums2, dgamma, dbeta, dshift;
  std::vector<Gradient> others, others2;  // alive until the op has read them
  const auto input = [&](std::size_t i, const Tensor& like, Tensor& out, Tensor& out_sums,
                         std::vector<Gradient>& taken, Addend* addends) {
    if (!like.defined()) return;
    taken = into.take_others(i, GroupNormGrad::kMaxAddends - more);
    for (std::size_t k = 0; k < taken.size(); ++k) addends[k] = {taken[k].tensor.buffer(), taken[k].factor};
    out = Tensor::empty(context, like.shape(), like.dtype());
    if (into.wants_sums(i)) out_sums = Tensor::empty(context, {like.shape()[-1]}, type);
  };
  input(0, call.x, dx, sums, others, op.addends);
  input(4, call.x2, dx2, sums2, others2, op.addends2);
  if (into.wanted(1)) dgamma = Tensor::empty(context, {call.c}, type);
  if (into.wanted(2)) dbeta = Tensor::empty(context, {call.c}, type);
  if (into.wanted(3)) dshift = into.shared(3, type);
  op.dx = dx.buffer(), op.dx2 = dx2.buffer(), op.dx_sums = sums.buffer(), op.dx2_sums = sums2.buffer();
  op.dgamma = dgamma.buffer(), op.dbeta = dbeta.buffer(), op.dshift = call.columns(dshift.buffer());
  execute(op);
  into.add(0, {dx, 1.0, sums});
  into.add(4, {dx2, 1.0, sums2});
  into.add(1, {dgamma});
  into.add(2, {dbeta});
}

void norm_backward(const NormCall& call, const Gradient& dy, InputGradients& into) {
  norm_backward(call, dy.factor, into, 0, [&](GroupNormGrad op) {
    op.dy = dy.tensor.buffer();
    run(op, call.x.context());
  });
}

/// Checks the operands of a norm and makes room for its statistics.
NormCall norm_call(const Tensor& in, const Tensor& in2, const Tensor& g, const Tensor& b,
                   const GroupNormParams& p, const Tensor& s, std::int64_t shift_first) {
  const Shape shape = in.shape();
  check(shape.rank() == 4 && (!in2.defined() || in2.shape() == with_channels(shape, in2.shape()[-1])),
        "group_norm: x must be [N, H, W, C] and the second input likewise, got ", shape, " and ",
        in2.shape());
  const std::int64_t n = shape[0], hw = shape[1] * shape[2], c2 = in2.defined() ? in2.shape()[3] : 0,
                     c = shape[3] + c2;
  check(p.groups > 0 && c % p.groups == 0, "group_norm: ", c, " channels cannot be split into ", p.groups,
        " groups");
  check(g.shape() == Shape({c}) && b.shape() == Shape({c}), "group_norm: gamma ", g.shape(), " and beta ",
        b.shape(), " for ", c, " channels");
  check(!s.defined() || (s.shape().rank() == 2 && s.shape()[0] == n && shift_first >= 0 &&
                         shift_first + c <= s.shape()[1]),
        "group_norm: shift ", s.shape(), " from column ", shift_first, " for x ", shape);
  const DType type = parameter_type(in.dtype());
  check(g.dtype() == type && b.dtype() == type && (!s.defined() || s.dtype() == type) &&
            (!in2.defined() || in2.dtype() == in.dtype()),
        "group_norm: gamma, beta and shift must be ", type, " beside ", in.dtype(), " activations");
  check(p.dropout >= 0.0 && p.dropout < 1.0, "group_norm: dropout rate must lie in [0, 1), got ", p.dropout);
  const Tensor mean = Tensor::empty(in.context(), {n, p.groups}, type),
               rstd = Tensor::empty(in.context(), {n, p.groups}, type);
  return {in, in2, g, b, s, mean, rstd, shift_first, n, hw, c, c2, p};
}

/// The norm itself, without outputs but the statistics.
GroupNorm norm_op(NormCall& call) {
  GroupNorm op{};
  op.x = call.x.const_buffer(), op.x2 = call.x2.const_buffer();
  op.shift = call.columns(call.shift.const_buffer());
  op.gamma = call.gamma.const_buffer(), op.beta = call.beta.const_buffer();
  op.mean = call.mean.buffer(), op.rstd = call.rstd.buffer();
  op.n = call.n, op.hw = call.hw, op.c = call.c, op.c2 = call.c2, op.groups = call.params.groups;
  op.shift_ld = call.shift_ld(), op.eps = call.params.eps;
  op.activation = call.params.activation, op.dropout = call.mask();
  return op;
}

/// The op itself, which leaves the statistics in the call; `joined` may be absent.
Tensor normalised(NormCall& call, Tensor joined) {
  Context& context = call.x.context();
  Tensor y = Tensor::empty(context, with_channels(call.x.shape(), call.c), call.x.dtype());
  GroupNorm op = norm_op(call);
  op.y = y.buffer(), op.joined = joined.buffer();
  run(op, context);
  return y;
}

}  // namespace

Var group_norm(const Var& x, const Var& gamma, const Var& beta, const GroupNormParams& p,
               const ChannelShift& shift, const Var& x2, Tensor joined) {
  NormCall call =
      norm_call(x.value(), x2.value(), gamma.value(), beta.value(), p, shift.all.value(), shift.first);
  const Shape all = with_channels(x.shape(), call.c);
  check(!joined.defined() || (joined.shape() == all && joined.dtype() == x.value().dtype()),
        "group_norm: joined inputs ", joined.shape(), " for ", all);
  Var y = record("group_norm", normalised(call, joined), {x, gamma, beta, shift.all, x2},
                 [call](const Gradient& dy, InputGradients& into) { norm_backward(call, dy, into); });
  y.set_recipe([call]() mutable { return normalised(call, {}); });
  return y;
}

namespace {

/// The adjoint of filtered() on images of shape `in`, for gradients of shape `out`.
UpFirDn resampling_back(const Shape& in, const ResampleParams& params, const Shape& out) {
  check(in[1] * params.up - out[1] * params.down == in[2] * params.up - out[2] * params.down,
        "resample: image ", in, " has no common padding along both axes");
  return resampling(out, adjoint(params, in[1], out[1]));
}

/// The gradient of filtered() in its input, of shape `in`, given that of its output.
Tensor filtered_back(const Shape& in, const ResampleParams& params, const Gradient& dy) {
  UpFirDn op = resampling_back(in, params, dy.tensor.shape());
  Tensor dx = output_of(op, dy.tensor);
  op.x = dy.tensor.buffer(), op.y = dx.buffer(), op.scale = dy.factor;
  run(op, dx.context());
  return dx;
}

}  // namespace

Var resample(const Var& x, const ResampleParams& params) {
  Var y = record("resample", filtered(x.value(), params), {x},
                 [in = x.shape(), params](const Gradient& dy, InputGradients& into) {
                   into.add(0, {filtered_back(in, params, dy)});
                 });
  y.set_recipe([kept = x.saved(), params] { return filtered(kept.get(), params); });
  return y;
}

namespace {

/// The gradient of a resampled norm, and where it has come already, of its resampled input.
void resampled_norm_backward(const NormCall& call, const ResampleParams& params, const Gradient& dy,
                             const Gradient& dinput, InputGradients& into) {
  const Shape shape = call.x.shape();
  if (!dinput.defined()) return norm_backward(call, {filtered_back(shape, params, dy)}, into);
  norm_backward(call, dy.factor, into, 1, [&](const GroupNormGrad& norm) {
    run(GroupNormResampleGrad{norm, dy.tensor.buffer(), dinput.tensor.buffer(), dinput.factor,
                              resampling_back(shape, params, dy.tensor.shape())},
        call.x.context());
  });
}

}  // namespace

ResampledNorm resampled_group_norm(const Var& x, const Var& gamma, const Var& beta,
                                   const GroupNormParams& norm, const ResampleParams& params) {
  check(norm.dropout == 0.0, "group_norm: a resampled norm has no dropout");
  NormCall call = norm_call(x.value(), {}, gamma.value(), beta.value(), norm, {}, 0);
  const auto made = [params](NormCall& of) {
    GroupNormResample op{norm_op(of), resampling(of.x.shape(), params), {}, {}};
    std::pair both(output_of(op.resample, of.x), output_of(op.resample, of.x));
    op.y = both.first.buffer(), op.input = both.second.buffer();
    run(op, of.x.context());
    return both;
  };
  const auto [y, input] = made(call);
  // One launch makes both gradients in x: the input's waits for the norm's.
  const auto key = std::make_shared<const char>();
  ResampledNorm both;
  both.normalised = record("group_norm", y, {x, gamma, beta, Var(), Var()},
                           [call, params, key](const Gradient& dy, InputGradients& into) {
                             const Gradient dinput = into.take_deferred(0, key.get());
                             resampled_norm_backward(call, params, dy, dinput, into);
                           });
  both.input = record(
      "resample", input, {x}, [shape = x.shape(), params, key](const Gradient& dy, InputGradients& into) {
        into.add_deferred(0, key.get(), dy, [=] { return Gradient{filtered_back(shape, params, dy)}; });
      });
  both.normalised.set_recipe([made, call]() mutable { return made(call).first; });
  both.input.set_recipe([made, call]() mutable { return made(call).second; });
  return both;
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
