#include "sgm/sampling/likelihood.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "sampling/inner_products.h"
#include "sgm/core/registry.h"

namespace sgm {
namespace {

constexpr int kDirectionShift = 16;  // direction k of a draw has number draw + k 2^16

/// Drawn on the host, once per trajectory: signs are the same on every device anyway.
Tensor draw_rademacher(Context& context, const Shape& shape, const NoiseKey& key) {
  const std::size_t n = static_cast<std::size_t>(shape[0]);
  std::vector<double> v(static_cast<std::size_t>(shape.numel()));
  const std::size_t per_image = v.size() / std::max<std::size_t>(n, 1);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t e = 0; e < per_image; e += 4) {
      const PhiloxWords words = philox(key, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(e / 4));
      for (std::size_t j = 0; j < 4 && e + j < per_image; ++j)
        v[i * per_image + e + j] = words.word[j] >> 31 ? 1.0 : -1.0;
    }
  return Tensor::from_host(context, std::span<const double>(v), shape);
}

Tensor draw_gaussian(Context& context, const Shape& shape, const NoiseKey& key) {
  return normal(context, shape, key, 1.0, DType::f64);
}

struct NamedProbe {
  std::string_view name;
  Tensor (*draw)(Context& context, const Shape& shape, const NoiseKey& key);
};
constexpr NamedProbe kProbes[] = {{"rademacher", draw_rademacher}, {"gaussian", draw_gaussian}};

/// The flow and its divergence, for the images that are still on their way.
class FlowWithDivergence {
 public:
  FlowWithDivergence(const SDE& sde, const ScoreProductFn& score, const Probes& probes)
      : sde_(sde), score_(score), probes_(probes), present_(probes.v) {
    for (const Tensor& v : probes.v) norms_.push_back(squared_norms(v).to_host_f64());
    for (std::int64_t i = 0; i < probes.v[0].shape()[0]; ++i) images_.push_back(i);
  }

  Rates operator()(const Tensor& y, std::span<const ImageTime> times) {
    gather(times);
    const FlowCoefficients flow = flow_coefficients(sde_, times);
    Rates rates{{}, std::vector<double>(times.size(), 0.0)};
    for (std::size_t k = 0; k < present_.size(); ++k) {
      const ScoreAndProduct at = score_(y, present_[k], times);
      const std::vector<double> forms = inner_products(present_[k], at.product);
      for (std::size_t m = 0; m < times.size(); ++m) {
        // f d is estimated as f |v|^2: what Gaussian probes miss of it they also miss of the trace.
        const double norm = norms_[k][static_cast<std::size_t>(times[m].image)];
        rates.along[m] += probes_.weight * (flow.of_x[m] * norm + flow.of_score[m] * forms[m]);
      }
      if (k == 0) rates.y = flow_drift(flow, y, at.score);
    }
    return rates;
  }

 private:
  /// Makes present_ the probes of the images in `times`.
  void gather(std::span<const ImageTime> times) {
    std::vector<std::int64_t> images;
    for (const ImageTime& time : times) images.push_back(time.image);
    if (images == images_) return;
    for (std::size_t k = 0; k < present_.size(); ++k)
      present_[k] = gather_images(probes_.v[k], probes_.v[k], images);
    images_ = std::move(images);
  }

  const SDE& sde_;
  const ScoreProductFn& score_;
  const Probes& probes_;
  std::vector<Tensor> present_;
  std::vector<std::int64_t> images_;        // whose probes are present
  std::vector<std::vector<double>> norms_;  // squared, of each direction and image
};

}  // namespace

Probes random_probes(std::string_view kind, Context& context, const Shape& shape, int count, NoiseKey key) {
  const NamedProbe& entry = find_entry(kProbes, kind, "probe");
  constexpr int kMost = 1 << kDirectionShift;
  check(count >= 1 && count < kMost, "probes: their number must lie in [1, ", kMost - 1, "], got ", count);
  check(key.step < kMost, "probes: draw ", key.step, " is beyond ", kMost - 1);
  Probes probes{{}, 1.0 / count};
  for (int k = 0; k < count; ++k, key.step += kMost) probes.v.push_back(entry.draw(context, shape, key));
  return probes;
}

std::vector<std::string> probe_names() { return names_of(kProbes); }

Probes unit_probes(Context& context, const Shape& shape) {
  const std::int64_t n = shape[0], dim = with_batch(shape, 1).numel();
  check(dim <= kMaxExactTrace,
        "likelihood: an exact trace takes one product per dimension, so images have at most ", kMaxExactTrace,
        " values; these have ", dim, "; use random probes");
  Probes probes;
  for (std::int64_t e = 0; e < dim; ++e) {
    std::vector<double> v(static_cast<std::size_t>(shape.numel()), 0.0);
    for (std::int64_t i = 0; i < n; ++i) v[static_cast<std::size_t>(i * dim + e)] = 1.0;
    probes.v.push_back(Tensor::from_host(context, std::span<const double>(v), shape));
  }
  return probes;
}

Likelihood log_likelihood(const SDE& sde, const ScoreProductFn& score, const Tensor& x, const Probes& probes,
                          const FlowOptions& options) {
  check(!probes.v.empty(), "likelihood: no probes");
  for (const Tensor& v : probes.v)
    check(v.shape() == x.shape(), "likelihood: probes have shape ", v.shape(), ", data have ", x.shape());
  FlowWithDivergence flow(sde, score, probes);
  ODESolution solution = integrate_along(std::ref(flow), x.to(DType::f64), options.eps, 1.0, options.ode);
  Likelihood result;
  result.latent = solution.y;
  result.delta = std::move(solution.along);
  result.nfe = std::move(solution.nfe);
  result.complete = solution.complete;
  const std::int64_t n = x.shape()[0], dim = n == 0 ? 0 : x.numel() / n;
  for (const double norm : squared_norms(result.latent).to_host_f64())
    result.log_prior.push_back(sde.prior_logp(norm, dim));
  return result;
}

double bits_per_dim(double log_likelihood, std::int64_t dim, double range) {
  return -log_likelihood / (static_cast<double>(dim) * std::numbers::ln2) + std::log2(256.0 / range);
}

}  // namespace sgm
