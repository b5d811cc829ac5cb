#pragma once
// Latent codes: the probability-flow ODE as an invertible map between data and noise.

#include <cstdint>
#include <vector>

#include "sgm/sampling/ode_solver.h"

namespace sgm {

struct FlowResult {
  Tensor x;                       // [N, ...] f32
  std::vector<std::int64_t> nfe;  // evaluations of the score, per image
  bool complete = true;           // false when progress stopped the integration on its way
};

/// Latent codes at t = 1 of images x [N, ...] f32 in data space, which are taken as standing at t =
/// options.eps. Throws Error as integrate() does.
FlowResult encode(const SDE& sde, const ScoreFn& score, const Tensor& x, const FlowOptions& options = {});
/// The way back: images at t = options.eps of latent codes z.
FlowResult decode(const SDE& sde, const ScoreFn& score, const Tensor& z, const FlowOptions& options = {});

/// Angles below this are interpolated in a straight line.
inline constexpr double kLeastAngle = 1e-4;
/// The point w of the way from a to b, [N, ...] f32, along great circles: (sin((1 - w) th) a + sin(w th) b) /
/// sin th with th the angle between a and b, per image. Keeps the norm where both have the same.
Tensor slerp(const Tensor& a, const Tensor& b, double w);

}  // namespace sgm
