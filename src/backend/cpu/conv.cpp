#include "kernels/conv.h"

#include <functional>

#include "backend/cpu/cpu_context.h"
#include "backend/scratch.h"
#include "backend/cpu/exact.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/onednn_compat.h"
#include "backend/cpu/winograd.h"

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
         " channels in ", dtype, ": ", error.what(),
         dtype == DType::bf16 ? "; bf16 needs AVX-512: use --precision f32" : "");
  }
}

/// Descriptors of a convolution; weights are left to the library ("any").
struct Descs {
  Desc x, w, b, y;
  onednn::Geometry geometry;

  Descs(const ConvShape& s, DType x_type, DType w_type, DType y_type)
      : x({s.n, s.c, s.h, s.w}, type_of(x_type), Tag::nhwc),
        w({s.k, s.c, s.r, s.s}, type_of(w_type), Tag::any),
        b({s.k}, Type::f32, Tag::a),
        y({s.n, s.k, s.oh, s.ow}, type_of(y_type), Tag::nhwc),
        geometry{{s.stride, s.stride}, {s.pad_begin, s.pad_begin}, {s.pad_end, s.pad_end}} {}
};

Desc plain_weights(const ConvShape& s) { return {{s.k, s.c, s.r, s.s}, Type::f32, Tag::ohwi}; }

