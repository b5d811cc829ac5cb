#pragma once
// sgm data --suggest: noise scales that suit a set of images.

#include <CLI/CLI.hpp>

#include "sgm/data/dataset.h"

namespace sgm::cli {

struct SuggestOptions {
  bool wanted = false, centered = false;
  double sigma_min = 0.01;
  int n_steps_each = 5;

  void add_to(CLI::App& command);
  /// A fragment of a configuration file.
  void print(const Dataset& dataset) const;
};

}  // namespace sgm::cli
