#include "cli/guidance.h"

#include <charconv>
#include <cmath>
#include <iostream>
#include <numeric>

#include "sgm/score/guidance.h"

namespace sgm::cli {
namespace {

/// "3", "0,1,2" or "all".
std::vector<int> classes_of(const std::string& text, int known) {
  std::vector<int> classes;
  if (text == "all") {
    classes.resize(static_cast<std::size_t>(known));
    std::iota(classes.begin(), classes.end(), 0);
    return classes;
  }
  for (const char *at = text.data(), *end = at + text.size(); at <= end; ++at) {
    int value = -1;
    const auto [stop, error] = std::from_chars(at, end, value);
    check(error == std::errc() && (stop == end || *stop == ','), "--class '", text,
          "' is neither a class, nor classes like 0,1,2, nor all");
    check(value >= 0 && value < known, "--class ", value, ": the classifier knows classes 0 to ", known - 1);
    classes.push_back(value);
    at = stop;
  }
  return classes;
}

}  // namespace

void GuidanceOptions::add_to(CLI::App& command) {
  command.add_option("--classifier", classifier,
                     "Working directory of classify-train, or a checkpoint: draw images of classes");
  command.add_option(
      "--class", classes,
      "A class, several like 0,1,2, or all: one row of images for each, --n rounded up to that");
  weight_given = command
                     .add_option("--guidance", weight,
                                 "Factor of the classifier's gradient; larger is surer, less varied")
                     ->capture_default_str();
}

bool GuidanceOptions::given() const {
  check(classifier.empty() || !classes.empty(), "--classifier needs --class: a class, 0,1,2 or all");
  check(classes.empty() || !classifier.empty(),
        "--class needs --classifier, the working directory of classify-train or a checkpoint of it");
  check(!classifier.empty() || weight_given->empty(), "--guidance needs --classifier and --class");
  check(std::isfinite(weight), "--guidance must be finite, got ", weight);
  if (!classifier.empty()) resolve_checkpoint(classifier);
  return !classifier.empty();
}

Guidance::Guidance(const GuidanceOptions& options, const Model& model, std::int64_t n)
    : model_(model),
      loaded_(load_classifier(resolve_checkpoint(options.classifier), *model.context)),
      weight_(options.weight),
      classes_(classes_of(options.classes, loaded_.info.config.classifier.num_classes)) {
  const DataConfig &ours = model.config().data, &its = loaded_.info.config.data;
  check(ours.image_size == its.image_size && ours.num_channels == its.num_channels, options.classifier,
        ": a classifier of ", its.image_size, " x ", its.image_size, " x ", its.num_channels,
        " images, the model draws ", ours.image_size, " x ", ours.image_size, " x ", ours.num_channels);
  columns_ = (n + std::ssize(classes_) - 1) / std::ssize(classes_);
  std::cerr << "classifier: " << options.classifier << ", step " << loaded_.info.step << '\n';
}

ScoreFn Guidance::score(std::int64_t first, std::int64_t count) const {
  ClassRequest request;
  request.centered = model_.config().data.centered;
  request.continuous = model_.config().training.continuous;
  request.compute = model_.compute;
  for (std::int64_t i = first; i < first + count; ++i)
    request.classes.push_back(classes_[static_cast<std::size_t>(i / columns_)]);
  return guided_score(model_.score, class_gradient(*loaded_.classifier, *model_.sde, std::move(request)),
                      weight_);
}

}  // namespace sgm::cli
