#pragma once
// What samplers ask of the outside: scores and noise.

#include <cstdint>
#include <functional>
#include <span>

#include "sgm/sde/sde.h"
#include "sgm/tensor/math.h"

namespace sgm {

/// The time at which one image of a batch stands, and which image of the request it is: ODE solvers step
/// images apart and leave out those that have arrived.
struct ImageTime : TimePoint {
  int image = 0;
};

/// grad_x log p_t(x) of a batch x [M, ...] (f32), one time per image; result like x. Samplers on a grid of
/// noise scales pass its index with the time; the ODE solver's times are off the grid.
using ScoreFn = std::function<Tensor(const Tensor& x, std::span<const ImageTime> times)>;

/// The noise of one draw of a run, for a batch like `like`. Draws of one purpose are numbered by `step`.
using NoiseSource = std::function<Noise(Purpose purpose, std::uint32_t step, const Tensor& like)>;

/// Noise that depends on seed and sample index alone; the batch's first image is sample `first_sample`.
NoiseSource philox_noise(std::uint64_t seed, std::uint32_t first_sample);

/// score(x, ...) with all images at one time. Throws Error when the result has not the shape of x.
Tensor score_at(const ScoreFn& score, const Tensor& x, const TimePoint& at);

}  // namespace sgm
