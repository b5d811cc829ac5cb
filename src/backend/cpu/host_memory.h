#pragma once
// The memory of a CPU's tensors.

#include <cstddef>
#include <memory>

#include "backend/memory_source.h"

namespace sgm {

/// One region of addresses, several times as large as the machine's memory, that is given memory from its
/// beginning as it grows, in huge pages where the system has them. At most `limit` bytes; 0: what there is.
std::unique_ptr<MemorySource> create_host_memory(std::size_t limit);

}  // namespace sgm
