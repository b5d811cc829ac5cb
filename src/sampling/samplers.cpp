#include <string_view>

#include "sampling/sampler_parts.h"
#include "sgm/core/error.h"
#include "sgm/core/registry.h"

namespace sgm {
namespace {

struct NamedSampler {
  std::string_view name;
  std::unique_ptr<Sampler> (*create)(const SDE& sde, const SamplingConfig& config);
};
constexpr NamedSampler kSamplers[] = {
    {"pc", create_pc_sampler}, {"ode", create_ode_sampler}, {"annealed_langevin", create_annealed_langevin}};

}  // namespace

std::vector<TimePoint> sampling_grid(int num_scales, double eps) {
  check(num_scales >= 2, "sampling.steps (or sde.num_scales) must be at least 2, got ", num_scales);
  std::vector<TimePoint> grid(static_cast<std::size_t>(num_scales));
  for (int i = 0; i < num_scales; ++i) {
    const double fraction = static_cast<double>(i) / (num_scales - 1);
    grid[static_cast<std::size_t>(i)] = {(1.0 - fraction) + fraction * eps, num_scales - 1 - i, num_scales};
  }
  return grid;
}

std::unique_ptr<Sampler> create_sampler(const SDE& sde, const SamplingConfig& config) {
  return find_entry(kSamplers, config.method, "sampling.method").create(sde, config);
}

std::vector<std::string> sampler_names() { return names_of(kSamplers); }

}  // namespace sgm
