#pragma once
// From a network to a score: the only place that knows both networks and SDEs.

#include "sgm/nn/module.h"
#include "sgm/sampling/score_product.h"
#include "sgm/sde/sde.h"

namespace sgm {

/// score(x, t) = score_scale(t) network(x, noise_label(t)), with dropout off and no tape. `continuous` says
/// how the network was trained: discrete networks are told the index of the noise scale. `compute` is the
/// storage of activations. Network and SDE must outlive the function; the network's gradients are turned off.
ScoreFn score_function(ScoreNetwork& network, const SDE& sde, bool continuous, DType compute = DType::f32);

/// The same score with vector-Jacobian products: one pass forward and one back to x, none to the weights.
ScoreProductFn score_product_function(ScoreNetwork& network, const SDE& sde, bool continuous,
                                      DType compute = DType::f32);

}  // namespace sgm
