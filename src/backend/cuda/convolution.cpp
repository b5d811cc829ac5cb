// Convolutions: cuDNN's plans, cuBLASLt where the filter is 1x1, and a kernel of our own where neither fits.

#include "backend/cuda/conv_plans.h"
#include "backend/cuda/product.h"
#include "kernels/conv.h"
#include "kernels/direct_conv.h"
#include "kernels/elementwise.h"
#include "kernels/fill.h"

namespace sgm {
namespace {

using cudnn::ConvGraph;

/// Whether a convolution is a matrix product over pixels.
bool is_product(const ConvShape& s) {
  return s.r == 1 && s.s == 1 && s.stride == 1 && s.pad_begin == 0 && s.pad_end == 0;
}

std::int64_t output_pixels(const ConvShape& s) { return s.n * s.oh * s.ow; }

/// `like` some elements further on.
template <class B>
B advanced(B like, std::int64_t elements) {
  like.data = like.template as<std::conditional_t<std::is_same_v<B, Buffer>, char, const char>>() +
              elements * static_cast<std::int64_t>(size_of(like.dtype));
  return like;
}

void check_types(const char* op, DType image, DType weight, bool second_input, const ConvShape& shape) {
  check(image == DType::f32 || image == DType::bf16, op, ": on a GPU images are f32 or bf16, got ", image,
        "; use --device cpu");
  check(weight == image, op, ": on a GPU weights and their gradients have the type of the images, got ",
        weight, " beside ", image);
  check(is_product(shape) || !second_input, op, ": a second input is for 1x1 filters only");
}

ConvGraph graph_of(ConvGraph::Kind kind, const ConvShape& shape, DType type, double scale,
                   const CudaContext& device) {
  return {.kind = kind,
          .shape = shape,
          .type = type,
          .scale = scale,
          .tf32 = type == DType::f32 && device.options().allow_tf32};
}

/// scale * bias in the type of a library call's output: the copy that the caller keeps, where it is that.
ReadyBias ready_bias(const Conv2d& op, DType wanted, CudaContext& device) {
  if (op.scaled_bias && wanted == DType::bf16) return {op.scaled_bias, op.shape.k, 1.0, wanted, device};
  return {op.bias, op.shape.k, op.scale, wanted, device};
}

void forward_by_plan(const Conv2d& op, CudaContext& device) {
  const ConvShape& s = op.shape;
  ConvGraph graph = graph_of(ConvGraph::Kind::forward, s, op.x.dtype, op.scale, device);
  graph.bias = op.bias && (op.residual || op.scale == 1.0);
  graph.residual = graph.bias && op.residual;
  cudnn::ConvOperands operands{op.x.data, op.weight.data, op.y.data};
  Conv2d launched = op;
  if (!graph.bias) launched.bias = launched.scaled_bias = launched.residual = {};
  const auto execute = [&] {
    device.part<cudnn::ConvPlans>().execute("conv forward", launched.cost(), graph, operands);
  };
  if (graph.bias) {
    const ReadyBias bias = ready_bias(op, op.x.dtype, device);
    operands.bias = bias.buffer().data;
    if (graph.residual) operands.residual = op.residual.data;
    return execute();
  }
  execute();
  if (op.bias || op.residual)
    add_epilogue({op.bias, op.residual, op.y, output_pixels(s), s.k, s.k, op.scale}, device);
}

void forward_by_product(const Conv2d& op, CudaContext& device) {
  const ConvShape& s = op.shape;
  const ReadyBias bias = ready_bias(op, op.y.dtype, device);
  Product p{.a = op.x,
            .b = op.weight,
            .c = op.residual,
            .bias = bias.buffer(),
            .d = op.y,
            .m = output_pixels(s),
            .n = s.k,
            .k = s.c - s.c2,
            .lda = s.c - s.c2,
            .ldb = s.c,
            .ldc = s.k,
            .ldd = s.k,
            .trans_b = true,
            .alpha = op.scale,
            .beta = op.scale};
  multiply("conv 1x1 forward", p, device);
  if (!op.x2) return;
  p.a = op.x2, p.lda = p.k = s.c2;
  p.b = advanced(op.weight, s.c - s.c2);
  p.bias = {}, p.c = op.y, p.beta = 1.0;
  multiply("conv 1x1 forward", p, device);
}

/// Elements from a to b where these can be two matrices of one batch, else 0: b lies behind a, and 16-byte
/// accesses to one are allowed to the other.
std::int64_t distance(const Buffer& a, const Buffer& b, std::int64_t cols) {
  constexpr std::int64_t kAlignment = 16;
  const std::int64_t bytes = b.as<char>() - a.as<char>(), size = static_cast<std::int64_t>(size_of(a.dtype));
  return a && b && bytes > 0 && bytes % kAlignment == 0 && cols * size % kAlignment == 0 ? bytes / size : 0;
}

/// dx = scale dy weight[:, first .. first + c), for each input; for two alike in one batch.
void grad_input_by_product(const Conv2dGradInput& op, CudaContext& device) {
  const ConvShape& s = op.shape;
  const auto multiply_for = [&](Buffer dx, std::int64_t first, std::int64_t c, std::int64_t apart) {
    const Product p{.a = op.dy,
                    .b = advanced(op.weight, first),
                    .d = dx,
                    .batch = apart ? 2 : 1,
                    .m = output_pixels(s),
                    .n = c,
                    .k = s.k,
                    .lda = s.k,
                    .ldb = s.c,
                    .ldd = c,
                    .stride_b = apart ? c : 0,
                    .stride_d = apart,
                    .alpha = op.scale};
    multiply("conv 1x1 grad input", p, device);
  };
  const std::int64_t c1 = s.c - s.c2, apart = c1 == s.c2 ? distance(op.dx, op.dx2, c1) : 0;
  if (op.dx) multiply_for(op.dx, 0, c1, apart);
  if (op.dx2 && !apart) multiply_for(op.dx2, c1, s.c2, 0);
}

/// dweight[:, first .. first + c) = scale dy^T x.
void grad_weight_by_product(const Conv2dGradWeight& op, ConstBuffer x, std::int64_t first, std::int64_t c,
                            CudaContext& device) {
  const ConvShape& s = op.shape;
  const Product p{.a = op.dy,
                  .b = x,
                  .d = advanced(op.dweight, first),
                  .m = s.k,
                  .n = c,
                  .k = output_pixels(s),
                  .lda = s.k,
                  .ldb = c,
                  .ldd = s.c,
                  .trans_a = true,
                  .alpha = op.scale};
  multiply("conv 1x1 grad weight", p, device);
}

}  // namespace

void Conv2d::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  check_types("conv2d", x.dtype, weight.dtype, bool(x2), shape);
  check(!residual || residual.dtype == y.dtype, "conv2d: residual ", residual.dtype, " for an output ",
        y.dtype);
  check(!scaled_bias || bias, "conv2d: a scaled bias goes with a bias");
  if (output_pixels(shape) * shape.k == 0) return;
  if (is_product(shape)) return forward_by_product(*this, device);
  y.dtype == x.dtype ? forward_by_plan(*this, device) : convolve_directly(*this, device);
}

