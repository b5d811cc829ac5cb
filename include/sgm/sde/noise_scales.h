#pragma once
// How to choose the noise scales and the Langevin step of annealed Langevin dynamics: Song and Ermon 2020,
// "Improved Techniques for Training Score-Based Generative Models". The largest scale is their Technique 1:
// the largest distance between two images (data/distances.h).

#include <cstdint>

namespace sgm {

/// Part of the shell on which N(0, (ratio sigma)^2 I) lies in `dim` dimensions that the shell of
/// N(0, sigma^2 I) covers: Phi(sqrt(2 dim) (ratio - 1) + 3 ratio) - Phi(sqrt(2 dim) (ratio - 1) - 3 ratio).
double scale_overlap(double ratio, std::int64_t dim);

/// Technique 2: the ratio of neighbouring noise scales at which half of it is covered. Throws Error for
/// dim < 5, where shells always overlap.
double scale_ratio(std::int64_t dim);

/// Number of scales from sigma_min to sigma_max whose ratio is nearest to `ratio`, at least 2. Throws Error
/// unless 0 < sigma_min < sigma_max and ratio > 1.
int scale_count(double sigma_min, double sigma_max, double ratio);

/// Variance, in units of sigma^2, after `steps` Langevin steps at scale sigma that begin at variance
/// (ratio sigma)^2, where the data is one point: (1 - u)^(2 steps) (ratio^2 - q) + q with
/// q = 2 u / (1 - (1 - u)^2) and u = step_lr / sigma_min^2.
double annealed_variance(double step_lr, double sigma_min, double ratio, int steps);

/// Technique 4: the step at which that is nearest to 1. Throws Error for steps < 1.
double annealed_step(double sigma_min, double ratio, int steps);

}  // namespace sgm
