#pragma once
// Small multi-layer perceptrons in double precision, and points for them.

#include <memory>
#include <string>

#include "check.h"
#include "sgm/nn/tangent_network.h"
#include "sgm/score/loss.h"

namespace sgm {

inline constexpr int kDim = 3;

/// A small mlp whose output is of the size of one.
inline Config mlp_config(bool energy, const std::string& sde = "vesde", int dim = kDim) {
  Config config;
  config.data.image_size = 1;
  config.data.num_channels = dim;
  config.sde.name = sde;
  config.sde.sigma_max = 20.0;
  config.model.name = "mlp";
  config.model.hidden = {7, 5};
  config.model.nf = 4;
  config.model.fourier_scale = 0.5;
  config.model.init_scale = 1.0;
  config.model.energy = energy;
  config.model.scale_by_sigma = sde == "vesde";
  if (sde != "vesde") config.model.embedding_type = "positional";
  config.training.seed = 3;
  validate(config);
  return config;
}

struct Model {
  Config config;
  std::unique_ptr<SDE> sde;
  std::unique_ptr<ScoreNetwork> network;
  Model(const Config& c, Context& context)
      : config(c), sde(create_sde(c.sde)), network(create_network(c, context, DType::f64)) {}
  TangentNetwork& twice() const { return dynamic_cast<TangentNetwork&>(*network); }
  std::unique_ptr<Loss> loss(const std::string& name, double fd_step = 0.1, bool likelihood = false) const {
    TrainingConfig training = config.training;
    training.loss = name;
    training.fd_step = fd_step;
    training.likelihood_weighting = likelihood;
    return create_loss(*sde, training, *network);
  }
};

inline Tensor points(Context& context, std::int64_t n, std::uint32_t stream, int dim = kDim,
                     double std = 1.0) {
  return tensor_of(context, random_values(n * dim, stream, 0.0, std), {n, 1, 1, dim}, DType::f64);
}

}  // namespace sgm
