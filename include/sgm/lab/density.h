#pragma once
// Densities that are known in closed form, and stay so after perturbation: whatever trains, samples or
// evaluates can be compared with the truth.
//
// Every density is a mixture of Gaussians or of uniform boxes. Adding Gaussian noise to either gives a
// mixture again, of wider Gaussians or of differences of error functions, so that the density p_t of an SDE,
// its score and the derivative of its score are exact at every t.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sgm/sampling/score_product.h"
#include "sgm/sde/sde.h"
#include "sgm/tensor/tensor.h"

namespace sgm {

/// The density of mean_coeff X + std z, where X is a draw of the data and z standard normal. Points and
/// directions have dim() elements.
class PerturbedDensity {
 public:
  virtual ~PerturbedDensity() = default;
  /// In nats; minus infinity outside the support of boxes without noise.
  virtual double log_prob(std::span<const double> x) const = 0;
  /// The gradient of log_prob, which is returned; zero outside the support.
  virtual double score(std::span<const double> x, std::span<double> out) const = 0;
  /// The same for many points [n, dim].
  virtual void scores(std::span<const double> x, std::span<double> out) const = 0;
  /// The score, and the product of its Jacobian, which is symmetric, with `direction`.
  virtual void score_product(std::span<const double> x, std::span<const double> direction,
                             std::span<double> score, std::span<double> product) const = 0;
};

class Density {
 public:
  /// Of each coordinate, for pictures.
  struct Range {
    double low, high;
  };

  Density(std::string name, int dim, Range range) : name_(std::move(name)), dim_(dim), range_(range) {}
  virtual ~Density() = default;

  const std::string& name() const { return name_; }
  int dim() const { return dim_; }
  Range range() const { return range_; }

  /// The density after perturbation; {1, 0} is that of the data. For many points at one time.
  virtual std::unique_ptr<PerturbedDensity> at(const Marginal& marginal) const = 0;
  /// Draws [n, dim] of the perturbed density; row i is a function of the seed and of first + i alone.
  virtual std::vector<double> sample(std::int64_t n, std::uint64_t seed, std::int64_t first = 0,
                                     const Marginal& marginal = {1.0, 0.0}) const = 0;
  /// Of the data: [dim] and [dim, dim].
  virtual std::vector<double> mean() const = 0;
  virtual std::vector<double> covariance() const = 0;

  double log_prob(std::span<const double> x, const Marginal& marginal = {1.0, 0.0}) const {
    return at(marginal)->log_prob(x);
  }
  void score(std::span<const double> x, const Marginal& marginal, std::span<double> out) const {
    at(marginal)->score(x, out);
  }

 private:
  std::string name_;
  int dim_;
  Range range_;
};

/// sum_k weights[k] N(means[k], covariances[k]); weights [K], means [K, dim], covariances [K, dim, dim].
/// Throws Error for weights that are negative or do not sum to 1 and for covariances that are not symmetric
/// and positive definite. Without a range: where the components are, three standard deviations around.
std::unique_ptr<Density> gaussian_mixture(std::string name, std::vector<double> weights,
                                          std::vector<double> means, std::vector<double> covariances,
                                          std::optional<Density::Range> range = {});

/// The density that a TOML file describes; docs/densities.md lists the kinds. Throws Error naming the file,
/// the line and the key.
std::unique_ptr<Density> load_density(const std::filesystem::path& toml);
/// The same from text. `name` stands for the file in messages, and a file that the text names is looked for
/// beside it.
std::unique_ptr<Density> parse_density(const std::string& text, const std::filesystem::path& name);
/// Known values of the key "kind".
std::vector<std::string> density_names();

/// Draws as a batch [n, 1, 1, dim] f32.
Tensor sample_tensor(const Density& density, Context& context, std::int64_t n, std::uint64_t seed,
                     std::int64_t first = 0, const Marginal& marginal = {1.0, 0.0});

/// grad log p_t of the SDE started in `density`, of batches [N, d] or [N, 1, 1, d], f32 or f64, on the host's
/// threads. Both must outlive it.
ScoreFn exact_score(const Density& density, const SDE& sde);

/// The same, with the Jacobian in closed form.
ScoreProductFn exact_score_product(const Density& density, const SDE& sde);

}  // namespace sgm
