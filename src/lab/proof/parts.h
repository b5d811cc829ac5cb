#pragma once
// What the groups of the proof have in common, and the functions of the table in proof.cpp.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lab/marginal.h"
#include "sgm/core/config.h"
#include "sgm/lab/density.h"
#include "sgm/lab/proof.h"
#include "sgm/sde/sde.h"

namespace sgm::lab {

/// Thrown when ProofOptions::made said to stop.
struct ProofStopped {};

/// Where a group puts what it has measured.
class ProofRun {
 public:
  ProofRun(Context& context, const ProofOptions& options, Proof& proof)
      : context_(context), options_(options), proof_(proof) {}

  Context& context() const { return context_; }
  bool is_full() const { return options_.full; }

  void near(std::string name, std::string what, double value, double target, double tolerance) {
    add({std::move(name), std::move(what), value, target, tolerance, Check::Rule::near});
  }
  void at_most(std::string name, std::string what, double value, double target) {
    add({std::move(name), std::move(what), value, target, 0.0, Check::Rule::at_most});
  }
  void at_least(std::string name, std::string what, double value, double target) {
    add({std::move(name), std::move(what), value, target, 0.0, Check::Rule::at_least});
  }
  void curve(ErrorCurve curve) { proof_.curves.push_back(std::move(curve)); }

 private:
  void add(Check check);

  Context& context_;
  const ProofOptions& options_;
  Proof& proof_;
};

void prove_weak_orders(ProofRun& run);
void prove_strong_orders(ProofRun& run);
void prove_solvers(ProofRun& run);
void prove_likelihoods(ProofRun& run);
void prove_encoding(ProofRun& run);
void prove_correctors(ProofRun& run);
void prove_fokker_planck(ProofRun& run);
void prove_forward_paths(ProofRun& run);
void prove_samplers(ProofRun& run);

// ---- problems ---------------------------------------------------------------------------------------------

/// With the default constants, unless `change` sets others.
std::unique_ptr<SDE> proof_sde(const std::string& name, int num_scales = 1000,
                               const std::function<void(SDEConfig&)>& change = {});
/// "VE", "VP", "sub-VP".
std::string short_name(const std::string& sde);

/// Two modes on a line, uneven and of unequal width.
std::unique_ptr<Density> line_mixture();
/// Three modes in the plane: uneven weights, one correlated, centred near the origin.
std::unique_ptr<Density> plane_mixture();

/// The distribution function of the perturbed line_mixture(), and its inverse.
double line_cdf(double x, const Marginal& at);
double line_quantile(double u, const Marginal& at);

}  // namespace sgm::lab
