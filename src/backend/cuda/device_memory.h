#pragma once
// The memory of a GPU's tensors.

#include <cstddef>
#include <memory>

#include "backend/memory_source.h"

namespace sgm {

/// Memory of the current device; adds to *held what it holds, which never exceeds `limit` bytes (0: what
/// there is).
std::unique_ptr<MemorySource> create_device_memory(std::shared_ptr<std::size_t> held, std::size_t limit);

}  // namespace sgm
