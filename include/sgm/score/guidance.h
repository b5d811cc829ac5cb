#pragma once
// Class-conditional sampling: the score of p_t(x | y) is that of p_t(x) plus grad_x log p_t(y | x) (eq. 14 of
// Song et al. 2021 with y a class).

#include <vector>

#include "sgm/nn/classifier.h"
#include "sgm/sampling/score_fn.h"
#include "sgm/sde/sde.h"

namespace sgm {

/// What a classifier is asked of a batch.
struct ClassRequest {
  std::vector<int> classes;    // of image i of the request; in [0, number of classes)
  bool centered = false;       // data space of x: [-1, 1] if true, else [0, 1]
  bool continuous = true;      // false: x on a grid is at that scale of the discrete chain
  DType compute = DType::f32;  // storage of activations
};

/// grad_x log p(y | x, t) of a classifier that was trained on noisy images in [0, 1]: it sees
/// x / mean_coeff(t), which is an image plus noise of standard deviation std(t) / mean_coeff(t), whatever the
/// SDE, and the chain rule brings the factor 1 / mean_coeff(t) back. Classifier and SDE must outlive the
/// function; the classifier's gradients are turned off. Throws Error, when called, for classes that the
/// classifier does not know and for images without a class.
ScoreFn class_gradient(Classifier& classifier, const SDE& sde, ClassRequest request);

/// score + weight grad_x log p(y | x). weight 1 samples p(x | y); larger ones p(x) p(y | x)^weight, that is
/// images of which the classifier is surer.
ScoreFn guided_score(ScoreFn score, ScoreFn gradient, double weight);

}  // namespace sgm
