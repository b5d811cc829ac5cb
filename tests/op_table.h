#pragma once
// One row for every differentiable op, option and shape that is worth a test. All tests of ops walk it.

#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "check.h"

namespace sgm {

using Vars = std::span<const Var>;
using Inputs = std::vector<Values>;

enum class Role {
  activation,  // [N, ...]
  parameter,   // f32 beside bf16 activations
  filter,      // the same, but rounded to bf16 inside the op
  shift,       // f32 beside bf16 activations, [N, ...]
};

struct OpInput {
  Shape shape;
  Role role = Role::activation;
  double mean = 0.0, std = 1.0;
};

struct OpRow {
  std::string name;
  std::string op;  // what the tape calls it
  std::vector<OpInput> inputs;
  Function build;
  std::function<Values(const std::vector<Values>&)> naive;
  bool affine = true;      // in each input on its own: gradients are adjoints, exact to rounding
  bool costly = false;     // only the backends' fast paths are of interest
  Tolerance f32 = {1e-6};  // of values and gradients, against f64
  bool bf16 = true;        // accepts bf16
  // By default one rounding of values, and of gradients two, 2^-8 each.
  Tolerance bf16_value = {4e-3, 4e-3}, bf16_gradient = {6e-3, 8e-3};
};

/// The parts, printed one after the other.
template <class... Parts>
std::string text_of(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

std::vector<OpRow> op_table();

/// Parts of it in files of their own.
void add_tangent_ops(std::vector<OpRow>& rows);
void add_classifier_ops(std::vector<OpRow>& rows);
void add_refine_ops(std::vector<OpRow>& rows);

}  // namespace sgm
