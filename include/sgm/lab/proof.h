#pragma once
// The proof: everything in this program that has a closed form, measured beside it.

#include <functional>
#include <string>
#include <vector>

#include "sgm/core/context.h"
#include "sgm/data/image.h"

namespace sgm {

/// One measured number and what it must be.
struct Check {
  enum class Rule { near, at_most, at_least };

  std::string name;  // group, SDE and method
  std::string what;  // is measured
  double value = 0.0;
  double target = 0.0;
  double tolerance = 0.0;  // of near
  Rule rule = Rule::near;

  /// Not where the value is NaN.
  bool passes() const;
  /// "1 +- 0.2", "at most 0.001".
  std::string requirement() const;
};

/// Errors of a method against its number of steps.
struct ErrorCurve {
  std::string group, name;
  std::vector<double> steps, errors;
};

struct Proof {
  std::vector<Check> checks;
  std::vector<ErrorCurve> curves;

  bool passes() const;
};

struct ProofOptions {
  bool full = false;              // all samplers at 50,000 points instead of some at 10,000
  std::vector<std::string> only;  // groups; none: all
  bool needs_curves = false;      // refuse groups that measure no order
  /// Told every check when it is made; false ends the proof.
  std::function<bool(const Check& check)> made = {};
};

/// Runs the groups. Throws Error for an unknown group, and for missing curves, before any has run.
Proof prove(Context& context, const ProofOptions& options = {});
/// Names of the groups.
std::vector<std::string> proof_names();

/// The error curves of all groups on logarithmic axes.
Image plot_orders(const Proof& proof);
/// The proof as JSON: every check with its numbers and whether it passes, and the curves.
std::string to_json(const Proof& proof);

}  // namespace sgm
