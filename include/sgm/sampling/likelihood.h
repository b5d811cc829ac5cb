#pragma once
// The likelihood of data, exact up to the solver's tolerance and the estimate of a trace.
//
// Along the probability-flow ODE dx/dt = F(x, t) from data to noise, log p_0(x_0) = log p_1(x_1) plus the
// integral of div F (eq. 39). With F = f(t) x - g(t)^2 s(x, t) / 2, div F = f d - g^2 tr(J) / 2, J the
// Jacobian of the score, whose trace is estimated as v^T J v (Skilling-Hutchinson, eq. 40) or summed exactly.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sgm/sampling/ode_solver.h"
#include "sgm/sampling/score_product.h"

namespace sgm {

/// Directions v [N, ...] f64, one per image in each, with weight * sum of v^T A v = tr A: exactly, or in
/// expectation. They stay what they are along the whole trajectory.
struct Probes {
  std::vector<Tensor> v;
  double weight = 1.0;
};

/// `count` random directions of `kind`: rademacher (entries +-1) or gaussian. Direction k of an image is a
/// function of the key's seed and step, of k and of the image's sample index; at most 2^16 of steps and
/// directions. Throws Error for other kinds and counts.
Probes random_probes(std::string_view kind, Context& context, const Shape& shape, int count, NoiseKey key);
std::vector<std::string> probe_names();

/// Most elements of an image whose trace is summed exactly: that costs one product for each.
inline constexpr std::int64_t kMaxExactTrace = 64;
/// All unit vectors. Throws Error for images of more than kMaxExactTrace elements.
Probes unit_probes(Context& context, const Shape& shape);

/// Log densities in nats, per image.
struct Likelihood {
  std::vector<double> log_prior;  // log p_1 of the latent
  std::vector<double> delta;      // the integral of the divergence
  Tensor latent;                  // [N, ...] f64, at t = 1
  std::vector<std::int64_t> nfe;  // evaluations of the flow per image, each with a product for every probe
  bool complete = true;           // false when progress stopped the integration: then nothing is known

  double log_likelihood(std::size_t image) const { return log_prior[image] + delta[image]; }
};

/// Log density at t = options.eps, which is that of the data but for a perturbation of std(eps), of images x
/// [N, ...] in data space (f32 or f64), for the model whose score `score` is. With options.ode.shared_steps
/// one error norm covers the batch, as in the reference. Throws Error as integrate() does.
Likelihood log_likelihood(const SDE& sde, const ScoreProductFn& score, const Tensor& x, const Probes& probes,
                          const FlowOptions& options = {});

/// Bits per dimension of 8-bit data, whose continuous values [0, 256) fill a data space of length `range`
/// (1, or 2 where it is centered): -log_likelihood / (dim log 2) + log2(256 / range).
double bits_per_dim(double log_likelihood, std::int64_t dim, double range);

}  // namespace sgm
