#include "sgm/tensor/replace.h"

#include "kernels/replace.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

void check_batches(const Tensor& x, const Tensor& from, const char* op) {
  check(x.defined() && x.shape().rank() >= 2 && x.dtype() == DType::f32, op,
        ": expected an f32 batch [N, ...], got ", x.dtype(), ' ', x.shape());
  check(from.defined() && from.shape() == x.shape() && from.dtype() == DType::f32, op, ": expected f32 ",
        x.shape(), ", got ", from.dtype(), ' ', from.shape());
}

}  // namespace

Tensor replace_where(const Tensor& mask, const Tensor& x, const Tensor& from) {
  check_batches(x, from, "replace_where");
  const std::int64_t n = x.shape()[0], per_image = with_batch(x.shape(), 1).numel();
  check(mask.defined() && mask.numel() == per_image && mask.dtype() == DType::f32,
        "replace_where: mask must be f32 with the ", per_image, " elements of an image, got ", mask.dtype(),
        ' ', mask.shape());
  Tensor y = Tensor::empty(x.context(), x.shape());
  run(ReplaceWhere{mask.data<float>(), x.data<float>(), from.data<float>(), y.data<float>(), n, per_image},
      x.context());
  return y;
}

Tensor replace_channel_mean(const Tensor& x, const Tensor& from) {
  check_batches(x, from, "replace_channel_mean");
  const std::int64_t channels = x.shape()[x.shape().rank() - 1];
  Tensor y = Tensor::empty(x.context(), x.shape());
  run(ReplaceChannelMean{x.data<float>(), from.data<float>(), y.data<float>(),
                         channels > 0 ? x.numel() / channels : 0, channels},
      x.context());
  return y;
}

}  // namespace sgm
