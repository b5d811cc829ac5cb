#pragma once
// What is timed and profiled where no training is needed.

#include <memory>

#include "sgm/core/precision.h"
#include "sgm/score/score_model.h"

namespace sgm {

/// A network with random weights as a score.
struct RandomModel {
  std::unique_ptr<ScoreNetwork> network;
  std::unique_ptr<SDE> sde;
  ScoreFn score;
  Shape batch;

  RandomModel(const Config& config, Context& context)
      : network(create_network(config, context)),
        sde(create_sde(config.sde)),
        score(score_function(*network, *sde, config.training.continuous,
                             use_precision(context, config.training.precision))),
        batch{config.training.batch_size, config.data.image_size, config.data.image_size,
              config.data.num_channels} {}
};

}  // namespace sgm
