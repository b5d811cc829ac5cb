#pragma once
// The one place that knows how oneDNN 2.x and 3.x differ: 2.x builds an operation descriptor first, 3.x hands
// the same arguments straight to the primitive descriptor.

#include <oneapi/dnnl/dnnl.hpp>

namespace sgm::onednn {

using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;

/// Geometry of a convolution in oneDNN's terms: dilations count the pixels between two taps.
struct Geometry {
  Dims strides, dilations, pad_begin, pad_end;
};

inline dnnl::convolution_forward::primitive_desc forward_desc(const dnnl::engine& engine, const Desc& x,
                                                              const Desc& w, const Desc& b, const Desc& y,
                                                              const Geometry& g,
                                                              const dnnl::primitive_attr& attr) {
  constexpr auto kKind = dnnl::prop_kind::forward_training;
  constexpr auto kAlgorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kKind, kAlgorithm, x, w, b, y, g.strides, g.dilations, g.pad_begin, g.pad_end, attr};
#else
  return {{kKind, kAlgorithm, x, w, b, y, g.strides, g.dilations, g.pad_begin, g.pad_end}, attr, engine};
#endif
}

inline dnnl::convolution_backward_data::primitive_desc backward_data_desc(
    const dnnl::engine& engine, const Desc& x, const Desc& w, const Desc& y, const Geometry& g,
    const dnnl::convolution_forward::primitive_desc& hint, const dnnl::primitive_attr& attr) {
  constexpr auto kAlgorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kAlgorithm, x, w, y, g.strides, g.dilations, g.pad_begin, g.pad_end, hint, attr};
#else
  return {{kAlgorithm, x, w, y, g.strides, g.dilations, g.pad_begin, g.pad_end}, attr, engine, hint};
#endif
}

inline dnnl::convolution_backward_weights::primitive_desc backward_weights_desc(
    const dnnl::engine& engine, const Desc& x, const Desc& w, const Desc& b, const Desc& y, const Geometry& g,
    const dnnl::convolution_forward::primitive_desc& hint, const dnnl::primitive_attr& attr) {
  constexpr auto kAlgorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kAlgorithm, x, w, b, y, g.strides, g.dilations, g.pad_begin, g.pad_end, hint, attr};
#else
  return {{kAlgorithm, x, w, b, y, g.strides, g.dilations, g.pad_begin, g.pad_end}, attr, engine, hint};
#endif
}

inline dnnl::matmul::primitive_desc matmul_desc(const dnnl::engine& engine, const Desc& a, const Desc& b,
                                                const Desc& bias, const Desc& c,
                                                const dnnl::primitive_attr& attr) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, bias, c, attr};
#else
  return {{a, b, bias, c}, attr, engine};
#endif
}

/// Appends y = alpha x to the post-ops.
inline void append_scale(dnnl::post_ops& ops, float alpha) {
#if DNNL_VERSION_MAJOR >= 3
  ops.append_eltwise(dnnl::algorithm::eltwise_linear, alpha, 0.0f);
#else
  ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_linear, alpha, 0.0f);
#endif
}

}  // namespace sgm::onednn
