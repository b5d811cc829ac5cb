#include <utility>

#include "autograd/image_shapes.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "sgm/autograd/ops.h"

namespace sgm {
namespace {

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

/// What a convolution and its gradients have in common.
struct ConvCall {
  Tensor weight, used;       // the parameter; what the device reads of it
  Tensor bias, scaled_bias;  // the latter beside bf16 weights
  ConvShape shape, read;     // of the inputs; of what the filter passes over: joined inputs are one
  DType in_type, out_type;
  double scale;
  std::uint64_t version;  // under which weights may be kept packed
  bool rounds;            // the output to bf16

  Shape out_shape() const { return {shape.n, shape.oh, shape.ow, shape.k}; }

  Tensor forward(const Tensor& x, const Tensor& x2, const Tensor& residual) const {
    Tensor y = Tensor::empty(x.context(), out_shape(), out_type);
    run(Conv2d{.x = x.buffer(),
               .x2 = x2.buffer(),
               .weight = used.buffer(),
               .bias = bias.buffer(),
               .residual = residual.buffer(),
               .y = y.buffer(),
               .shape = read,
               .scale = scale,
               .weight_version = version,
               .scaled_bias = scaled_bias.buffer()},
        y.context());
    return rounds ? y.to(DType::bf16) : y;
  }

  /// The gradient in the weights, of dy's type; that in the bias goes to dbias, which may be absent.
  Tensor weight_gradient(const Tensor& x, const Tensor& x2, const Tensor& dy, double factor,
                         Tensor dbias) const {
    Tensor dweight = Tensor::empty(dy.context(), weight.shape(), dy.dtype());
    run(Conv2dGradWeight{x.buffer(), x2.buffer(), dy.buffer(), dweight.buffer(), dbias.buffer(), read,
                         factor},
        dy.context());
    return dweight;
  }

