#pragma once
// Classes on the command line: which classifier, which classes, how strongly.

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "cli/model.h"
#include "sgm/train/checkpoint.h"

namespace sgm::cli {

struct GuidanceOptions {
  std::string classifier, classes;
  double weight = 1.0;
  const CLI::Option* weight_given = nullptr;

  void add_to(CLI::App& command);
  /// Whether classes are wanted. Throws Error when only one of classifier and classes is given, or when the
  /// classifier does not exist: for before long work.
  bool given() const;
};

/// A classifier that steers a model's images into classes, one class a row. The model must outlive it.
class Guidance {
 public:
  /// For n images, rounded up to whole rows. Throws Error for a file that holds no classifier, for one of
  /// images of another shape, and for classes that it does not know.
  Guidance(const GuidanceOptions& options, const Model& model, std::int64_t n);

  std::int64_t images() const { return std::ssize(classes_) * columns_; }
  /// Images of a row; 0 where there is one class only.
  int columns() const { return classes_.size() > 1 ? static_cast<int>(columns_) : 0; }
  /// The score for images first .. first + count - 1.
  ScoreFn score(std::int64_t first, std::int64_t count) const;

 private:
  const Model& model_;
  LoadedClassifier loaded_;
  double weight_;
  std::vector<int> classes_;  // of the rows
  std::int64_t columns_;
};

}  // namespace sgm::cli
