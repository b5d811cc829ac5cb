#pragma once
// Sampling where a part of every image is known: inpainting and colorization by imputation (Appendix I.2).
// The unconditional sampler runs on whole images, and whenever their score is asked for, their known part is
// what is known, under noise of that time.

#include <memory>
#include <span>
#include <vector>

#include "sgm/sampling/predictor_corrector.h"
#include "sgm/sde/sde.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

/// What is imposed on a batch when a run begins and after every update. As with updates, all that depends on
/// the place on the grid comes from the device, so that it can be captured and replayed.
class Constraint {
 public:
  virtual ~Constraint() = default;
  /// All that impose() depends on besides the batch and the noise. `updated` is the time of the update that
  /// was made, `next` that of the one to come, at the end of a run the last time once more.
  virtual std::vector<double> numbers(const TimePoint& next, const TimePoint& updated) const = 0;
  /// The batch with which a run begins, made from a draw of the prior; numbers are those of (1, 1). Throws
  /// Error for batches that do not fit. Default: impose().
  virtual Tensor start(const Tensor& x, std::span<const Coefficient> numbers, const Noise& noise) const;
  /// x_mean is absent but in the last updates of a run that denoises; there it is what the run returns.
  virtual State impose(const State& state, std::span<const Coefficient> numbers,
                       const Noise& noise) const = 0;
};

struct ConstraintOptions {
  /// The noise is that of the chain's scales, which discretely trained networks know, not that of the SDE.
  bool discrete = false;
  /// The original implementation's formulas: the known part is clean at the start; after a predictor it has
  /// the noise of the time before; the denoised image keeps the last update's noise where it is not known;
  /// colorization starts without a red channel.
  bool reference_compat = false;
};

/// Keeps the elements of `data` (f32 [N, H, W, C], data space) where `mask` (f32, [H, W] or [H, W, C]) is 1;
/// it is 0 elsewhere. A denoised result holds them exactly. `sde` must outlive the constraint. Throws Error
/// for shapes that do not fit, other values in the mask, and masks of all elements or none.
std::shared_ptr<const Constraint> inpainting(const SDE& sde, const Tensor& data, const Tensor& mask,
                                             const ConstraintOptions& options = {});

/// Keeps the grey values of `data` (f32 [N, H, W, C >= 2], data space): the means over channels, which is one
/// coordinate of every pixel in an orthogonal basis of colours. Throws Error for images of one channel.
std::shared_ptr<const Constraint> colorization(const SDE& sde, const Tensor& data,
                                               const ConstraintOptions& options = {});

}  // namespace sgm
