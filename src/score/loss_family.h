#pragma once
// What the losses share, and how those without a name are made.

#include "sgm/score/loss.h"

namespace sgm {

/// The mean over images of a loss, [1] f64, on the tape, given its gradients to the network's outputs.
Var mean_loss(std::string_view op, const Tensor& mean, std::vector<Var> outputs,
              std::vector<Tensor> gradients);

/// Score matching along directions v with E[v v^T] = 1, eq. 19: lambda E[v^T grad s v + |s|^2 / 2], with
/// (v^T s)^2 in place of |s|^2 in the sliced loss, the sum over all axes v in the explicit one, and central
/// differences in place of the derivative in the difference loss.
std::unique_ptr<Loss> create_sliced_loss(const SDE& sde, const TrainingConfig& config);
std::unique_ptr<Loss> create_variance_reduced_loss(const SDE& sde, const TrainingConfig& config);
std::unique_ptr<Loss> create_explicit_loss(const SDE& sde, const TrainingConfig& config);
std::unique_ptr<Loss> create_difference_loss(const SDE& sde, const TrainingConfig& config);

}  // namespace sgm
