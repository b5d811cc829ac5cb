#pragma once
// One row for every kernel op: it is called as the struct it is, on operands between canary bytes.

#include <vector>

#include "check.h"
#include "devices.h"

namespace sgm {

struct KernelRow {
  const char* name;
  /// Values against plain formulas in double; nothing written outside the outputs, nothing of them left
  /// unwritten, no input changed.
  void (*check)(Context& context, DType dtype);
  bool only_bf16_on_gpus = false;

  std::vector<DType> types(const Context& context) const {
    return only_bf16_on_gpus && !context.is_cpu() ? std::vector{DType::bf16} : storage_types(context);
  }
};

std::vector<KernelRow> attention_kernels();
std::vector<KernelRow> elementwise_kernels();
std::vector<KernelRow> conv_kernels();
std::vector<KernelRow> image_kernels();
std::vector<KernelRow> training_kernels();
std::vector<KernelRow> classifier_kernels();
std::vector<KernelRow> score_kernels();
std::vector<KernelRow> refine_kernels();

/// Of what accompanies activations of a type: parameters, statistics, gradients of weights.
inline DType parameter_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

/// A few roundings in the given type, or else in the accumulator.
inline Tolerance roundings(DType dtype, double count = 4.0) {
  return {count * unit_roundoff(dtype), 2.0 * count * unit_roundoff(dtype)};
}

inline std::vector<double> normals(std::int64_t n, std::uint32_t stream, DType dtype, double std = 1.0) {
  return rounded(random_values(n, stream, 0.0, std), dtype);
}

template <class F>
std::vector<double> map(const std::vector<double>& x, F&& f) {
  std::vector<double> y;
  for (std::size_t i = 0; i < x.size(); ++i) y.push_back(f(x[i], i));
  return y;
}

/// Channels from .. from + count - 1 of every row of c.
inline std::vector<double> columns(const std::vector<double>& rows, std::int64_t c, std::int64_t from,
                                   std::int64_t count) {
  std::vector<double> result;
  for (auto row = rows.begin(); row != rows.end(); row += c)
    result.insert(result.end(), row + from, row + from + count);
  return result;
}

}  // namespace sgm
