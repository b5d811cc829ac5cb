#pragma once
// Denoising score matching: the continuous loss (eq. 7) and its discrete ancestors of SMLD and DDPM.

#include <functional>
#include <span>
#include <vector>

#include "sgm/autograd/var.h"
#include "sgm/core/config.h"
#include "sgm/nn/module.h"
#include "sgm/sde/sde.h"

namespace sgm {

/// Everything that the loss of one image needs to know of its noise level: the perturbed image is
/// mean_coeff x0 + std z, the network is told `label`, and loss = weight reduce((a net + b z)^2).
struct LossTerms {
  double label, mean_coeff, std, a, b, weight;
};

/// The terms of a batch where the device reads them; each f64 [N].
struct LossInputs {
  Tensor label, mean_coeff, std, a, b, weight;
};

struct LossResult {
  Var mean;          // [1] f64: mean over images, on the tape
  Tensor per_image;  // [N] f64
};

/// lambda(t) || score(x_t, t) - grad log p(x_t | x_0) ||^2 with x_t drawn from the perturbation kernel at a
/// random time. lambda is the kernel's variance, or g(t)^2 with likelihood weighting. With
/// training.continuous = false times are the N noise scales, which gives the SMLD loss for VE and the DDPM
/// loss for VP.
class DenoisingLoss {
 public:
  /// Predicts from the perturbed batch [N, H, W, C] and its labels [N] f64.
  using Network = std::function<Var(const Tensor& x, const Tensor& label)>;

  /// Throws Error for discrete training of an SDE that has no discrete chain. The SDE must outlive the loss.
  DenoisingLoss(const SDE& sde, const TrainingConfig& config);

  /// The terms for u in [0, 1): time 1e-5 + u (1 - 1e-5), or noise scale floor(u N).
  LossTerms terms(double u) const;

  /// Inputs for a batch of n, to be filled.
  LossInputs create_inputs(Context& context, std::int64_t n) const;
  /// Fills them with terms(u) of every image; throws Error for another number of images.
  void fill(LossInputs& inputs, std::span<const double> u) const;
  /// The u of a batch of n that `key` draws (its purpose is ignored).
  static std::vector<double> draw(NoiseKey key, std::int64_t n);

  /// Loss of images x0 [N, H, W, C] in data space at the times of `inputs`, with noise z like x0. Reads
  /// numbers from the device only.
  LossResult evaluate(const Network& network, const Tensor& x0, const LossInputs& inputs,
                      const Tensor& z) const;
  /// The same with given u [N].
  LossResult evaluate(const Network& network, const Tensor& x0, std::span<const double> u,
                      const Tensor& z) const;
  /// The same with u and z drawn from `key` (its purpose is ignored).
  LossResult evaluate(const Network& network, const Tensor& x0, NoiseKey key) const;

 private:
  const SDE& sde_;
  bool continuous_, reduce_mean_, likelihood_weighting_;
};

}  // namespace sgm
