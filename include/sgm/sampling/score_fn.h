#pragma once
// What samplers ask of the outside: scores and noise.

#include <concepts>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "sgm/sde/sde.h"
#include "sgm/tensor/math.h"

namespace sgm {

/// The time at which one image of a batch stands, and which image of the request it is: ODE solvers step
/// images apart and leave out those that have arrived.
struct ImageTime : TimePoint {
  int image = 0;
};

/// grad_x log p_t(x) of a batch x [M, ...] (f32), one time per image; the result is like x. Samplers on a
/// grid of noise scales pass its index with the time; the ODE solver's times are off the grid.
class ScoreFn {
 public:
  using AtTimes = std::function<Tensor(const Tensor& x, std::span<const ImageTime> times)>;
  /// All that a score network depends on besides x: what it is told, and what its output is multiplied by.
  struct Numbers {
    double label, scale;
  };
  using NumbersAt = std::function<Numbers(const ImageTime& time)>;
  using OfNumbers = std::function<Tensor(const Tensor& x, const Tensor& label, const Tensor& scale)>;

  ScoreFn() = default;
  template <class F>
  requires std::invocable<F, const Tensor&, std::span<const ImageTime>> ScoreFn(F at_times)
      : at_times_(std::move(at_times)) {}
  /// A score that takes its numbers from the device, label and scale [M] f64, and so can be captured.
  ScoreFn(NumbersAt numbers, OfNumbers evaluate);

  Tensor operator()(const Tensor& x, std::span<const ImageTime> times) const { return at_times_(x, times); }

  bool takes_numbers() const { return bool(of_numbers_); }
  Numbers numbers(const ImageTime& time) const { return numbers_(time); }
  Tensor evaluate(const Tensor& x, const Tensor& label, const Tensor& scale) const {
    return of_numbers_(x, label, scale);
  }

 private:
  AtTimes at_times_;
  NumbersAt numbers_;
  OfNumbers of_numbers_;
};

/// The noise of one draw of a run, for a batch like `like`. Draws of one purpose are numbered by `step`.
using NoiseSource = std::function<Noise(Purpose purpose, std::uint32_t step, const Tensor& like)>;

/// Noise that depends on seed and sample index alone; the batch's first image is sample `first_sample`.
NoiseSource philox_noise(std::uint64_t seed, std::uint32_t first_sample);

/// score(x, ...) with all images at one time. Throws Error when the result has not the shape of x.
Tensor score_at(const ScoreFn& score, const Tensor& x, const TimePoint& at);

}  // namespace sgm
