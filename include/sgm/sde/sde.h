#pragma once
// SDEs: dx = f(t) x dt + g(t) dw on t in [0, 1], which turn data (t = 0) into noise (t = 1).
//
// Every SDE of the paper is affine and isotropic, so that scalar functions of time in double precision say
// everything: no tensor and no device occur here.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sgm/core/config.h"

namespace sgm {

/// A time of the process. Where a sampler or a loss walks a grid of N noise scales, the scale's index travels
/// with t: it is counted, never recovered from t, because rounding t (N - 1) picks wrong scales.
struct TimePoint {
  double t = 1.0;
  int k = -1;          // noise scale, 0 (least noise) to num_scales - 1; -1: off any grid
  int num_scales = 0;  // N of that grid

  bool on_grid() const { return k >= 0; }
};

/// x_t given x_0 is N(mean_coeff x_0, std^2 I).
struct Marginal {
  double mean_coeff, std;
};

/// One step of the discretised forward SDE: x <- x + f x + G z.
struct ForwardStep {
  double f, G;
};

/// One step towards less noise: x_mean = a x + b score, x <- x_mean + c z.
struct ReverseStep {
  double a, b, c;
};

/// A forward SDE and what training and sampling need to know about it.
class SDE {
 public:
  explicit SDE(int num_scales) : num_scales_(num_scales) {}
  virtual ~SDE() = default;

  virtual double drift(double t) const = 0;         // f(t)
  virtual double diffusion(double t) const = 0;     // g(t)
  virtual double mean_coeff(double t) const = 0;    // x_t | x_0 ~ N(mean_coeff x_0, marginal_std^2 I), eq. 29
  virtual double marginal_std(double t) const = 0;  // accurate down to t = 0
  virtual double prior_std() const = 0;             // x_1 ~ N(0, prior_std^2 I)
  virtual double sampling_eps() const = 0;  // samplers stop at this t > 0, where the score is still tame

  /// What a continuously trained network is told about time t.
  virtual double noise_label(double t) const = 0;
  /// score = score_scale(t) * network output.
  virtual double score_scale(double t) const = 0;

  /// N: the noise scales of the chain that this SDE is the limit of.
  int num_scales() const { return num_scales_; }
  /// log N(x; 0, prior_std^2 I) of an x with `dim` elements and squared norm `squared_norm`, in nats.
  double prior_logp(double squared_norm, std::int64_t dim) const;

  /// The forward chain's step at scale at.k. Default: Euler-Maruyama of width 1 / N at at.t.
  virtual ForwardStep discretize(const TimePoint& at) const;
  /// The chain's own posterior step with x_0 replaced by its estimate from the score (SMLD: eq. 44, DDPM: eq.
  /// 4). Default: Error, for SDEs without such a chain.
  virtual ReverseStep ancestral(const TimePoint& at) const;
  /// Factor of the Langevin corrector's step size (the alpha of Algorithms 4 and 5). Default: 1.
  virtual double langevin_alpha(const TimePoint& at) const;

  /// Perturbation kernel of scale k of N in discrete training. Default: Error, for SDEs without one.
  virtual Marginal discrete_marginal(int k, int num_scales) const;
  /// What a discretely trained network is told. Between its own N scales (another N on the grid, or off the
  /// grid) the label is interpolated where the network takes reals and rounded where it takes integers.
  virtual double discrete_label(const TimePoint& at) const;
  /// score = discrete_score_scale * output of a discretely trained network.
  virtual double discrete_score_scale(const TimePoint& at) const;

 private:
  int num_scales_;
};

/// The SDE that config.name selects. Throws Error for an unknown name or constants out of range.
std::unique_ptr<SDE> create_sde(const SDEConfig& config);

/// Known values of SDEConfig::name.
std::vector<std::string> sde_names();

}  // namespace sgm
