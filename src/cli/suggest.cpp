#include "cli/suggest.h"

#include <cmath>
#include <iostream>

#include "cli/commands.h"
#include "sgm/core/error.h"
#include "sgm/data/distances.h"
#include "sgm/sde/noise_scales.h"

namespace sgm::cli {
namespace {

/// Rounded to so many digits: more would only pretend to accuracy.
double rounded(double value, int digits) {
  const double unit = std::pow(10.0, std::floor(std::log10(value)) + 1 - digits);
  return std::round(value / unit) * unit;
}

}  // namespace

void SuggestOptions::add_to(CLI::App& command) {
  command.add_flag("--suggest", wanted, "Print noise scales and a Langevin step that suit these images");
  command.add_option("--sigma-min", sigma_min, "With --suggest: the smallest noise scale")
      ->check(positive())
      ->capture_default_str();
  command.add_option("--n-steps-each", n_steps_each, "With --suggest: Langevin steps at every noise scale")
      ->check(positive())
      ->capture_default_str();
  command.add_flag("--centered", centered, "With --suggest: for data.centered = true");
}

void SuggestOptions::print(const Dataset& dataset) const {
  check(dataset.size() >= 2, "--suggest: needs two images or more, got ", dataset.size());
  const LargestDistance found = largest_distance(dataset);
  const double sigma_max = (centered ? 2.0 : 1.0) * found.distance;
  check(sigma_max > sigma_min, "--suggest: no two images are further apart than ", sigma_max,
        ", which is not above --sigma-min ", sigma_min, "; give a smaller one");
  const double wished = scale_ratio(dataset.image_bytes());
  const int scales = scale_count(sigma_min, sigma_max, wished);
  const double ratio = std::pow(sigma_max / sigma_min, 1.0 / (scales - 1));
  std::cout << "\n# The largest distance between two of " << found.images
            << (found.images < dataset.size() ? " images, chosen at random" : " images")
            << ". Neighbouring noise scales\n# overlap by half. The step leaves a variance of "
            << rounded(annealed_variance(annealed_step(sigma_min, ratio, n_steps_each), sigma_min, ratio,
                                         n_steps_each),
                       4)
            << " sigma_min^2 at the end.\n[sde]\nname = \"vesde\"\nsigma_min = " << sigma_min
            << "\nsigma_max = " << rounded(sigma_max, 3) << "\nnum_scales = " << scales
            << "\n\n[sampling]\nmethod = \"annealed_langevin\"\nn_steps_each = " << n_steps_each
            << "\nstep_lr = " << rounded(annealed_step(sigma_min, ratio, n_steps_each), 2) << '\n';
}

}  // namespace sgm::cli
