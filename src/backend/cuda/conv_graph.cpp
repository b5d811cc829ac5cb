#include "backend/cuda/conv_graph.h"

#include <bit>
#include <sstream>

namespace sgm::cudnn {
namespace {

cudnnDataType_t data_type(DType dtype) {
  return dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/// An operand [n, h, w, c] in that memory order; cuDNN lists sizes as n, c, h, w.
Descriptor tensor(std::int64_t id, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c, DType type,
                  const std::string& what) {
  const std::vector<std::int64_t> sizes = {n, c, h, w}, strides = {h * w * c, 1, w * c, c};
  Descriptor descriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, what);
  descriptor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, data_type(type))
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, ConvGraph::kAlignment)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, sizes)
      .set(CUDNN_ATTR_TENSOR_STRIDES, strides);
  return descriptor;
}

Descriptor geometry(const ConvShape& s, const std::string& what) {
  const std::vector<std::int64_t> begin(2, s.pad_begin), end(2, s.pad_end), strides(2, s.stride),
      dilations(2, s.dilation);
  Descriptor descriptor(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, what);
  descriptor.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, std::int64_t{2})
      .set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION)
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, begin)
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, end)
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, strides)
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, dilations);
  descriptor.finalize();
  return descriptor;
}

/// The attributes of one kind of convolution.
struct KindAttributes {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t geometry, alpha, beta, x, w, y;
};

const KindAttributes& attributes_of(ConvGraph::Kind kind) {
  static constexpr KindAttributes kAttributes[] = {
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}};
  return kAttributes[static_cast<std::size_t>(kind)];
}

/// y = alpha (a + b).
Descriptor addition(const Descriptor& a, const Descriptor& b, const Descriptor& y, double alpha,
                    const std::string& what) {
  Descriptor add(CUDNN_BACKEND_POINTWISE_DESCRIPTOR, what);
  add.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_POINTWISE_ADD)
      .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT)
      .finalize();
  Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, what);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, add)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, static_cast<float>(alpha))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, static_cast<float>(alpha))
      .finalize();
  return operation;
}

}  // namespace

ConvGraph::Key ConvGraph::key() const {
  return {static_cast<std::int64_t>(kind),
          static_cast<std::int64_t>(type),
          shape.n,
          shape.h,
          shape.w,
          shape.c,
          shape.k,
          shape.r,
          shape.s,
          shape.oh,
          shape.ow,
          shape.stride,
          shape.dilation,
          shape.pad_begin,
          shape.pad_end,
          bias,
          residual,
          tf32,
          std::bit_cast<std::int64_t>(scale)};
}

std::string ConvGraph::text() const {
  static constexpr const char* kKinds[] = {"forward", "grad_input", "grad_weight"};
  std::ostringstream text;
  text.precision(17);
  text << kKinds[static_cast<std::size_t>(kind)] << '/' << type << (tf32 ? "+tf32" : "") << "/x" << shape.n
       << 'x' << shape.h << 'x' << shape.w << 'x' << shape.c << "/w" << shape.k << 'x' << shape.r << 'x'
       << shape.s << "/stride" << shape.stride << "/pad" << shape.pad_begin << ',' << shape.pad_end
       << (residual ? "/residual" : "") << (bias ? "/bias" : "");
  if (shape.dilation != 1) text << "/dilation" << shape.dilation;
  if (scale != 1.0) text << "/scale" << scale;
  return text.str();
}

Descriptor ConvGraph::describe(const Target& target) const {
  check(!bias || residual || scale == 1.0, "cudnn: a bias alone cannot be scaled");
  check(!residual || bias, "cudnn: a residual goes with a bias");
  const std::string what = text();
  const ConvShape& s = shape;
  const auto image = [&](std::int64_t id, DType dtype, bool is_virtual) {
    Descriptor t = tensor(id, s.n, s.oh, s.ow, s.k, dtype, what);
    if (is_virtual) t.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
    t.finalize();
    return t;
  };
  const bool fused = bias || residual;
  Descriptor x = tensor(kInput, s.n, s.h, s.w, s.c, type, what),
             w = tensor(kWeight, s.k, s.r, s.s, s.c, type, what);
  x.finalize(), w.finalize();
  const Descriptor y = image(kOutput, type, false);
  constexpr std::int64_t kConvolved = 6, kSummed = 7;  // values between operations stay in f32
  const Descriptor convolved = image(kConvolved, DType::f32, true), summed = image(kSummed, DType::f32, true);

  std::vector<Descriptor> operations;
  const KindAttributes& a = attributes_of(kind);
  operations.emplace_back(a.type, what)
      .set(a.geometry, geometry(s, what))
      .set(a.alpha, fused ? 1.0f : static_cast<float>(scale))
      .set(a.beta, 0.0f)
      .set(a.x, x)
      .set(a.w, w)
      .set(a.y, fused ? convolved : y)
      .finalize();
  if (residual) operations.push_back(addition(convolved, image(kResidual, type, false), summed, scale, what));
  if (bias) {
    Descriptor b = tensor(kBias, 1, 1, 1, s.k, type, what);
    b.finalize();
    operations.push_back(addition(residual ? summed : convolved, b, y, 1.0, what));
  }

  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, what);
  if (target.handle()) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, target.handle());
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations).finalize();
  return graph;
}

bool ConvGraph::accepts(const EngineNotes& notes) const {
  if (notes.nondeterministic || notes.reduced_reduction || notes.winograd || notes.down_converts)
    return false;
  // Tensor cores take f32 operands as TF32.
  return type != DType::f32 || tf32 || !notes.tensor_core;
}

std::size_t ConvGraph::most_workspace() const {
  // Engines without tensor cores convert f32 operands to other layouts first.
  return std::size_t{type == DType::f32 ? 256u : 64u} << 20;
}

}  // namespace sgm::cudnn
