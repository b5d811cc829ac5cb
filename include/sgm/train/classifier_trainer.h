#pragma once
// Training of noise-conditional classifiers, and how often they are right at which noise.

#include <vector>

#include "sgm/nn/classifier.h"
#include "sgm/sde/sde.h"
#include "sgm/train/trainee.h"

namespace sgm {

/// The noise that a time of an SDE adds to an image in [0, 1] once the image is brought back to full size:
/// std / mean_coeff, halved where the SDE acts on [-1, 1].
double image_noise(const SDE& sde, double t, bool centered);

/// Minimises the plain sum of cross entropies of noisy images, t ~ U[1e-5, 1): the classifier sees
/// x0 + sigma z with x0 in [0, 1] and sigma = image_noise(t), which serves every SDE.
class ClassifierTrainer final : public Trainee {
 public:
  /// Throws Error for impossible configurations, for images without a class, and where
  /// config.classifier.num_classes, if not 0, is below the number of classes of the data. Dataset and context
  /// must outlive the trainer.
  ClassifierTrainer(const Config& config, const Dataset& dataset, Context& context, bool capture = true);

  const char* kind() const override;
  Classifier& classifier() { return static_cast<Classifier&>(module()); }
  const SDE& sde() const { return *sde_; }

 private:
  void prepare(const Batch& batch, std::uint32_t step) override;
  Var losses(std::size_t part) override;
  std::optional<double> read_accuracy(std::int64_t steps) override;

  std::unique_ptr<SDE> sde_;
  std::vector<Tensor> sigma_, labels_;  // [M] f64: of each micro-batch
  Tensor correct_sum_;                  // [M] f64: images put in their class, since the last read_accuracy()
};

/// How often a classifier is right between two times.
struct NoiseAccuracy {
  double t0, t1, sigma0, sigma1;  // times, and the noise there in images of [0, 1]
  double accuracy;
};

/// Accuracy on images first .. first + count - 1 of a set in `parts` equal parts of [1e-5, 1], at one random
/// time in each. Image i meets the same times and noise whatever the classifier. Throws Error for images of
/// another size than config.data, and for classes that the classifier does not have.
std::vector<NoiseAccuracy> accuracy_by_noise(Classifier& classifier, const Config& config,
                                             const Dataset& dataset, Context& context, std::int64_t first,
                                             std::int64_t count, int parts = 10);

}  // namespace sgm
