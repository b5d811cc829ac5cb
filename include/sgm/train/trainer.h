#pragma once
// Training of score models.

#include <memory>

#include "sgm/score/loss.h"
#include "sgm/sde/sde.h"
#include "sgm/train/run.h"
#include "sgm/train/trainee.h"

namespace sgm {

/// Network, loss, data order and optimiser of a configuration.
class Trainer final : public Trainee {
 public:
  /// Throws Error for impossible configurations. Dataset and context must outlive the trainer. capture =
  /// false launches every step call by call, also where the device can replay it.
  Trainer(const Config& config, const Dataset& dataset, Context& context, bool capture = true);

  const char* kind() const override;
  ScoreNetwork& network() { return static_cast<ScoreNetwork&>(module()); }
  const SDE& sde() const { return *sde_; }

 private:
  void prepare(const Batch& batch, std::uint32_t step) override;
  Var losses(std::size_t part) override;

  std::unique_ptr<SDE> sde_;
  std::unique_ptr<Loss> loss_;
  std::vector<LossInputs> inputs_;  // noise levels of each micro-batch, at fixed addresses
};

/// train() of run.h for a new trainer.
RunEnd train(const Config& config, const Dataset& dataset, Context& context, const RunOptions& options);

}  // namespace sgm
