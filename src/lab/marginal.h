#pragma once

#include "sgm/sde/sde.h"

namespace sgm::lab {

/// The perturbation kernel at time t.
inline Marginal marginal_at(const SDE& sde, double t) { return {sde.mean_coeff(t), sde.marginal_std(t)}; }

}  // namespace sgm::lab
