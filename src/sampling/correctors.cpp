#include <cmath>
#include <string_view>

#include "sgm/core/error.h"
#include "sgm/core/registry.h"
#include "sgm/sampling/predictor_corrector.h"

namespace sgm {
namespace {

/// n_steps_each steps x_mean = x + s score, x <- x_mean + sqrt(2 s) z of Langevin dynamics at fixed t.
class LangevinDynamics : public Corrector {
 public:
  LangevinDynamics(const SDE& sde, const SamplingConfig& config)
      : sde_(sde), snr_(config.snr), n_steps_(static_cast<std::uint32_t>(config.n_steps_each)) {
    check(config.n_steps_each >= 1, "sampling.n_steps_each must be at least 1, got ", config.n_steps_each,
          "; corrector 'none' takes no steps");
    check(snr_ > 0 && snr_ < 1e6, "sampling.snr must be positive, got ", snr_);
  }

  std::uint32_t draws() const final { return n_steps_; }
  State step(const Tensor& x, const Update& update) const final {
    State state{x, x};
    for (std::uint32_t j = 0; j < n_steps_; ++j) {
      AffineTerms terms{.x = state.x, .score = update.score(state.x)};
      terms.noise = update.noise(j, x);
      choose_step(terms, update.numbers);
      terms.want_mean = update.want_mean && j + 1 == n_steps_;
      AffineResult result = affine_step(terms);
      state = {result.y, result.mean};
    }
    return state;
  }

 protected:
  /// Sets b = s and c = sqrt(2 s).
  virtual void choose_step(AffineTerms& terms, std::span<const Coefficient> numbers) const = 0;

  const SDE& sde_;
  const double snr_;

 private:
  std::uint32_t n_steps_;
};

/// Algorithms 4 and 5: s = 2 alpha (snr |z| / |score|)^2, with the norms of each image, so that an image does
/// not depend on its batch, or with their means over the batch, as the reference has it.
class Langevin final : public LangevinDynamics {
 public:
  Langevin(const SDE& sde, const SamplingConfig& config)
      : LangevinDynamics(sde, config), batch_mean_(config.batch_mean_norms) {}

  std::vector<double> numbers(const TimePoint& at) const override { return {sde_.langevin_alpha(at)}; }

 protected:
  void choose_step(AffineTerms& terms, std::span<const Coefficient> numbers) const override {
    const LangevinStep step = langevin_step(squared_norms(terms.score), squared_norms(*terms.noise, terms.x),
                                            numbers[0], snr_, batch_mean_);
    terms.b = step.b;
    terms.c = step.c;
  }

 private:
  bool batch_mean_;
};

/// Annealed Langevin dynamics of the original NCSN: s = 2 alpha (snr marginal_std)^2.
class AnnealedLangevin final : public LangevinDynamics {
 public:
  using LangevinDynamics::LangevinDynamics;

  std::vector<double> numbers(const TimePoint& at) const override {
    const double noise = snr_ * sde_.marginal_std(at.t), step = 2.0 * sde_.langevin_alpha(at) * noise * noise;
    return {step, std::sqrt(2.0 * step)};
  }

 protected:
  void choose_step(AffineTerms& terms, std::span<const Coefficient> numbers) const override {
    terms.b = numbers[0];
    terms.c = numbers[1];
  }
};

/// Leaves the batch alone and asks for no score.
class NoCorrector final : public Corrector {
 public:
  std::vector<double> numbers(const TimePoint&) const override { return {}; }
  std::uint32_t draws() const override { return 0; }
  State step(const Tensor& x, const Update&) const override { return {x, x}; }
};

template <class T>
std::unique_ptr<Corrector> create(const SDE& sde, const SamplingConfig& config, int num_scales) {
  sde.langevin_alpha({1.0, num_scales - 1, num_scales});  // refuses too few scales before the run begins
  return std::make_unique<T>(sde, config);
}

struct NamedCorrector {
  std::string_view name;
  std::unique_ptr<Corrector> (*create)(const SDE& sde, const SamplingConfig& config, int num_scales);
};
constexpr NamedCorrector kCorrectors[] = {
    {"langevin", create<Langevin>},
    {"ald", create<AnnealedLangevin>},
    {"none",
     [](const SDE&, const SamplingConfig&, int) -> std::unique_ptr<Corrector> {
       return std::make_unique<NoCorrector>();
     }},
};

}  // namespace

std::unique_ptr<Corrector> create_corrector(const SDE& sde, const SamplingConfig& config, int num_scales) {
  return find_entry(kCorrectors, config.corrector, "sampling.corrector").create(sde, config, num_scales);
}

std::vector<std::string> corrector_names() { return names_of(kCorrectors); }

}  // namespace sgm
