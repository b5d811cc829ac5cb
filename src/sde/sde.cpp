#include "sgm/sde/sde.h"

#include <cmath>
#include <numbers>

#include "sde/families.h"
#include "sgm/core/error.h"
#include "sgm/core/registry.h"

namespace sgm {
namespace {

struct NamedSde {
  std::string_view name;
  std::unique_ptr<SDE> (*create)(const SDEConfig& config);
};
constexpr NamedSde kSDEs[] = {
    {"vesde", create_ve_sde},
    {"vpsde", create_vp_sde},
    {"subvpsde", create_sub_vp_sde},
};

[[noreturn]] void fail_discrete() {
  fail("training.continuous = false: this SDE has no discrete noise scales; train it continuously");
}

}  // namespace

double SDE::prior_logp(double squared_norm, std::int64_t dim) const {
  const double variance = prior_std() * prior_std();
  return -0.5 *
         (static_cast<double>(dim) * std::log(2.0 * std::numbers::pi * variance) + squared_norm / variance);
}

ForwardStep SDE::discretize(const TimePoint& at) const {
  const double dt = 1.0 / at.num_scales;
  return {drift(at.t) * dt, diffusion(at.t) * std::sqrt(dt)};
}

ReverseStep SDE::ancestral(const TimePoint&) const {
  fail(
      "predictor ancestral_sampling: this SDE is no limit of a chain with a known posterior; use "
      "euler_maruyama or "
      "reverse_diffusion");
}

double SDE::langevin_alpha(const TimePoint&) const { return 1.0; }

Marginal SDE::discrete_marginal(int, int) const { fail_discrete(); }
double SDE::discrete_label(const TimePoint&) const { fail_discrete(); }
double SDE::discrete_score_scale(const TimePoint&) const { fail_discrete(); }

std::unique_ptr<SDE> create_sde(const SDEConfig& config) {
  check(config.num_scales >= 1, "sde.num_scales must be at least 1, got ", config.num_scales);
  return find_entry(kSDEs, config.name, "sde.name").create(config);
}

std::vector<std::string> sde_names() { return names_of(kSDEs); }

}  // namespace sgm
