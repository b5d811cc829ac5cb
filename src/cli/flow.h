#pragma once
// What the commands along the probability-flow ODE have in common: solver settings, images of a data set in a
// model's shape, and work in batches.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/model.h"
#include "sgm/data/dataset.h"
#include "sgm/sampling/ode_solver.h"

namespace sgm::cli {

/// How the ODE is solved, and how many images at a time.
struct FlowSettings {
  std::string solver;
  int steps = -1, batch = 32;
  double eps = 1e-5, rtol = -1, atol = -1;
  bool batch_mean_norms = false;

  void add_to(CLI::App& command);
  /// The checkpoint's settings with these overrides; eps is that of likelihoods and codes, not of sampling.
  FlowOptions of(const Model& model) const;
};

/// Images of a data set.
struct DataOptions {
  std::string path = {};
  std::int64_t first = 0, n = 0;
  bool resize = false;

  /// Without `with_range`: no --first and --n. n as it is then is the default, 0: all.
  void add_to(CLI::App& command, bool with_range = true);
  /// The set at `path`. Throws Error when its images have another shape than the model's, unless `resize`
  /// makes them fit as training does, and when it has no images first .. first + n - 1. n = 0 becomes all
  /// from `first`.
  std::unique_ptr<Dataset> open(const Model& model);
};

/// Told the fraction done of the present batch; false: stop.
using OnTheWay = std::function<bool(double fraction)>;
/// Calls work(first, n, on_the_way) for the batches of 0 .. count - 1, from `done` on, with progress on
/// stderr, until it returns false; whether all was done.
bool in_batches(std::int64_t done, std::int64_t count, int batch,
                const std::function<bool(std::int64_t first, std::int64_t n, const OnTheWay&)>& work);

/// Latent codes of images.
struct Codes {
  Shape shape;           // [N, H, W, C]
  std::vector<float> z;  // at t = 1
  std::vector<std::int64_t> nfe;

  /// Codes first .. first + n - 1, times `factor`, on the model's device.
  Tensor at(Context& context, std::int64_t first, std::int64_t n, double factor = 1.0) const;
};
/// Codes of these images of the set; none when interrupted.
std::optional<Codes> encode_images(const Model& model, const Dataset& dataset,
                                   std::span<const std::int64_t> images, const FlowSettings& settings);

/// Decodes `n` latent codes, which `codes(first, n)` gives batch by batch, and writes the images. Returns the
/// exit code; interrupted work writes nothing.
int decode_images(const Model& model, const FlowSettings& settings, std::int64_t n,
                  const std::function<Tensor(std::int64_t first, std::int64_t n)>& codes, ImageOutput& out,
                  int columns = 0);

}  // namespace sgm::cli
