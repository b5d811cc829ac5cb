#pragma once
// Runge-Kutta integration of ODEs whose state is a batch of images in double precision.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/sampling/score_fn.h"
#include "sgm/sde/sde.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

/// dy/dt of a batch y [M, ...] (f64), one time per image; the result is like y. Images that have arrived are
/// left out of the batch: times[m].image says which ones are there.
using DriftFn = std::function<Tensor(const Tensor& y, std::span<const ImageTime> times)>;

/// The same, with the rate of one number per image that changes along the path and does not act back on it.
struct Rates {
  Tensor y;
  std::vector<double> along;  // one for each image in the batch
};
using RatesFn = std::function<Rates(const Tensor& y, std::span<const ImageTime> times)>;

struct ODEOptions {
  /// rk45 (Dormand-Prince) and rk23 (Bogacki-Shampine) choose their steps; heun, rk4 and euler need
  /// fixed_steps.
  std::string solver = "rk45";
  /// So many equal steps, whatever the error; 0: steps that keep to the tolerances.
  std::int64_t fixed_steps = 0;
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
  std::vector<double> along;               // per image: the number along the path, from 0
  std::vector<std::int64_t> nfe;           // evaluations of the drift, per image
  std::vector<std::vector<double>> times;  // per image: t0 and the ends of its accepted steps
  bool complete = true;  // false when progress() stopped it: images stand where they had come
};

/// Integrates dy/dt = drift from t0 to t1 (either direction). Adaptive solvers have the step control of
/// Hairer, Noersett, Wanner (II.4) in SciPy's variant: error norm |e| = rms(e / (atol + rtol max(|y|,
/// |y_new|))), factor 0.9 |e|^(-1/p) between 0.2 and 10, p = 5 for rk45, 3 for rk23. They cost 2 + p'
/// attempts evaluations, p' = 6 and 3; fixed steps cost 6, 3, 2 (heun), 4 (rk4) or 1 (euler) each. Throws
/// Error when y0 is not f64, when the drift is not finite at t0, when steps become too small (as they do
/// where it ceases to be finite) or too many, and when fixed steps end where the state is not finite.
ODESolution integrate(const DriftFn& drift, const Tensor& y0, double t0, double t1,
                      const ODEOptions& options = {});
/// The same with a number along the path, whose error counts like that of one more element.
ODESolution integrate_along(const RatesFn& rates, const Tensor& y0, double t0, double t1,
                            const ODEOptions& options = {});

/// Known values of ODEOptions::solver.
std::vector<std::string> solver_names();
/// What [sampling] says of solver, steps (of solvers without step control; 0: the SDE's N) and tolerances.
/// Throws Error for an unknown solver.
ODEOptions ode_options(const SDE& sde, const SamplingConfig& config);

/// How the probability-flow ODE is followed between data and noise.
struct FlowOptions {
  double eps = 1e-5;  // time at which data are taken to stand
  ODEOptions ode = {};
};

/// The probability-flow ODE dx/dt = f(t) x - g(t)^2 score / 2 (eq. 13); the score sees x rounded to f32.
/// `sde` and `score` must outlive it.
DriftFn probability_flow(const SDE& sde, const ScoreFn& score);

/// Its parts: the factors of x and of the score for every image, and the drift from a score at hand.
struct FlowCoefficients {
  std::vector<double> of_x, of_score;
};
FlowCoefficients flow_coefficients(const SDE& sde, std::span<const ImageTime> times);
Tensor flow_drift(const FlowCoefficients& flow, const Tensor& y, const Tensor& score);

}  // namespace sgm
