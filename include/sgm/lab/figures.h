#pragma once
// The laboratory's figures: what the SDEs, their reversal and the samplers do to a density that is known.

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/data/image.h"
#include "sgm/io/npy.h"
#include "sgm/lab/density.h"
#include "sgm/sampling/score_fn.h"
#include "sgm/sampling/score_product.h"
#include "sgm/sde/sde.h"

namespace sgm {

/// What figures are made of. All that is referred to must outlive it.
struct Laboratory {
  Context& context;
  const Density& density;
  const SDE& sde;
  ScoreFn score;                 // exact or learned
  ScoreProductFn score_product;  // the same with its Jacobian
  bool is_learned = false;       // whether the score differs from the exact one
  SamplingConfig sampling = {};
  std::int64_t n = 4000;  // points of every cloud
  std::uint64_t seed = 0;
  /// Told what is being computed and the fraction done; false ends the figure with LabInterrupted.
  std::function<bool(const std::string& what, double fraction)> progress = {};
};

/// Thrown by a figure that progress() stopped.
class LabInterrupted : public std::exception {};

/// What a figure consists of. Names are those of files, without extension.
struct LabReport {
  struct Number {
    std::string what;
    double value;
  };
  std::map<std::string, Image> pictures;
  std::map<std::string, std::vector<Image>> animations;
  NamedArrays arrays;
  std::vector<Number> numbers;
};

/// Makes a figure. Throws Error for an unknown name and as its samplers do.
LabReport make_figure(std::string_view name, const Laboratory& lab);
/// Known names: density, score, forward, reverse, marginals, langevin, samplers, likelihood.
std::vector<std::string> figure_names();

}  // namespace sgm
