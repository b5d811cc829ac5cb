#include "kernels/conv.h"

#include <bit>
#include <cstring>
#include <functional>
#include <sstream>
#include <string>

#include "backend/cpu/batched_product.h"
#include "backend/cpu/cpu_context.h"
#include "backend/cpu/exact.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/onednn_compat.h"
#include "backend/cpu/unfold_conv.h"
#include "backend/cpu/widened.h"
#include "backend/cpu/winograd.h"
#include "backend/scratch.h"

namespace sgm {
namespace {

using onednn::Desc;
using onednn::Dims;
using Type = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;
using Args = std::unordered_map<int, dnnl::memory>;

OneDnn& onednn_of(Context& context) { return static_cast<CpuContext&>(context).onednn(); }

Type type_of(DType dtype) { return dtype == DType::bf16 ? Type::bf16 : Type::f32; }

/// Wraps the library's exceptions: they name neither the op nor the remedy.
void guarded(const char* op, const ConvShape& s, DType dtype, const std::function<void()>& body) {
  try {
    body();
  } catch (const dnnl::error& error) {
    fail(op, ": oneDNN ", onednn_version(), " refused [", s.n, ", ", s.h, ", ", s.w, ", ", s.c, "] -> ", s.k,
         " channels in ", dtype, ": ", error.what());
  }
}

Desc output_desc(const ConvShape& s, DType dtype) {
  return {{s.n, s.k, s.oh, s.ow}, type_of(dtype), Tag::nhwc};
}

/// Descriptors of a convolution; weights are left to the library ("any").
struct Descs {
  Desc x, w, b, y;
  onednn::Geometry geometry;

