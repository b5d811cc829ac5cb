#pragma once
// A resampled norm's gradients where they are made one after the other.

#include "backend/scratch.h"
#include "kernels/group_norm.h"

namespace sgm {

/// execute(op) for two resamplings and a norm's gradient.
template <class Execute>
void resample_grad_in_steps(const GroupNormResampleGrad& op, Context& context, Execute&& execute) {
  const DType type = op.norm.x.dtype;
  const std::size_t bytes = static_cast<std::size_t>(op.norm.n * op.norm.hw * op.norm.c) * size_of(type);
  const Scratch dy(context, bytes), dinput(context, bytes);
  const auto resampled = [&](const ConstBuffer& from, const Scratch& to) {
    UpFirDn back = op.back;
    back.x = from, back.y = {to.data(), type};
    execute(back);
    return back.y;
  };
  GroupNormGrad grad = op.norm;
  grad.dy = resampled(op.dy, dy);
  execute(grad.with({resampled(op.dinput, dinput), op.dinput_scale}));
}

}  // namespace sgm
