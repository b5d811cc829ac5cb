#pragma once
// What score networks are trained to minimise. Every loss has one minimum, the score of the perturbed data;
// they differ in what they ask of the SDE and of the network (docs/score_matching.md).

#include <concepts>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sgm/autograd/var.h"
#include "sgm/core/config.h"
#include "sgm/nn/tangent_network.h"
#include "sgm/sde/sde.h"

namespace sgm {

/// Everything that the loss of one image needs to know of its noise level: the perturbed image is
/// mean_coeff x0 + std z, the network is told `label`, and the denoising loss is
/// weight reduce((a net + b z)^2).
struct LossTerms {
  double label, mean_coeff, std, a, b, weight;
  double unit = 0.0;  // length of the directions that other losses differentiate along
};

/// The time of u in [0, 1): 1e-5 + u (1 - 1e-5). Closer to t = 0 what is learned explodes.
double training_time(double u);

/// One noise level, of standard deviation std >= 0, without any SDE: plain score matching, whose network is
/// told 1 and returns the score itself.
LossTerms plain_terms(double std);

/// The terms of a batch where the device reads them; each f64 [N].
struct LossInputs {
  Tensor label, mean_coeff, std, a, b, weight, unit;
  Tensor directions;  // [d N, H, W, C]: every axis, where the loss wants all of them
};

struct LossResult {
  Var mean;          // [1] f64: mean over images, on the tape
  Tensor per_image;  // [N] f64
};

/// A network as losses see it.
class LossNetwork {
 public:
  /// Of a batch [N, H, W, C] and its labels [N] f64; `directions` as in TangentNetwork.
  using Forward = std::function<Var(const Tensor& x, const Tensor& label)>;
  using ForwardTangent =
      std::function<TangentNetwork::Tangent(const Tensor& x, const Tensor& directions, const Tensor& label)>;

  /// The network must outlive this, and has tangents if it is a TangentNetwork.
  LossNetwork(ScoreNetwork& network, const ForwardMode& mode);
  template <class F>
  requires std::invocable<F, const Tensor&, const Tensor&> LossNetwork(F forward, ForwardTangent tangent = {})
      : forward_(std::move(forward)), tangent_(std::move(tangent)) {}

  /// With dropout, the same masks in every call.
  Var forward(const Tensor& x, const Tensor& label) const { return forward_(x, label); }
  /// Throws Error for a network without.
  TangentNetwork::Tangent tangent(const Tensor& x, const Tensor& directions, const Tensor& label) const;

 private:
  Forward forward_;
  ForwardTangent tangent_;
};

/// A loss averaged over noise levels. With training.continuous = false times are the N noise scales of the
/// discrete SMLD (VE) and DDPM (VP) chains.
class Loss {
 public:
  /// Throws Error for discrete training of an SDE that has no discrete chain. The SDE must outlive the loss.
  Loss(const SDE& sde, const TrainingConfig& config);
  virtual ~Loss() = default;

  /// Where u in [0, 1) is: training_time(u), or noise scale floor(u N).
  TimePoint time_at(double u) const;
  /// The terms there.
  virtual LossTerms terms(double u) const;

  /// Inputs for batches of a shape [N, H, W, C], to be filled.
  virtual LossInputs create_inputs(Context& context, const Shape& batch, DType dtype = DType::f32) const;
  /// Fills them with terms(u) of every image, or with these; throws Error for another number of images.
  void fill(LossInputs& inputs, std::span<const double> u) const;
  void fill(LossInputs& inputs, std::span<const LossTerms> terms) const;
  /// The u of a batch of n that `key` draws (its purpose is ignored).
  static std::vector<double> draw(NoiseKey key, std::int64_t n);

  /// What is random in a loss besides the noise levels; both tensors like the images.
  struct Draws {
    Tensor z;           // the noise; absent: what `key` draws, made where it is used
    Tensor v = {};      // the directions, E[v v^T] = 1, of losses that draw them
    NoiseKey key = {};  // of the noise
  };
  /// Loss of images x0 [N, H, W, C] in data space at the noise levels of `inputs`. Reads numbers from the
  /// device only.
  LossResult evaluate(const LossNetwork& network, const Tensor& x0, const LossInputs& inputs,
                      const Draws& draws) const;
  /// The same with what `key` draws (its purpose is ignored).
  LossResult evaluate(const LossNetwork& network, const Tensor& x0, const LossInputs& inputs,
                      NoiseKey key) const;
  /// The same at given u [N].
  LossResult evaluate(const LossNetwork& network, const Tensor& x0, std::span<const double> u,
                      const Draws& draws) const;
  /// The same with u drawn from `key` as well.
  LossResult evaluate(const LossNetwork& network, const Tensor& x0, NoiseKey key) const;

 protected:
  bool reduces_to_mean() const { return reduce_mean_; }

 private:
  virtual bool draws_directions() const = 0;
  /// Of the perturbed images x.
  virtual LossResult of_perturbed(const LossNetwork& network, const Tensor& x, const LossInputs& inputs,
                                  const Draws& draws) const = 0;

  const SDE& sde_;
  bool continuous_, reduce_mean_, likelihood_weighting_;
};

/// Denoising score matching, the paper's: lambda(t) || score(x_t, t) - grad log p(x_t | x_0) ||^2 with x_t
/// drawn from the perturbation kernel at a random time (eq. 7). lambda is the kernel's variance, or g(t)^2
/// with likelihood weighting.
class DenoisingLoss final : public Loss {
 public:
  using Loss::Loss;

 private:
  bool draws_directions() const override { return false; }
  LossResult of_perturbed(const LossNetwork& network, const Tensor& x, const LossInputs& inputs,
                          const Draws& draws) const override;
};

/// The loss that config.loss names. Throws Error for an unknown name, and for a loss that differentiates
/// twice of a network that does not.
std::unique_ptr<Loss> create_loss(const SDE& sde, const TrainingConfig& config, const ScoreNetwork& network);
std::vector<std::string> loss_names();

}  // namespace sgm
