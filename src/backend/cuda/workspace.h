#pragma once
// Temporary memory of the vendor libraries.

#include <algorithm>
#include <bit>
#include <cstddef>

namespace sgm {

/// What to allocate for a library that wants `bytes`: of few sizes, so that calls which follow each other use
/// the same block again.
inline std::size_t workspace_size(std::size_t bytes) {
  constexpr std::size_t kLeast = std::size_t{1} << 20;
  return bytes == 0 ? 0 : std::max(kLeast, std::bit_ceil(bytes));
}

}  // namespace sgm
