#pragma once

#include <cstddef>

namespace sgm::emulator {

/// Bytes of shared memory that a block may have when the launch opts in, which launch() of kernels/device.h
/// does for dynamic memory beyond the second number, and that it may have otherwise. Of compute
/// capability 9.0.
inline constexpr std::size_t kMostShared = 227 * 1024, kPlainShared = 48 * 1024;

}  // namespace sgm::emulator
