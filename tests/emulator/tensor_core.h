#pragma once
// Emulation of the instructions behind kernels/tensor_core.h, which says what they do.

#include <cstddef>
#include <cstdint>

namespace sgm::emulator {

struct PairOfRows {
  std::uint32_t at[2];
};

void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], const PairOfRows& b,
                  const char* file = __builtin_FILE(), int line = __builtin_LINE());
void load_matrices(std::uint32_t (&to)[4], const void* row, bool transposed,
                   const char* file = __builtin_FILE(), int line = __builtin_LINE());

/// As late as the hardware may: `to` holds 0xff bytes until the thread waits.
void copy_beside(void* to, const void* from, std::size_t bytes, bool zeros);
void end_copies();
void wait_for_copies(int groups);

}  // namespace sgm::emulator
