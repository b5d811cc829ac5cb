#include "sgm/train/trainer.h"

#include "sgm/train/checkpoint.h"

namespace sgm {

Trainer::Trainer(const Config& config, const Dataset& dataset, Context& context, bool capture)
    : Trainee(config, dataset, context, create_network(config, context),
              {.images = loader_options(config), .capture = capture}),
      sde_(create_sde(config.sde)),
      loss_(create_loss(*sde_, config.training, network())),
      inputs_(loss_->create_inputs(context, images().shape())) {}

const char* Trainer::kind() const { return kScoreModel; }

void Trainer::prepare(const Batch&, std::uint32_t step) {
  loss_->fill(inputs_, Loss::draw({.seed = config().training.seed, .step = step}, images().shape()[0]));
}

Var Trainer::losses() {
  const NoiseKey key = noise_key();
  return loss_->evaluate(LossNetwork(network(), {compute(), true, key}), images(), inputs_, key).mean;
}

RunEnd train(const Config& config, const Dataset& dataset, Context& context, const RunOptions& options) {
  Trainer trainer(config, dataset, context);
  return train(trainer, options);
}

}  // namespace sgm
