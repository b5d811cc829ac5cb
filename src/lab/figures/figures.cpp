#include "sgm/lab/figures.h"

#include "lab/figures/parts.h"
#include "sgm/core/registry.h"

namespace sgm {
namespace {

constexpr struct {
  std::string_view name;
  LabReport (*make)(const Laboratory& lab);
} kFigures[] = {{"density", lab::density_figure},     {"score", lab::score_figure},
                {"forward", lab::forward_figure},     {"reverse", lab::reverse_figure},
                {"marginals", lab::marginals_figure}, {"langevin", lab::langevin_figure},
                {"samplers", lab::samplers_figure},   {"likelihood", lab::likelihood_figure}};

}  // namespace

LabReport make_figure(std::string_view name, const Laboratory& lab) {
  return find_entry(kFigures, name, "--figure").make(lab);
}

std::vector<std::string> figure_names() { return names_of(kFigures); }

}  // namespace sgm