  Descs(const ConvShape& s, DType x_type, DType w_type, DType y_type)
      : x({s.n, s.c, s.h, s.w}, type_of(x_type), Tag::nhwc),
        w({s.k, s.c, s.r, s.s}, type_of(w_type), Tag::any),
        b({s.k}, Type::f32, Tag::a),
        y(output_desc(s, y_type)),
        geometry{{s.stride, s.stride},
                 {s.dilation - 1, s.dilation - 1},
                 {s.pad_begin, s.pad_begin},
                 {s.pad_end, s.pad_end}} {}
};

/// The weights of one input inside [k, r, s, row].
Desc plain_weights(const ConvShape& s, std::int64_t row, DType dtype = DType::f32) {
  return {{s.k, s.c, s.r, s.s}, type_of(dtype), Dims{s.r * s.s * row, 1, s.s * row, row}};
}

/// One input of a convolution of two: its share of the channels, and where its weights begin.
struct Part {
  ConvShape shape;
  std::int64_t first;
};

Part first_part(const ConvShape& s) {
  Part part{s, 0};
  part.shape.c -= s.c2, part.shape.c2 = 0;
  return part;
}

Part second_part(const ConvShape& s) {
  Part part{s, s.c - s.c2};
  part.shape.c = s.c2, part.shape.c2 = 0;
  return part;
}

/// The weights of a part: from its first channel on.
template <class B>
B weights_from(const B& weights, const Part& part) {
  return {weights.template as<char>() + static_cast<std::size_t>(part.first) * size_of(weights.dtype),
          weights.dtype};
}

OneDnn::Key key_of(int op, const ConvShape& s, std::initializer_list<std::int64_t> rest) {
  OneDnn::Key key = {op,  s.n,  s.h,  s.w,      s.c,        s.k,         s.r,
                     s.s, s.oh, s.ow, s.stride, s.dilation, s.pad_begin, s.pad_end};
  key.insert(key.end(), rest);
  return key;
}

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

/// A primitive with the packed-weights layout it asked for.
template <class Primitive>
struct Plan : OneDnn::Entry {
  typename Primitive::primitive_desc desc;
  Primitive primitive;
  explicit Plan(typename Primitive::primitive_desc d) : desc(std::move(d)), primitive(desc) {}
};

std::string text_of(const ConvShape& s) {
  std::ostringstream text;
  text << '[' << s.n << ", " << s.h << ", " << s.w << ", " << s.c << "] -> [" << s.oh << ", " << s.ow << ", "
       << s.k << "], " << s.r << 'x' << s.s;
  if (s.stride != 1) text << ", stride " << s.stride;
  if (s.dilation != 1) text << ", dilation " << s.dilation;
  return text.str();
}

std::string text_of(const Matmul& op) {
  std::ostringstream text;
  text << op.batch << " x [" << op.m << ", " << op.k << "] x [" << op.k << ", " << op.n << ']';
  return text.str();
}

/// Tells a profiler what oneDNN does, and whether its weights are packed anew for every call.
template <class P, class Product>
void explain(const Plan<P>& plan, Context& context, const Product& product, const char* weights) {
  context.explain([&] { return text_of(product) + ": oneDNN " + plan.desc.impl_info_str() + weights; });
}

/// Runs a plan with a scratchpad from the context's allocator.
template <class P>
void execute(const Plan<P>& plan, Context& context, Args args) {
  OneDnn& dnn = onednn_of(context);
  const Scratch pad(context, plan.desc.scratchpad_desc().get_size());
  if (dnn.is_dry()) return;
  args.insert({DNNL_ARG_SCRATCHPAD, {plan.desc.scratchpad_desc(), dnn.engine(), pad.data()}});
  plan.primitive.execute(dnn.stream(), args);
  dnn.stream().wait();
}

/// Without memory on a dry device: the library writes zeros around what it blocks.
dnnl::memory memory_of(const Desc& desc, OneDnn& dnn, const void* data) {
  return {desc, dnn.engine(), dnn.is_dry() ? DNNL_MEMORY_NONE : const_cast<void*>(data)};
}

/// Reorders between [k, r, s, c] f32 and the layout a primitive wants.
void repack(OneDnn& dnn, dnnl::memory from, dnnl::memory to) {
  if (dnn.is_dry()) return;
  dnnl::reorder(from, to).execute(dnn.stream(), from, to);
  dnn.stream().wait();
}

/// oneDNN 2.6 adds a second operand to wrong pixels of small images where filters are dilated; what the
/// output holds already it adds as it should.
bool adds_in_place(const Conv2d& op) { return op.residual && op.shape.dilation > 1; }

const Plan<dnnl::convolution_forward>& forward_plan(OneDnn& dnn, const Conv2d& op) {
  const bool bias = bool(op.bias);
  const int residual = op.residual ? 1 + int(op.residual.dtype) : 0;
  const auto scale_bits = static_cast<std::int64_t>(std::bit_cast<std::uint64_t>(op.scale));
  const auto key = key_of(0, op.shape, {int(op.x.dtype), int(op.y.dtype), residual, bias, scale_bits});
  return dnn.cached<Plan<dnnl::convolution_forward>>(key, [&] {
    const Descs d(op.shape, op.x.dtype, op.x.dtype, op.y.dtype);
    dnnl::post_ops ops;
    if (adds_in_place(op))
      ops.append_sum(1.0f);
    else if (residual)
      ops.append_binary(dnnl::algorithm::binary_add, output_desc(op.shape, op.residual.dtype));
    if (op.scale != 1.0) onednn::append_scale(ops, static_cast<float>(op.scale));
    dnnl::primitive_attr attr = user_scratchpad();
    attr.set_post_ops(ops);
    return Plan<dnnl::convolution_forward>(
        onednn::forward_desc(dnn.engine(), d.x, d.w, bias ? d.b : Desc(), d.y, d.geometry, attr));
  });
}

/// The forward description that oneDNN wants beside a backward one.
dnnl::convolution_forward::primitive_desc hint_for(OneDnn& dnn, const Descs& d) {
  return onednn::forward_desc(dnn.engine(), d.x, d.w, Desc(), d.y, d.geometry, {});
}

/// Of one input, whose weights lie in rows of `row` channels.
void forward(const Conv2d& op, std::int64_t row, Context& context) {
  OneDnn& dnn = onednn_of(context);
  const auto& plan = forward_plan(dnn, op);
  const Desc packed_desc = plan.desc.weights_desc(), plain = plain_weights(op.shape, row);
  explain(plan, context, op.shape, op.weight_version ? ", weights kept packed" : ", weights packed first");

  Args args = {{DNNL_ARG_SRC, memory_of(plan.desc.src_desc(), dnn, op.x.data)},
               {DNNL_ARG_DST, memory_of(plan.desc.dst_desc(), dnn, op.y.data)}};
  if (op.bias) args.insert({DNNL_ARG_BIAS, memory_of(plan.desc.bias_desc(), dnn, op.bias.data)});
  if (adds_in_place(op)) {
    if (op.y.data != op.residual.data && !context.is_dry())
      std::memcpy(op.y.data, op.residual.data, plan.desc.dst_desc().get_size());
  } else if (op.residual) {
    args.insert({DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                 memory_of(output_desc(op.shape, op.residual.dtype), dnn, op.residual.data)});
  }

  if (op.weight_version) {
    OneDnn::Packed& packed =
        dnn.packed(op.weight.data, {op.shape.k, op.shape.r, op.shape.s, op.shape.c, int(op.x.dtype)});
    if (packed.version != op.weight_version || packed.memory.get_desc() != packed_desc) {
      packed.storage = std::make_unique<Scratch>(context, packed_desc.get_size());
      packed.memory = memory_of(packed_desc, dnn, packed.storage->data());
      repack(dnn, memory_of(plain, dnn, op.weight.data), packed.memory);
      packed.version = op.weight_version;
    }
    args.insert({DNNL_ARG_WEIGHTS, packed.memory});
    return execute(plan, context, std::move(args));
  }
  const Scratch weights(context, packed_desc.get_size());
  const dnnl::memory memory = memory_of(packed_desc, dnn, weights.data());
  repack(dnn, memory_of(plain, dnn, op.weight.data), memory);
  args.insert({DNNL_ARG_WEIGHTS, memory});
  execute(plan, context, std::move(args));
}

void forward(const Conv2d& op, Context& context) {
  const std::int64_t row = op.shape.c;
  if (!op.shape.c2) return forward(op, row, context);
  // The second sum begins with the first, which is rounded to nothing less than f32.
  const ConvShape& s = op.shape;
  const Scratch sum(context, static_cast<std::size_t>(s.n * s.oh * s.ow * s.k) * sizeof(float));
  const Part one = first_part(s), two = second_part(s);
  Conv2d first = op, second = op;
  first.x2 = second.x2 = second.bias = {};
  first.shape = one.shape, first.y = {sum.data(), DType::f32}, first.scale = 1.0;
  second.x = op.x2, second.weight = weights_from(op.weight, two), second.shape = two.shape;
  second.residual = {sum.data(), DType::f32};
  forward(first, row, context);
  forward(second, row, context);
}

/// factor times the weights of one input, dense, from rows of `row` channels.
void scale_weights(const ConvShape& s, const float* weights, std::int64_t row, double factor, float* scaled) {
  const auto f = static_cast<float>(factor);
  const std::int64_t rows = s.k * s.r * s.s;
#pragma omp parallel for schedule(static) if (rows * s.c > 65536)
  for (std::int64_t i = 0; i < rows; ++i)
#pragma omp simd
    for (std::int64_t c = 0; c < s.c; ++c) scaled[i * s.c + c] = f * weights[i * row + c];
}

/// Of one input, whose weights lie in rows of `row` channels.
void backward_data(const Conv2dGradInput& op, std::int64_t row, Context& context) {
  if (op.scale != 1.0) {
    const ConvShape& s = op.shape;
    const Scratch scaled(context, static_cast<std::size_t>(s.k * s.r * s.s * s.c) * sizeof(float));
    if (!context.is_dry()) scale_weights(s, op.weight.as<float>(), row, op.scale, scaled.as<float>());
    Conv2dGradInput unscaled = op;
    unscaled.weight = {scaled.data(), DType::f32}, unscaled.scale = 1.0;
    return backward_data(unscaled, s.c, context);
  }
  OneDnn& dnn = onednn_of(context);
  using P = dnnl::convolution_backward_data;
  const auto& plan = dnn.cached<Plan<P>>(key_of(1, op.shape, {int(op.dy.dtype), int(op.dx.dtype)}), [&] {
    const Descs d(op.shape, op.dx.dtype, op.dy.dtype, op.dy.dtype);
    return Plan<P>(onednn::backward_data_desc(dnn.engine(), d.x, d.w, d.y, d.geometry, hint_for(dnn, d),
                                              user_scratchpad()));
  });
  explain(plan, context, op.shape, ", weights packed first");
  const Scratch weights(context, plan.desc.weights_desc().get_size());
  const dnnl::memory packed = memory_of(plan.desc.weights_desc(), dnn, weights.data());
  repack(dnn, memory_of(plain_weights(op.shape, row), dnn, op.weight.data), packed);
  execute(plan, context,
          {{DNNL_ARG_DIFF_DST, memory_of(plan.desc.diff_dst_desc(), dnn, op.dy.data)},
           {DNNL_ARG_WEIGHTS, packed},
           {DNNL_ARG_DIFF_SRC, memory_of(plan.desc.diff_src_desc(), dnn, op.dx.data)}});
}

void backward_data(const Conv2dGradInput& op, Context& context) {
  const std::int64_t row = op.shape.c;
  if (!op.shape.c2) return backward_data(op, row, context);
  const Part one = first_part(op.shape), two = second_part(op.shape);
  Conv2dGradInput first = op, second = op;
  first.shape = one.shape;
  second.shape = two.shape, second.weight = weights_from(op.weight, two), second.dx = op.dx2;
  backward_data(first, row, context);
  backward_data(second, row, context);
}

void multiply_in_place(float* values, std::int64_t n, float factor) {
#pragma omp parallel for simd schedule(static) if (n > 65536)
  for (std::int64_t i = 0; i < n; ++i) values[i] *= factor;
}

/// Of one input, the gradient of whose weights goes into rows of `row` channels.
void backward_weights(const Conv2dGradWeight& op, std::int64_t row, Context& context) {
  OneDnn& dnn = onednn_of(context);
  using P = dnnl::convolution_backward_weights;
  const bool bias = bool(op.dbias);
  const auto& plan = dnn.cached<Plan<P>>(key_of(2, op.shape, {int(op.x.dtype), int(op.dy.dtype), bias}), [&] {
    Descs d(op.shape, op.x.dtype, op.x.dtype, op.dy.dtype);
    const auto hint = hint_for(dnn, d);
    const Desc dw({op.shape.k, op.shape.c, op.shape.r, op.shape.s}, Type::f32, Tag::any);
    return Plan<P>(onednn::backward_weights_desc(dnn.engine(), d.x, dw, bias ? d.b : Desc(), d.y, d.geometry,
                                                 hint, user_scratchpad()));
  });
  explain(plan, context, op.shape, ", gradient unpacked after");
  const Scratch gradient(context, plan.desc.diff_weights_desc().get_size());
  const dnnl::memory packed = memory_of(plan.desc.diff_weights_desc(), dnn, gradient.data());
  Args args = {{DNNL_ARG_SRC, memory_of(plan.desc.src_desc(), dnn, op.x.data)},
               {DNNL_ARG_DIFF_DST, memory_of(plan.desc.diff_dst_desc(), dnn, op.dy.data)},
               {DNNL_ARG_DIFF_WEIGHTS, packed}};
  if (bias) args.insert({DNNL_ARG_DIFF_BIAS, memory_of(plan.desc.diff_bias_desc(), dnn, op.dbias.data)});
  execute(plan, context, std::move(args));
  if (op.scale != 1.0 && !context.is_dry()) {
    const auto factor = static_cast<float>(op.scale);
    const auto size = static_cast<std::int64_t>(plan.desc.diff_weights_desc().get_size() / sizeof(float));
    multiply_in_place(gradient.as<float>(), size, factor);
    if (bias) multiply_in_place(op.dbias.as<float>(), op.shape.k, factor);
  }
  repack(dnn, packed, memory_of(plain_weights(op.shape, row, op.dweight.dtype), dnn, op.dweight.data));
}

void backward_weights(const Conv2dGradWeight& op, Context& context) {
  const std::int64_t row = op.shape.c;
  if (!op.shape.c2) return backward_weights(op, row, context);
  const Part one = first_part(op.shape), two = second_part(op.shape);
  Conv2dGradWeight first = op, second = op;
  first.shape = one.shape;
  second.shape = two.shape, second.x = op.x2, second.dweight = weights_from(op.dweight, two);
  second.dbias = {};
  backward_weights(first, row, context);
  backward_weights(second, row, context);
}

void multiply(const Matmul& op, Context& context) {
  OneDnn& dnn = onednn_of(context);
  const OneDnn::Key key = {3,
                           op.batch,
                           op.m,
                           op.n,
                           op.k,
                           op.lda,
                           op.ldb,
                           op.ldc,
                           op.stride_a,
                           op.stride_b,
                           op.stride_c,
                           op.trans_a,
                           op.trans_b,
                           bool(op.bias),
                           int(op.a.dtype),
                           int(op.b.dtype),
                           int(op.c.dtype),
                           op.accumulate,
                           static_cast<std::int64_t>(std::bit_cast<std::uint64_t>(op.alpha))};
  const Desc bias({1, 1, op.n}, Type::f32, Dims{op.n, op.n, 1});
  const bool scaled = op.alpha != 1.0;  // then the bias, which is not, comes after the factor
  const auto& plan = dnn.cached<Plan<dnnl::matmul>>(key, [&] {
    dnnl::post_ops ops;
    if (scaled) onednn::append_scale(ops, static_cast<float>(op.alpha));
    if (scaled && op.bias) ops.append_binary(dnnl::algorithm::binary_add, bias);
    if (op.accumulate) ops.append_sum(1.0f);
    dnnl::primitive_attr attr = user_scratchpad();
    attr.set_post_ops(ops);
    const Dims sa = op.trans_a ? Dims{op.stride_a, 1, op.lda} : Dims{op.stride_a, op.lda, 1};
    const Dims sb = op.trans_b ? Dims{op.stride_b, 1, op.ldb} : Dims{op.stride_b, op.ldb, 1};
    const Desc a({op.batch, op.m, op.k}, type_of(op.a.dtype), sa),
        b({op.batch, op.k, op.n}, type_of(op.b.dtype), sb);
    const Desc c({op.batch, op.m, op.n}, type_of(op.c.dtype), Dims{op.stride_c, op.ldc, 1});
    return Plan<dnnl::matmul>(
        onednn::matmul_desc(dnn.engine(), a, b, op.bias && !scaled ? bias : Desc(), c, attr));
  });
  explain(plan, context, op, "");
  Args args = {{DNNL_ARG_SRC, memory_of(plan.desc.src_desc(), dnn, op.a.data)},
               {DNNL_ARG_WEIGHTS, memory_of(plan.desc.weights_desc(), dnn, op.b.data)},
               {DNNL_ARG_DST, memory_of(plan.desc.dst_desc(), dnn, op.c.data)}};
  if (op.bias)
    args.insert({scaled ? DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1 : DNNL_ARG_BIAS,
                 memory_of(bias, dnn, op.bias.data)});
  execute(plan, context, std::move(args));
}

/// Who convolves; tells a profiler so, but for the library, which speaks for itself.
enum class By { us_unfolded, us_in_tiles, us_widened, the_library };

By choose(const ConvShape& shape, DType dtype, Context& context) {
  if (dtype == DType::bf16 && onednn_multiplies_matrices()) return By::the_library;
  if (unfolded::suits(shape, dtype)) {
    context.explain([&] { return text_of(shape) + ": one product of rows of pixels"; });
    return By::us_unfolded;
  }
  if (!winograd::suits(shape, dtype)) return widened::suits(dtype) ? By::us_widened : By::the_library;
  context.explain([&] { return text_of(shape) + ": Winograd tiles, whose size repays the transforms"; });
  return By::us_in_tiles;
}

}  // namespace

void Conv2d::cpu(Context& context) const {
  if (x.dtype == DType::f64) return context.is_dry() ? void() : exact::convolve(*this);
  guarded("conv2d", shape, x.dtype, [&] {
    switch (choose(shape, x.dtype, context)) {
      case By::us_unfolded: return unfolded::convolve(*this, context);
      case By::us_in_tiles: return winograd::convolve(*this, context);
      case By::us_widened: return widened::convolve(*this, context);
      case By::the_library: return forward(*this, context);
    }
  });
}

void Conv2dGradInput::cpu(Context& context) const {
  if (dy.dtype == DType::f64) return context.is_dry() ? void() : exact::convolve_grad_input(*this);
  guarded("conv2d gradient", shape, dy.dtype, [&] {
    switch (choose(shape, dy.dtype, context)) {
      case By::us_unfolded: return unfolded::convolve_grad_input(*this, context);
      case By::us_in_tiles: return winograd::convolve_grad_input(*this, context);
      case By::us_widened: return widened::convolve_grad_input(*this, context);
      case By::the_library: return backward_data(*this, context);
    }
  });
}

void Conv2dGradWeight::cpu(Context& context) const {
  if (x.dtype == DType::f64) return context.is_dry() ? void() : exact::convolve_grad_weight(*this);
  guarded("conv2d gradient", shape, x.dtype, [&] {
    switch (choose(shape, x.dtype, context)) {
      case By::us_unfolded: return unfolded::convolve_grad_weight(*this, context);
      case By::us_in_tiles: return winograd::convolve_grad_weight(*this, context);
      case By::us_widened: return widened::convolve_grad_weight(*this, context);
      case By::the_library: return backward_weights(*this, context);
    }
  });
}

void Matmul::cpu(Context& context) const {
  if (a.dtype == DType::f64) return context.is_dry() ? void() : exact::multiply(*this);
  if (batched_product::suits(*this) && !onednn_multiplies_matrices()) {
    context.explain(
        [&] { return text_of(*this) + ": panel by panel, packed by the thread that multiplies"; });
    return batched_product::multiply(*this, context);
  }
  if (widened::suits(a.dtype)) return widened::multiply(*this, context);
  try {
    multiply(*this, context);
  } catch (const dnnl::error& error) {
    fail("matmul: oneDNN ", onednn_version(), " refused ", batch, " x [", m, ", ", k, "] x [", k, ", ", n,
         "] in ", a.dtype, ": ", error.what());
  }
}

}  // namespace sgm
