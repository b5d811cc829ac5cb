#pragma once
// Noise-conditional classifiers: log p(y | x) of an image at any noise level, for class-conditional sampling.

#include <memory>
#include <string>
#include <vector>

#include "sgm/nn/module.h"

namespace sgm {

/// A network that names the class of an image from which noise has taken some or most.
class Classifier : public Module {
 public:
  /// x [N, H, W, C], f32 (f64 for f64 networks): images in [0, 1] plus Gaussian noise of standard deviation
  /// sigma [N] f64, positive. Returns logits [N, K] of the type of x. Differentiable in x.
  virtual Var forward(const Var& x, const Tensor& sigma, const ForwardMode& mode) = 0;
};

/// Builds the classifier that config.classifier names for config.classifier.num_classes classes, initialised
/// from config.training.seed. Throws Error for an unknown name or impossible options. dtype: f32, or f64 for
/// checks. initialise = false leaves the weights undefined, for a checkpoint to fill.
std::unique_ptr<Classifier> create_classifier(const Config& config, Context& context,
                                              DType dtype = DType::f32, bool initialise = true);
/// Known values of ClassifierConfig::name.
std::vector<std::string> classifier_names();

}  // namespace sgm
