#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "autograd/image_shapes.h"
#include "kernels/group_norm.h"
#include "kernels/upfirdn.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

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

/// A call that waits for its gradient.
class KeptNormCall {
 public:
  KeptNormCall(NormCall call, const Var& x, const Var& x2)
      : rest_(std::move(call)), x_(x.saved()), x2_(x2.saved()) {
    rest_.x = rest_.x2 = {};
  }
  NormCall get() const {
    NormCall call = rest_;
    call.x = x_.get(), call.x2 = x2_.get();
    return call;
  }

 private:
  NormCall rest_;  // without its inputs
  Saved x_, x2_;
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
  const Tensor value = normalised(call, joined);
  const KeptNormCall kept(call, x, x2);
  Var y = record("group_norm", value, {x, gamma, beta, shift.all, x2},
                 [kept](const Gradient& dy, InputGradients& into) { norm_backward(kept.get(), dy, into); });
  y.set_recipe([kept] {
    NormCall again = kept.get();
    return normalised(again, {});
  });
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
  const KeptNormCall kept(call, x, {});
  // One launch makes both gradients in x: the input's waits for the norm's.
  const auto key = std::make_shared<const char>();
  ResampledNorm both;
  both.normalised = record("group_norm", y, {x, gamma, beta, Var(), Var()},
                           [kept, params, key](const Gradient& dy, InputGradients& into) {
                             const Gradient dinput = into.take_deferred(0, key.get());
                             resampled_norm_backward(kept.get(), params, dy, dinput, into);
                           });
  both.input = record(
      "resample", input, {x}, [shape = x.shape(), params, key](const Gradient& dy, InputGradients& into) {
        into.add_deferred(0, key.get(), dy, [=] { return Gradient{filtered_back(shape, params, dy)}; });
      });
  const auto again = [made, kept] {
    NormCall same = kept.get();
    return made(same);
  };
  both.normalised.set_recipe([again] { return again().first; });
  both.input.set_recipe([again] { return again().second; });
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
