// Clouds along the forward SDE, its reversal and the probability-flow ODE.

#include <algorithm>
#include <cmath>

#include "lab/figures/parts.h"
#include "sgm/sampling/latent.h"
#include "sgm/sampling/predictor_corrector.h"
#include "sgm/sampling/sampler.h"

namespace sgm::lab {
namespace {

constexpr int kSteps = 1000;  // of the reverse SDE where the settings name none

}  // namespace

Film forward_film(const Laboratory& lab, std::int64_t n, int steps, bool exact,
                  const std::function<std::int64_t(int m)>& kept) {
  const SDE& sde = lab.sde;
  Tensor x = sample_tensor(lab.density, lab.context, n, lab.seed);
  Film film;
  const auto keep = [&](int m) {
    const std::int64_t points = kept(m);
    if (points == 0) return;
    Cloud cloud = to_cloud(x);
    cloud.resize(static_cast<std::size_t>(points * lab.density.dim()));
    film.times.push_back(static_cast<double>(m) / steps);
    film.frames.push_back(std::move(cloud));
  };
  keep(0);
  for (int m = 0; m < steps; ++m) {
    const double s = static_cast<double>(m) / steps, t = static_cast<double>(m + 1) / steps, dt = t - s;
    double a = 1.0 + sde.drift(s) * dt, variance = sde.diffusion(s) * sde.diffusion(s) * dt;
    if (exact) {
      // p(x_t | x_s) of an affine SDE follows from the kernels of both times.
      a = sde.mean_coeff(t) / sde.mean_coeff(s);
      variance = std::pow(sde.marginal_std(t), 2) - std::pow(a * sde.marginal_std(s), 2);
    }
    const Noise noise{{lab.seed, Purpose::path, static_cast<std::uint32_t>(m)}, {}};
    x = affine_step({.x = x, .noise = noise, .a = a, .c = std::sqrt(std::max(0.0, variance))}).y;
    keep(m + 1);
    tell(lab, "forward paths", t);
  }
  return film;
}

Cloud prior_cloud(const Laboratory& lab, std::int64_t n) {
  const NoiseKey key{lab.seed, Purpose::prior};
  return to_cloud(normal(lab.context, {n, 1, 1, lab.density.dim()}, key, lab.sde.prior_std()));
}

Film reverse_film(const Laboratory& lab, const Cloud& start, std::span<const double> times) {
  SamplingConfig settings = lab.sampling;
  settings.probability_flow = false;
  const int steps = settings.steps > 0 ? settings.steps : kSteps;
  const double eps = settings.eps > 0 ? settings.eps : lab.sde.sampling_eps();
  const std::vector<TimePoint> grid = sampling_grid(steps, eps);
  const auto predictor = create_predictor(lab.sde, settings, steps);
  const NoiseSource source = philox_noise(lab.seed, 0);
  Tensor x = to_batch(lab, start);
  Film film;
  std::uint32_t draw = 0;
  std::size_t next = 0;
  for (std::size_t i = 0; i < grid.size(); ++i) {
    // x stands at grid[i].t: the first update leads from there to the next time.
    while (next < times.size() && times[next] >= grid[i].t - 1e-12) {
      film.times.push_back(times[next++]);
      film.frames.push_back(to_cloud(x));
    }
    if (next == times.size()) break;
    const std::vector<double> values = predictor->numbers(grid[i]);
    const std::vector<Coefficient> numbers(values.begin(), values.end());
    x = predictor
            ->step(x, {numbers, false, [&](const Tensor& at) { return score_at(lab.score, at, grid[i]); },
                       [&](std::uint32_t, const Tensor& like) {
                         return source(Purpose::predictor, draw++, like);
                       }})
            .x;
    tell(lab, "reverse SDE", static_cast<double>(i) / static_cast<double>(grid.size()));
  }
  for (; next < times.size(); ++next) {
    film.times.push_back(times[next]);
    film.frames.push_back(to_cloud(x));
  }
  return film;
}

Film flow_film(const Laboratory& lab, const Cloud& start, std::span<const double> times) {
  ODEOptions options = ode_options(lab.sde, lab.sampling);
  const double all_steps = static_cast<double>(options.fixed_steps),
               path = std::abs(times.back() - times.front());
  Tensor y = to_batch(lab, start).to(DType::f64);
  Film film{{times.begin(), times.end()}, {start}};
  for (std::size_t i = 1; i < times.size(); ++i) {
    if (all_steps > 0)  // of the whole path
      options.fixed_steps =
          static_cast<std::int64_t>(std::ceil(all_steps * std::abs(times[i] - times[i - 1]) / path));
    y = integrate(probability_flow(lab.sde, lab.score), y, times[i - 1], times[i], options).y;
    film.frames.push_back(to_cloud(y));
    tell(lab, "probability-flow ODE", static_cast<double>(i) / static_cast<double>(times.size()));
  }
  return film;
}

}  // namespace sgm::lab
