#pragma once
// The denoising loss of a network on given images, noise level by noise level.

#include <cstdint>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/score/loss.h"
#include "sgm/sde/sde.h"

namespace sgm {

/// A mean over images, and how far it may be off.
struct MeanAndError {
  double mean = 0.0, standard_error = 0.0;  // the error is NaN for fewer than two images
};

/// What is known of one noise level.
struct LevelLoss {
  TimePoint at;            // on the grid for discrete training
  Marginal marginal;       // the perturbation kernel
  MeanAndError loss;       // as in training, weights and reduction included
  double noise_error;      // mean square per dimension of std score + z: of the noise that was guessed, 0 to
                           // about 1, where 1 is to guess none
  double denoising_error;  // root mean square per dimension of x_0's estimate (x_t + std^2 score) /
                           // mean_coeff, in data space
};

/// Collects the losses of batches at the same levels: the midpoints of `levels` equal parts of (0, 1], or the
/// noise scales nearest below them in discrete training, where there are no more levels than scales. Image i
/// meets the same noise at level l in every network: it is a function of (seed, i, l). `sde` must outlive it.
class LevelLosses {
 public:
  /// Throws Error for levels < 1 and as DenoisingLoss does.
  LevelLosses(const SDE& sde, const TrainingConfig& config, int levels, std::uint64_t seed);

  int levels() const { return static_cast<int>(u_.size()); }
  /// Adds images x0 [N, H, W, C] in data space, of which the first has the number `first`, at one level.
  /// Every level must be given the same images in the same order.
  void add(const LossNetwork& network, const Tensor& x0, std::int64_t first, int level);

  std::vector<LevelLoss> results() const;
  /// The loss of training: the mean over levels. Its error knows that levels share their images.
  MeanAndError total() const;

 private:
  TrainingConfig config_;
  DenoisingLoss loss_;
  std::uint64_t seed_;
  std::vector<double> u_;                    // [levels]
  std::vector<std::vector<double>> losses_;  // [levels][images]
  std::int64_t dim_ = 0;
};

}  // namespace sgm
