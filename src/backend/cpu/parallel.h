#pragma once
// When loops over elements are worth several threads.

#include <cstdint>

namespace sgm {

inline constexpr std::int64_t kParallelFrom = 1 << 15;  // fewer elements are not worth waking threads for

}  // namespace sgm
