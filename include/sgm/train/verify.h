#pragma once
// Checking a network against a reference file: weights, inputs, outputs and gradients of another
// implementation.

#include <filesystem>
#include <string>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/core/context.h"

namespace sgm {

/// A relative L2 error ||ours - reference|| / max(||reference||, floor).
struct VerifyError {
  std::string name;  // "output", or "grad." and the published name of what the gradient is in
  double error;
  double tolerance;
  /// NaN fails.
  bool passes() const { return error <= tolerance; }
};

struct VerifyOptions {
  std::string precision = "f32";    // f32 | bf16 | f64
  double output_tolerance = 0.0;    // 0: 5e-5 in f32, 1e-6 in f64, 5e-2 in bf16
  double gradient_tolerance = 0.0;  // 0: 1e-3 in f32, 1e-5 in f64, 2e-1 in bf16
};

struct VerifyReport {
  std::string network;
  std::int64_t parameters = 0;
  std::vector<VerifyError> errors;  // worst first, relative to the tolerance
  bool passes() const;
};

/// Loads a reference file (safetensors; metadata `config` in the original's option names; tensors `model.*`,
/// `x` [N, C, H, W], `labels` [N], `y`, and for gradients `w` and `grad.*` of sum(y w)), runs the network
/// forward and backward, and compares. The floor of a gradient's norm is 1e-4 of the largest parameter
/// gradient's. Throws Error for files that do not fit: a missing or unknown tensor, a wrong shape, an option
/// that does not exist.
VerifyReport verify_reference(const std::filesystem::path& file, const VerifyOptions& options,
                              Context& context);

/// Our configuration for the JSON text of the original's options; `name` stands for the file in messages.
Config config_from_reference(const std::string& json, const std::string& name);

}  // namespace sgm
