#include "sgm/sampling/score_fn.h"

#include <vector>

namespace sgm {

ScoreFn::ScoreFn(NumbersAt numbers, OfNumbers evaluate)
    : at_times_([numbers, evaluate](const Tensor& x, std::span<const ImageTime> times) {
        std::vector<double> labels, scales;
        for (const ImageTime& time : times) {
          const Numbers now = numbers(time);
          labels.push_back(now.label);
          scales.push_back(now.scale);
        }
        const Shape n{x.shape()[0]};
        return evaluate(x, Tensor::from_host(x.context(), std::span<const double>(labels), n),
                        Tensor::from_host(x.context(), std::span<const double>(scales), n));
      }),
      numbers_(std::move(numbers)),
      of_numbers_(std::move(evaluate)) {}

NoiseSource philox_noise(std::uint64_t seed, std::uint32_t first_sample) {
  return [=](Purpose purpose, std::uint32_t step, const Tensor&) {
    return Noise{NoiseKey{seed, purpose, step, first_sample}, {}};
  };
}

Tensor score_at(const ScoreFn& score, const Tensor& x, const TimePoint& at) {
  std::vector<ImageTime> times(static_cast<std::size_t>(x.shape()[0]));
  for (std::size_t n = 0; n < times.size(); ++n) times[n] = {at, static_cast<int>(n)};
  Tensor result = score(x, times);
  check(result.shape() == x.shape(), "score: expected shape ", x.shape(), ", got ", result.shape());
  return result;
}

}  // namespace sgm
