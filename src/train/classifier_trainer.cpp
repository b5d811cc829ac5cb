#include "sgm/train/classifier_trainer.h"

#include <algorithm>
#include <numeric>

#include "sgm/autograd/ops.h"
#include "sgm/core/precision.h"
#include "sgm/score/loss.h"
#include "sgm/tensor/math.h"
#include "sgm/train/checkpoint.h"

namespace sgm {
namespace {

constexpr const char* kRemedy =
    "; a classifier needs labelled images: an IDX pair, CIFAR-10, or one subfolder a class";

/// The configuration with the number of classes of the data.
Config with_classes(Config config, const Dataset& dataset) {
  const int known = dataset.num_classes();
  check(known >= 2, config.data.path, ": the images have ", known == 0 ? "no classes" : "one class only",
        kRemedy);
  int& wanted = config.classifier.num_classes;
  check(wanted == 0 || wanted >= known, "classifier.num_classes is ", wanted, ", but the data have ", known,
        " classes; set it to that, or to 0");
  if (wanted == 0) wanted = known;
  return config;
}

LoaderOptions images_for(const Config& config) {
  LoaderOptions options = loader_options(config);
  options.centered = false;
  options.crop_padding = config.classifier.crop_padding;
  return options;
}

Tensor column(Context& context, const std::vector<double>& values) {
  return Tensor::from_host(context, std::span<const double>(values), {std::ssize(values)});
}

}  // namespace

double image_noise(const SDE& sde, double t, bool centered) {
  return (centered ? 0.5 : 1.0) * sde.marginal_std(t) / sde.mean_coeff(t);
}

ClassifierTrainer::ClassifierTrainer(const Config& given, const Dataset& dataset, Context& context,
                                     bool capture)
    : Trainee(with_classes(given, dataset), dataset, context,
              create_classifier(with_classes(given, dataset), context), {images_for(given), true, capture}),
      sde_(create_sde(given.sde)) {
  for (std::int64_t i = 0; i < dataset.size(); ++i)
    check(dataset.label(i) >= 0, given.data.path, ": image ", i, " has no class", kRemedy);
  for (std::size_t part = 0; part < parts(); ++part)
    for (std::vector<Tensor>* each : {&sigma_, &labels_})
      each->push_back(Tensor::zeros(context, {micro_batch()}, DType::f64));
  correct_sum_ = Tensor::zeros(context, {micro_batch()}, DType::f64);
}

const char* ClassifierTrainer::kind() const { return kClassifier; }

void ClassifierTrainer::prepare(const Batch& batch, std::uint32_t step) {
  const std::vector<double> u =
      Loss::draw({.seed = config().training.seed, .step = step}, std::ssize(batch.labels));
  std::vector<double> sigma;
  for (const double each : u)
    sigma.push_back(image_noise(*sde_, training_time(each), config().data.centered));
  const std::vector<double> labels(batch.labels.begin(), batch.labels.end());
  for (std::size_t part = 0; part < parts(); ++part) {
    sigma_[part].upload(part_of(sigma, part));
    labels_[part].upload(part_of(labels, part));
  }
}

Var ClassifierTrainer::losses(std::size_t part) {
  const NoiseKey key = noise_key(part);
  const Tensor noisy = affine_step({.x = images(part), .noise = Noise{key, {}}, .c = sigma_[part]}).y;
  const Var logits = classifier().forward(Var(noisy), sigma_[part], {compute(), true, key});
  const CrossEntropyResult result = cross_entropy(logits, labels_[part]);
  correct_sum_.add(result.correct);
  return result.loss;
}

std::optional<double> ClassifierTrainer::read_accuracy(std::int64_t steps) {
  const std::vector<double> sums = correct_sum_.to_host_f64();
  correct_sum_.fill(0.0);
  if (steps == 0) return {};
  return std::accumulate(sums.begin(), sums.end(), 0.0) /
         static_cast<double>(steps * config().training.batch_size);
}

namespace {

/// Images of known classes.
struct LabelledBatch {
  Tensor x0;       // [N, H, W, C] in [0, 1]
  Tensor labels;   // [N] f64
  NoiseKey first;  // seed and first sample of the draws
};

/// 1 for each image that is put in its class at u[i] of the times, else 0.
std::vector<double> correct_at(Classifier& classifier, const SDE& sde, bool centered, DType compute,
                               const LabelledBatch& batch, std::uint32_t part, int parts) {
  NoiseKey key = batch.first;
  key.step = part;
  std::vector<double> sigma;
  for (std::int64_t i = 0; i < batch.x0.shape()[0]; ++i) {
    key.purpose = Purpose::time;
    const double u = uniform_at(key, static_cast<std::uint32_t>(i));
    sigma.push_back(image_noise(sde, training_time((part + u) / parts), centered));
  }
  key.purpose = Purpose::noise;
  const Tensor noise = column(batch.x0.context(), sigma);
  const Tensor noisy = affine_step({.x = batch.x0, .noise = Noise{key, {}}, .c = noise}).y;
  const Var logits = classifier.forward(Var(noisy), noise, {compute, false, {}});
  return cross_entropy(logits, batch.labels).correct.to_host_f64();
}

}  // namespace

std::vector<NoiseAccuracy> accuracy_by_noise(Classifier& classifier, const Config& config,
                                             const Dataset& dataset, Context& context, std::int64_t first,
                                             std::int64_t count, int parts) {
  const auto sde = create_sde(config.sde);
  const DType compute = use_precision(context, config.training.precision);
  const bool centered = config.data.centered;
  std::vector<NoiseAccuracy> result;
  for (int part = 0; part < parts; ++part) {
    const double t0 = training_time(static_cast<double>(part) / parts),
                 t1 = training_time((part + 1.0) / parts);
    result.push_back({t0, t1, image_noise(*sde, t0, centered), image_noise(*sde, t1, centered), 0.0});
  }
  for (std::int64_t at = first; at < first + count; at += config.training.batch_size) {
    const std::int64_t n = std::min<std::int64_t>(config.training.batch_size, first + count - at);
    std::vector<double> labels;
    for (std::int64_t i = at; i < at + n; ++i) {
      const int label = dataset.label(i);
      check(label >= 0 && label < config.classifier.num_classes, "test data: image ", i, " has class ", label,
            ", the classifier knows 0 to ", config.classifier.num_classes - 1);
      labels.push_back(label);
    }
    const LabelledBatch batch{
        read_images(dataset, at, n, false, context), column(context, labels),
        NoiseKey{.seed = config.training.seed, .first_sample = static_cast<std::uint32_t>(at)}};
    for (std::size_t part = 0; part < result.size(); ++part)
      for (const double correct :
           correct_at(classifier, *sde, centered, compute, batch, static_cast<std::uint32_t>(part), parts))
        result[part].accuracy += correct / static_cast<double>(count);
  }
  return result;
}

}  // namespace sgm