void Conv2dGradInput::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  check_types("conv2d gradient", dy.dtype, weight.dtype, bool(dx2), shape);
  check(dx.dtype == dy.dtype && (!dx2 || dx2.dtype == dy.dtype), "conv2d gradient: inputs in ", dx.dtype,
        " beside outputs in ", dy.dtype);
  if (output_pixels(shape) * shape.k == 0) return;
  if (is_product(shape)) return grad_input_by_product(*this, device);
  device.part<cudnn::ConvPlans>().execute(
      "conv grad input", cost(), graph_of(ConvGraph::Kind::grad_input, shape, dy.dtype, scale, device),
      {dx.data, weight.data, dy.data});
}

void Conv2dGradWeight::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  check_types("conv2d gradient", x.dtype, dweight.dtype, bool(x2), shape);
  check(dy.dtype == x.dtype && (!x2 || x2.dtype == x.dtype), "conv2d gradient: inputs in ", x.dtype,
        " beside outputs in ", dy.dtype);
  if (dbias) SumRows{dy, dbias, output_pixels(shape), shape.k, scale}.cuda(context);
  if (output_pixels(shape) == 0)
    return Fill{dweight, shape.k * shape.r * shape.s * shape.c, 0.0}.cuda(context);
  if (is_product(shape)) {
    grad_weight_by_product(*this, x, 0, shape.c - shape.c2, device);
    if (x2) grad_weight_by_product(*this, x2, shape.c - shape.c2, shape.c2, device);
    return;
  }
  Conv2dGradWeight launched = *this;
  launched.dbias = {};
  device.part<cudnn::ConvPlans>().execute(
      "conv grad weight", launched.cost(),
      graph_of(ConvGraph::Kind::grad_weight, shape, x.dtype, scale, device), {x.data, dweight.data, dy.data});
}

void Matmul::cuda(Context& context) const {
  const Product product{.a = a,
                        .b = b,
                        .c = accumulate ? ConstBuffer(c) : ConstBuffer{},
                        .bias = bias,
                        .d = c,
                        .batch = batch,
                        .m = m,
                        .n = n,
                        .k = k,
                        .lda = lda,
                        .ldb = ldb,
                        .ldc = ldc,
                        .ldd = ldc,
                        .stride_a = stride_a,
                        .stride_b = stride_b,
                        .stride_c = stride_c,
                        .stride_d = stride_c,
                        .trans_a = trans_a,
                        .trans_b = trans_b,
                        .alpha = alpha,
                        .beta = 1.0};
  multiply("matmul", product, sgm::cuda(context));
}

}  // namespace sgm