  /// The gradients in both inputs.
  std::pair<Tensor, Tensor> input_gradients(const Tensor& dy, double factor) const {
    Context& context = dy.context();
    Tensor dx = Tensor::empty(context, {shape.n, shape.h, shape.w, shape.c - shape.c2}, in_type), dx2;
    if (shape.c2 > 0) dx2 = Tensor::empty(context, {shape.n, shape.h, shape.w, shape.c2}, in_type);
    // GPUs write two alike by one batched product, for which they must lie in order.
    if (dx2.defined() && dx2.shape() == dx.shape() && dx2.buffer().data < dx.buffer().data)
      std::swap(dx, dx2);
    const Tensor dy_used = dy.to(in_type);
    run(Conv2dGradInput{dy_used.buffer(), used.buffer(), dx.buffer(), dx2.buffer(), shape, factor}, context);
    return {dx, dx2};
  }
};

/// Checks the operands.
ConvCall conv_call(const Tensor& x, const Var& weight, const Tensor& bias, const Conv2dParams& params,
                   const Tensor& residual, double scale, const Tensor& x2, const Tensor& joined) {
  const Tensor& w = weight.value();
  const ConvShape shape = conv_shape(x.shape(), x2.shape(), w.shape(), params);
  const DType in_type = x.dtype(), type = parameter_type(in_type);
  const bool low = in_type == DType::bf16 && x.context().has_low_weights();
  ConvCall call{.weight = w,
                .used = w,
                .bias = bias,
                .scaled_bias = {},
                .shape = shape,
                .read = shape,
                .in_type = in_type,
                .out_type = params.keep_f32 && in_type == DType::bf16 ? DType::f32 : in_type,
                .scale = scale,
                // Packed weights are worth keeping while the weights stand still, that is outside training.
                .version = weight.requires_grad() ? 0 : w.version(),
                .rounds = params.round && in_type == DType::f32};
  if (joined.defined()) call.read.c2 = 0;
  check(!joined.defined() || (x2.defined() && joined.dtype() == in_type &&
                              joined.shape() == with_channels(x.shape(), shape.c)),
        "conv2d: joined inputs ", joined.shape(), " of ", x.shape(), " and ", x2.shape());
  check(!call.rounds || !residual.defined(), "conv2d: no residual where f32 is rounded");
  check(!bias.defined() || bias.shape() == Shape({shape.k}), "conv2d: bias ", bias.shape(), " for ", shape.k,
        " channels");
  check(!residual.defined() || residual.shape() == call.out_shape(), "conv2d: residual ", residual.shape(),
        " for an output ", call.out_shape());
  check(w.dtype() == type && (!bias.defined() || bias.dtype() == type) &&
            (!residual.defined() || residual.dtype() == call.out_type) &&
            (!x2.defined() || x2.dtype() == in_type),
        "conv2d: weight and bias must be ", type, ", the second input ", in_type, " and the residual ",
        call.out_type, " beside ", in_type, " activations");
  if (low) {
    call.used = w.low();
    if (bias.defined()) call.scaled_bias = bias.low(scale);
  }
  return call;
}

/// Whether recomputation is for the output: of 1x1 filters, and where memory is so short that gradients are
/// late, of others that take few multiplications for each number.
bool is_soon_made_again(const ConvCall& call, const Context& context) {
  constexpr std::int64_t kFew = 9 * 128;
  const std::int64_t taps = call.shape.r * call.shape.s;
  return taps == 1 || (context.late_gradients() && taps * call.shape.c <= kFew);
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

/// Gradients in weight and bias, inputs 1 and 2; x, x2 make what the filter passed over.
void learn(const ConvCall& call, const Saved& x, const Saved& x2, const Tensor& dy, const Gradient& grad,
           InputGradients& into) {
  const double factor = call.scale * grad.factor;
  const bool bias_too = into.wanted(2) && !grad.sums.defined();
  if (into.wanted(2) && grad.sums.defined()) into.add(2, {grad.sums, factor});
  if (!bias_too && !into.wanted(1)) return;
  const Tensor first = x.get().to(dy.dtype()), second = x2.get();
  if (bias_too) {
    const Tensor dbias = Tensor::empty(dy.context(), {call.shape.k}, parameter_type(call.in_type));
    into.add(1, {call.weight_gradient(first, second, dy, factor, dbias)});
    into.add(2, {dbias});
    return;
  }
  const std::size_t holds = first.bytes() + (second.defined() ? second.bytes() : 0) + dy.bytes();
  into.add_late(1, dy.dtype(), {.holds = holds, .make = [=](std::int64_t, std::int64_t) {
                                  return Gradient{call.weight_gradient(first, second, dy, factor, {})};
                                }});
}

}  // namespace

Var conv2d(const Var& x, const Var& weight, const Var& bias, Conv2dParams params, const Var& residual,
           double scale, const Var& x2, const Tensor& joined) {
  const ConvCall call =
      conv_call(x.value(), weight, bias.value(), params, residual.value(), scale, x2.value(), joined);
  const bool joins = joined.defined();
  const Tensor y = call.forward(joins ? joined : x.value(), joins ? Tensor() : x2.value(), residual.value());
  // Only the gradient of the weights reads the input.
  const bool learns = weight.requires_grad() || bias.requires_grad();
  const Saved kept = learns ? saved_input(x, x2, joined) : Saved();
  const Saved kept2 = learns && !joins ? x2.saved() : Saved();
  Var result = record(
      "conv2d", y, {x, weight, bias, residual, x2},
      [call, kept, kept2](const Gradient& grad, InputGradients& into) {
        const Tensor dy = call.rounds ? grad.tensor : grad.tensor.to(call.in_type);
        const double factor = call.scale * grad.factor;
        into.add(3, {grad.tensor, factor, grad.sums});
        learn(call, kept, kept2, dy, grad, into);
        if (!into.wanted(0) && !into.wanted(4)) return;
        const auto [dx, dx2] = call.input_gradients(dy, factor);
        into.add(0, {dx});
        into.add(4, {dx2});
      },
      bias.defined());
  if (is_soon_made_again(call, y.context()) && !residual.defined() && !x2.defined())
    result.set_recipe([call, input = x.saved()] { return call.forward(input.get(), {}, {}); });
  return result;
}

}  // namespace sgm
