#pragma once
// What the vendor libraries leave to do around convolutions on GPUs.

#include "kernels/conv.h"

namespace sgm {

class CudaContext;

/// The whole of a Conv2d with one input whose x and weight are bf16 and whose y (and residual) is f32, in one
/// launch: meant for the last convolution, whose k is small.
void convolve_directly(const Conv2d& op, CudaContext& device);

/// A factor times a bias in the type that a library wants: the bias itself where that is the same, else a
/// scratch copy, made by one small launch.
class ReadyBias {
 public:
  /// bias [n], f32 or bf16; may be absent.
  ReadyBias(ConstBuffer bias, std::int64_t n, double factor, DType wanted, CudaContext& device);
  ~ReadyBias();
  ReadyBias(const ReadyBias&) = delete;
  ReadyBias& operator=(const ReadyBias&) = delete;

  ConstBuffer buffer() const { return ready_; }

 private:
  CudaContext& device_;
  std::size_t bytes_ = 0;
  ConstBuffer ready_;
};

/// y[r, :] += scale (bias + residual[r, :]); rows of `cols` elements lie `ld` apart in y, `cols` in residual.
struct EpilogueTerms {
  ConstBuffer bias;      // [cols], f32 or bf16; optional
  ConstBuffer residual;  // [rows, cols], of y's type; optional
  Buffer y;              // [rows, cols]
  std::int64_t rows, cols, ld;
  double scale;
};
void add_epilogue(const EpilogueTerms& terms, CudaContext& device);

}  // namespace sgm