OneDnn::Key key_of(int op, const ConvShape& s, std::initializer_list<std::int64_t> rest) {
  OneDnn::Key key = {op, s.n, s.h, s.w, s.c, s.k, s.r, s.s, s.oh, s.ow, s.stride, s.pad_begin, s.pad_end};
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

/// Runs a plan with a scratchpad from the context's allocator.
template <class P>
void execute(const Plan<P>& plan, Context& context, Args args) {
  OneDnn& dnn = onednn_of(context);
  const Scratch pad(context, plan.desc.scratchpad_desc().get_size());
  args.insert({DNNL_ARG_SCRATCHPAD, {plan.desc.scratchpad_desc(), dnn.engine(), pad.data()}});
  plan.primitive.execute(dnn.stream(), args);
  dnn.stream().wait();
}

dnnl::memory memory_of(const Desc& desc, OneDnn& dnn, const void* data) {
  return {desc, dnn.engine(), const_cast<void*>(data)};
}

/// Reorders between [k, r, s, c] f32 and the layout a primitive wants.
void repack(OneDnn& dnn, dnnl::memory from, dnnl::memory to) {
  dnnl::reorder(from, to).execute(dnn.stream(), from, to);
  dnn.stream().wait();
}

const Plan<dnnl::convolution_forward>& forward_plan(OneDnn& dnn, const Conv2d& op) {
  const bool residual = bool(op.residual), bias = bool(op.bias);
  const auto scale_bits = static_cast<std::int64_t>(std::bit_cast<std::uint64_t>(op.scale));
  const auto key = key_of(0, op.shape, {int(op.x.dtype), int(op.y.dtype), residual, bias, scale_bits});
  return dnn.cached<Plan<dnnl::convolution_forward>>(key, [&] {
    const Descs d(op.shape, op.x.dtype, op.x.dtype, op.y.dtype);
    dnnl::post_ops ops;
    if (residual) ops.append_binary(dnnl::algorithm::binary_add, d.y);
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

void forward(const Conv2d& op, Context& context) {
  OneDnn& dnn = onednn_of(context);
  const auto& plan = forward_plan(dnn, op);
  const Desc packed_desc = plan.desc.weights_desc(), plain = plain_weights(op.shape);

  Args args = {{DNNL_ARG_SRC, memory_of(plan.desc.src_desc(), dnn, op.x.data)},
               {DNNL_ARG_DST, memory_of(plan.desc.dst_desc(), dnn, op.y.data)}};
  if (op.bias) args.insert({DNNL_ARG_BIAS, memory_of(plan.desc.bias_desc(), dnn, op.bias.data)});
  if (op.residual)
    args.insert({DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                 memory_of(plan.desc.dst_desc(), dnn, op.residual.data)});

  if (op.weight_version) {
    OneDnn::Packed& packed =
        dnn.packed(op.weight.data, {op.shape.k, op.shape.r, op.shape.s, op.shape.c, int(op.x.dtype)});
    if (packed.version != op.weight_version || packed.memory.get_desc() != packed_desc) {
      packed.memory = dnnl::memory(packed_desc, dnn.engine());
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

void backward_data(const Conv2dGradInput& op, Context& context) {
  OneDnn& dnn = onednn_of(context);
  using P = dnnl::convolution_backward_data;
  const auto& plan = dnn.cached<Plan<P>>(key_of(1, op.shape, {int(op.dy.dtype), int(op.dx.dtype)}), [&] {
    const Descs d(op.shape, op.dx.dtype, op.dy.dtype, op.dy.dtype);
    return Plan<P>(onednn::backward_data_desc(dnn.engine(), d.x, d.w, d.y, d.geometry, hint_for(dnn, d),
                                              user_scratchpad()));
  });
  const Scratch weights(context, plan.desc.weights_desc().get_size());
  const dnnl::memory packed = memory_of(plan.desc.weights_desc(), dnn, weights.data());
  repack(dnn, memory_of(plain_weights(op.shape), dnn, op.weight.data), packed);
  execute(plan, context,
          {{DNNL_ARG_DIFF_DST, memory_of(plan.desc.diff_dst_desc(), dnn, op.dy.data)},
           {DNNL_ARG_WEIGHTS, packed},
           {DNNL_ARG_DIFF_SRC, memory_of(plan.desc.diff_src_desc(), dnn, op.dx.data)}});
}

void backward_weights(const Conv2dGradWeight& op, Context& context) {
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
  const Scratch gradient(context, plan.desc.diff_weights_desc().get_size());
  const dnnl::memory packed = memory_of(plan.desc.diff_weights_desc(), dnn, gradient.data());
  Args args = {{DNNL_ARG_SRC, memory_of(plan.desc.src_desc(), dnn, op.x.data)},
               {DNNL_ARG_DIFF_DST, memory_of(plan.desc.diff_dst_desc(), dnn, op.dy.data)},
               {DNNL_ARG_DIFF_WEIGHTS, packed}};
  if (bias) args.insert({DNNL_ARG_DIFF_BIAS, memory_of(plan.desc.diff_bias_desc(), dnn, op.dbias.data)});
  execute(plan, context, std::move(args));
  repack(dnn, packed, memory_of(plain_weights(op.shape), dnn, op.dweight.data));
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
                           op.accumulate};
  const auto& plan = dnn.cached<Plan<dnnl::matmul>>(key, [&] {
    dnnl::post_ops ops;
    if (op.accumulate) ops.append_sum(1.0f);
    dnnl::primitive_attr attr = user_scratchpad();
    attr.set_post_ops(ops);
    const Dims sa = op.trans_a ? Dims{op.stride_a, 1, op.lda} : Dims{op.stride_a, op.lda, 1};
    const Dims sb = op.trans_b ? Dims{op.stride_b, 1, op.ldb} : Dims{op.stride_b, op.ldb, 1};
    const Desc a({op.batch, op.m, op.k}, type_of(op.a.dtype), sa),
        b({op.batch, op.k, op.n}, type_of(op.b.dtype), sb);
    const Desc bias({1, 1, op.n}, Type::f32, Dims{op.n, op.n, 1});
    const Desc c({op.batch, op.m, op.n}, type_of(op.c.dtype), Dims{op.stride_c, op.ldc, 1});
    return Plan<dnnl::matmul>(onednn::matmul_desc(dnn.engine(), a, b, op.bias ? bias : Desc(), c, attr));
  });
  Args args = {{DNNL_ARG_SRC, memory_of(plan.desc.src_desc(), dnn, op.a.data)},
               {DNNL_ARG_WEIGHTS, memory_of(plan.desc.weights_desc(), dnn, op.b.data)},
               {DNNL_ARG_DST, memory_of(plan.desc.dst_desc(), dnn, op.c.data)}};
  if (op.bias) args.insert({DNNL_ARG_BIAS, memory_of(plan.desc.bias_desc(), dnn, op.bias.data)});
  execute(plan, context, std::move(args));
}

}  // namespace

void Conv2d::cpu(Context& context) const {
  if (x.dtype == DType::f64) return exact::convolve(*this);
  guarded("conv2d", shape, x.dtype, [&] {
    winograd::suits(shape, x.dtype) ? winograd::convolve(*this, context) : forward(*this, context);
  });
}

void Conv2dGradInput::cpu(Context& context) const {
  if (dy.dtype == DType::f64) return exact::convolve_grad_input(*this);
  guarded("conv2d gradient", shape, dy.dtype, [&] {
    winograd::suits(shape, dy.dtype) ? winograd::convolve_grad_input(*this, context)
                                     : backward_data(*this, context);
  });
}

void Conv2dGradWeight::cpu(Context& context) const {
  if (x.dtype == DType::f64) return exact::convolve_grad_weight(*this);
  guarded("conv2d gradient", shape, x.dtype, [&] {
    winograd::suits(shape, x.dtype) ? winograd::convolve_grad_weight(*this, context)
                                    : backward_weights(*this, context);
  });
}

void Matmul::cpu(Context& context) const {
  if (a.dtype == DType::f64) return exact::multiply(*this);
  try {
    multiply(*this, context);
  } catch (const dnnl::error& error) {
    fail("matmul: oneDNN ", onednn_version(), " refused ", batch, " x [", m, ", ", k, "] x [", k, ", ", n,
         "] in ", a.dtype, ": ", error.what());
  }
}

}  // namespace sgm
