#pragma once
// Adaptive integration of ODEs whose state is a batch of images in double precision.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "sgm/sampling/score_fn.h"
#include "sgm/sde/sde.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

/// dy/dt of a batch y [M, ...] (f64), one time per image; the result is like y. Images that have arrived are
/// left out of the batch: times[m].image says which ones are there.
using DriftFn = std::function<Tensor(const Tensor& y, std::span<const ImageTime> times)>;

struct ODEOptions {
  double rtol = 1e-5;
  double atol = 1e-5;
  /// One step size for the batch, chosen by the error of all images together, as the reference does.
  /// Otherwise every image has its own, and does not depend on its batch.
  bool shared_steps = false;
  /// Steps tried for one image before giving up.
  std::int64_t max_attempts = 100'000;
  /// Told the fraction of the way that the last image has come, in [0, 1]; false stops the integration.
  std::function<bool(double fraction)> progress = {};
};

struct ODESolution {
  Tensor y;                                // [N, ...] f64
  std::vector<std::int64_t> nfe;           // evaluations of the drift, per image
  std::vector<std::vector<double>> times;  // per image: t0 and the ends of its accepted steps
  bool complete = true;  // false when progress() stopped it: images stand where they had come
};

/// Integrates dy/dt = drift from t0 to t1 (either direction) with the Dormand-Prince 5(4) pair and the step
/// control of Hairer, Noersett, Wanner (II.4) in SciPy's variant: error norm |e| = rms(e / (atol + rtol
/// max(|y|, |y_new|))), factor 0.9 |e|^(-1/5) between 0.2 and 10. Costs 2 + 6 attempts evaluations. Throws
/// Error when y0 is not f64, when the drift is not finite at t0, or when steps become too small (as they do
/// where it ceases to be finite) or too many.
ODESolution integrate(const DriftFn& drift, const Tensor& y0, double t0, double t1,
                      const ODEOptions& options = {});

/// The probability-flow ODE dx/dt = f(t) x - g(t)^2 score / 2 (eq. 13); the score sees x rounded to f32.
/// `sde` and `score` must outlive it.
DriftFn probability_flow(const SDE& sde, const ScoreFn& score);

}  // namespace sgm
