#pragma once
// What the laboratory's figures have in common, and the functions of the table in figures.cpp.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lab/marginal.h"
#include "sgm/lab/figures.h"
#include "sgm/plot/figure.h"

namespace sgm::lab {

LabReport density_figure(const Laboratory& lab);
LabReport score_figure(const Laboratory& lab);
LabReport forward_figure(const Laboratory& lab);
LabReport reverse_figure(const Laboratory& lab);
LabReport marginals_figure(const Laboratory& lab);
LabReport langevin_figure(const Laboratory& lab);
LabReport samplers_figure(const Laboratory& lab);
LabReport likelihood_figure(const Laboratory& lab);

/// Tells progress(); throws LabInterrupted when it says so.
void tell(const Laboratory& lab, const std::string& what, double fraction);

// ---- clouds of points -------------------------------------------------------------------------------------

/// Points [n, dim], row by row.
using Cloud = std::vector<double>;

Cloud to_cloud(const Tensor& x);
/// [n, 1, 1, dim] f32.
Tensor to_batch(const Laboratory& lab, const Cloud& cloud);
Array to_array(const Cloud& cloud, int dim);
/// Coordinate i of every point.
std::vector<double> coordinate(std::span<const double> cloud, int dim, int i);

struct Drawn {
  Cloud cloud;
  double nfe;  // evaluations of the score per point
};
/// lab.n points of a sampler.
Drawn draw_samples(const Laboratory& lab, const SamplingConfig& settings, const std::string& what);

/// The fraction of points on the upper side of the plane through the middle of the density's range, across
/// its direction of largest variance: of a mixture of two modes, the weight of one. "Upper" is where the
/// density has more.
double share(const Density& density, std::span<const double> cloud);

/// The mean over 64 directions of the Wasserstein-1 distance between two clouds' projections.
double sliced_distance(std::span<const double> a, std::span<const double> b, int dim);

// ---- the SDE's times --------------------------------------------------------------------------------------

/// Root mean variance per coordinate of the data.
double spread(const Density& density);
/// The time at which std / mean_coeff is `ratio`, within [eps, 1].
double time_of_noise(const SDE& sde, double ratio);
/// "t = 0.42".
std::string time_text(double t);
/// A number with three significant digits.
std::string short_text(double value);

/// The interval that holds the perturbed density in every coordinate: its range under the mean, widened.
Density::Range range_at(const Density& density, const Marginal& marginal);

// ---- panels -----------------------------------------------------------------------------------------------

/// Regular points over the first two coordinates; the others are those of the mean.
struct Lattice {
  std::vector<double> x, y;  // [side]
  Cloud points;              // [side * side, dim], row by row in y
};
Lattice lattice(const Density& density, Density::Range range, int side);

/// Sets both axes to the range, for clouds in the plane; of densities on a line, the first alone.
void frame(Axes& axes, const Density& density, Density::Range range);
/// The density under a perturbation: a heat map of the first two coordinates (of more than two, counted from
/// draws), or a curve on a line.
void show_density(Axes& axes, const Density& density, const Marginal& marginal, Density::Range range);
/// Points in the first two coordinates, or a histogram on a line beside the density.
void show_cloud(Axes& axes, const Density& density, std::span<const double> cloud, Density::Range range);

/// The density of the first coordinate at given places; empty when it is not known (more than two
/// dimensions).
std::vector<double> first_marginal(const Density& density, const Marginal& marginal,
                                   std::span<const double> at);

// ---- paths ------------------------------------------------------------------------------------------------

/// A cloud at several times.
struct Film {
  std::vector<double> times;
  std::vector<Cloud> frames;
};
/// Forward from draws of the data on `steps` equal steps of time; exact: with the transition kernels between
/// the steps' ends, otherwise by Euler-Maruyama. Both see the same noise. After step m, from 0 on, the first
/// kept(m) points become a frame; none for 0.
Film forward_film(const Laboratory& lab, std::int64_t n, int steps, bool exact,
                  const std::function<std::int64_t(int m)>& kept);
/// Backward from `start` at t = 1 through the given times, falling, of which the first is 1: the reverse SDE
/// with the predictor and steps of the settings, or the probability-flow ODE.
Film reverse_film(const Laboratory& lab, const Cloud& start, std::span<const double> times);
Film flow_film(const Laboratory& lab, const Cloud& start, std::span<const double> times);
/// lab.n draws of the prior.
Cloud prior_cloud(const Laboratory& lab, std::int64_t n);

}  // namespace sgm::lab
