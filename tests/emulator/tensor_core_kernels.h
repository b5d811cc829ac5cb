#pragma once
// Kernels that test the emulation of kernels/tensor_core.h. Arguments point to memory that
// emulator::is_device_pointer knows; elements are the bits of bf16.

#include <cstdint>

namespace sgm::planted {

/// y [16, 16] = 1 + a b, all row by row; b_transposed: b holds its columns as rows.
void product(const std::uint16_t* a, const std::uint16_t* b, bool b_transposed, float* y);
/// Each of 32 threads copies packs of 8 elements in two groups, waits until groups_left are left (2: not at
/// all), and reads its neighbour's. waits: for all, before it returns.
void copy_beside_threads(const std::uint16_t* x, std::uint16_t* y, int groups_left, bool zeros, bool waits);

void lane_missing();
void misaligned_rows();

}  // namespace sgm::planted
