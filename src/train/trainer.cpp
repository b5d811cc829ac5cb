#include "sgm/train/trainer.h"

#include "sgm/train/checkpoint.h"

namespace sgm {

Trainer::Trainer(const Config& config, const Dataset& dataset, Context& context, bool capture)
    : Trainee(config, dataset, context, create_network(config, context),
              {.images = loader_options(config), .capture = capture}),
      sde_(create_sde(config.sde)),
      loss_(create_loss(*sde_, config.training, network())) {
  for (std::size_t part = 0; part < parts(); ++part)
    inputs_.push_back(loss_->create_inputs(context, images(part).shape()));
}

const char* Trainer::kind() const { return kScoreModel; }

void Trainer::prepare(const Batch&, std::uint32_t step) {
  const std::vector<double> u =
      Loss::draw({.seed = config().training.seed, .step = step}, config().training.batch_size);
  for (std::size_t part = 0; part < parts(); ++part) loss_->fill(inputs_[part], part_of(u, part));
}

Var Trainer::losses(std::size_t part) {
  const NoiseKey key = noise_key(part);
  const LossNetwork of_images(network(), {compute(), true, key});
  return loss_->evaluate(of_images, images(part), inputs_[part], key).mean;
}

RunEnd train(const Config& config, const Dataset& dataset, Context& context, const RunOptions& options) {
  Trainer trainer(config, dataset, context);
  return train(trainer, options);
}

}  // namespace sgm
