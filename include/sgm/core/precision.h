#pragma once
// The arithmetic that training.precision names.

#include <string>

#include "sgm/core/context.h"
#include "sgm/core/types.h"

namespace sgm {

/// Storage of activations for "f32", "tf32" (f32 whose products GPUs may round to TF32) or "bf16"; tells the
/// context whether it may. Throws Error, naming `key`, for another name.
DType use_precision(Context& context, const std::string& precision, const char* key = "training.precision");

}  // namespace sgm
