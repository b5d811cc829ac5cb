#pragma once
// The way into the CUDA backend, free of CUDA's headers.

#include <memory>
#include <string>

#include "sgm/core/context.h"

namespace sgm {

/// The first visible device, of whose memory tensors may hold max_memory bytes (0: all). Throws Error where
/// cuda_problem() is not empty.
std::unique_ptr<Context> create_cuda_context(std::size_t max_memory);
/// No device: launches are counted and not executed.
std::unique_ptr<Context> create_dry_cuda_context();
/// Why there is no usable device, with the driver's and the runtime's versions; empty where there is one.
std::string cuda_problem();

}  // namespace sgm
