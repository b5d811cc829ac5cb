#include "sgm/lab/proof.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lab/proof/parts.h"
#include "sgm/core/registry.h"
#include "sgm/plot/figure.h"

namespace sgm {
namespace {

struct Group {
  std::string_view name;
  void (*run)(lab::ProofRun& run);
  bool has_curves = false;
};
constexpr Group kGroups[] = {
    {"weak_orders", lab::prove_weak_orders, true},
    {"strong_orders", lab::prove_strong_orders, true},
    {"solvers", lab::prove_solvers, true},
    {"fokker_planck", lab::prove_fokker_planck, true},
    {"forward_paths", lab::prove_forward_paths},
    {"likelihoods", lab::prove_likelihoods},
    {"encoding", lab::prove_encoding},
    {"correctors", lab::prove_correctors},
    {"samplers", lab::prove_samplers},
};

}  // namespace

namespace lab {

void ProofRun::add(Check check) {
  proof_.checks.push_back(std::move(check));
  if (options_.made && !options_.made(proof_.checks.back())) throw ProofStopped();
}

}  // namespace lab

bool Check::passes() const {
  switch (rule) {
    case Rule::near: return std::abs(value - target) <= tolerance;
    case Rule::at_most: return value <= target;
    case Rule::at_least: return value >= target;
  }
  return false;
}

std::string Check::requirement() const {
  std::ostringstream text;
  text.precision(4);
  if (rule == Rule::near) text << target << " +- " << tolerance;
  if (rule == Rule::at_most) text << "at most " << target;
  if (rule == Rule::at_least) text << "at least " << target;
  return text.str();
}

bool Proof::passes() const {
  return std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.passes(); });
}

Proof prove(Context& context, const ProofOptions& options) {
  for (const std::string& name : options.only) find_entry(kGroups, name, "--only");
  const auto is_chosen = [&](const Group& group) {
    return options.only.empty() ||
           std::find(options.only.begin(), options.only.end(), group.name) != options.only.end();
  };
  check(!options.needs_curves || std::any_of(std::begin(kGroups), std::end(kGroups),
                                             [&](const Group& e) { return e.has_curves && is_chosen(e); }),
        "--plot: none of the groups of --only measures an order; add weak_orders, strong_orders, solvers or "
        "fokker_planck");
  Proof proof;
  lab::ProofRun run(context, options, proof);
  try {
    for (const Group& group : kGroups)
      if (is_chosen(group)) group.run(run);
  } catch (const lab::ProofStopped&) {
  }
  return proof;
}

std::vector<std::string> proof_names() { return names_of(kGroups); }

Image plot_orders(const Proof& proof) {
  // A row of axes for each group, a column for each SDE, which is the first word of a curve's name.
  std::vector<std::string> groups, sdes;
  const auto place = [](std::vector<std::string>& names, const std::string& name) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found != names.end()) return static_cast<int>(found - names.begin());
    names.push_back(name);
    return static_cast<int>(names.size()) - 1;
  };
  const auto sde_of = [](const ErrorCurve& curve) { return curve.name.substr(0, curve.name.find(',')); };
  for (const ErrorCurve& curve : proof.curves) place(groups, curve.group), place(sdes, sde_of(curve));
  check(!groups.empty(), "prove: no order was measured, so there is nothing to plot");
  const int rows = static_cast<int>(groups.size()), columns = static_cast<int>(sdes.size());
  Figure figure({.width = 480 * columns, .height = 360 * rows, .rows = rows, .columns = columns});
  for (const ErrorCurve& curve : proof.curves) {
    Axes& axes = figure.at(place(groups, curve.group) * columns + place(sdes, sde_of(curve)));
    axes.title = sde_of(curve) + ": " + curve.group;
    axes.x = {.label = curve.group == "Fokker-Planck" ? "cells" : "steps", .is_log = true};
    axes.y = {.label = "error", .is_log = true};
    axes.add(Line{.x = curve.steps,
                  .y = curve.errors,
                  .label = curve.name.substr(curve.name.find(',') + 2),
                  .marker = 2.5});
  }
  return figure.draw();
}

std::string to_json(const Proof& proof) {
  nlohmann::ordered_json checks = nlohmann::ordered_json::array(), curves = checks;
  for (const Check& check : proof.checks)
    checks.push_back({{"name", check.name},
                      {"what", check.what},
                      {"value", check.value},
                      {"requirement", check.requirement()},
                      {"passes", check.passes()}});
  for (const ErrorCurve& curve : proof.curves)
    curves.push_back(
        {{"group", curve.group}, {"name", curve.name}, {"steps", curve.steps}, {"errors", curve.errors}});
  return nlohmann::ordered_json{{"passes", proof.passes()}, {"checks", checks}, {"curves", curves}}.dump(2) +
         '\n';
}

}  // namespace sgm
