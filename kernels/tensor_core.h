#pragma once
// Instructions that CUDA C++ has no words for: products on tensor cores, loads of their operands, and copies
// into shared memory that run beside the threads. All lanes of a warp call them together, but for the copies.
// This is the only place with inline assembly. For kernel sources only.

#include "kernels/device.h"

#ifdef SGM_EMULATE_CUDA
#include "emulator/tensor_core.h"
#endif

namespace sgm {

/// Two neighbouring bf16, the first in the lower half.
using BFloat16Pair = std::uint32_t;

__device__ inline BFloat16Pair pair_of(float first, float second) {
  return rounded_to<bfloat16>(first).bits | BFloat16Pair{rounded_to<bfloat16>(second).bits} << 16;
}
__device__ inline float first_of(BFloat16Pair pair) { return std::bit_cast<float>(pair << 16); }
__device__ inline float second_of(BFloat16Pair pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

/// sum += a b for a [16, 16], b [16, 8] and sum [16, 8] that the lanes of a warp hold together. Lane 4 g + t
/// has of
///   sum  row g, columns 2 t and 2 t + 1; row g + 8, the same columns
///   a    pairs of neighbouring columns: (g, 2 t), (g + 8, 2 t), (g, 2 t + 8), (g + 8, 2 t + 8)
///   b    pairs of rows below each other: (2 t, g), (2 t + 8, g).
__device__ inline void multiply_add(float (&sum)[4], const BFloat16Pair (&a)[4], BFloat16Pair b0,
                                    BFloat16Pair b1) {
#ifdef SGM_EMULATE_CUDA
  emulator::multiply_add(sum, a, {b0, b1});
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/// Four matrices [8, 8] in shared memory: lane i brings the address, a multiple of 16 bytes, of row i % 8 of
/// matrix i / 8. Lane 4 g + t gets of each (g, 2 t) and (g, 2 t + 1).
__device__ inline void load_matrices(BFloat16Pair (&to)[4], const bfloat16* row) {
#ifdef SGM_EMULATE_CUDA
  emulator::load_matrices(to, row, false);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

/// The same, transposed: lane 4 g + t gets (2 t, g) and (2 t + 1, g).
__device__ inline void load_transposed(BFloat16Pair (&to)[4], const bfloat16* row) {
#ifdef SGM_EMULATE_CUDA
  emulator::load_matrices(to, row, true);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

/// Copies 16 bytes to shared memory, or fills them with zeros, at the latest when the thread waits for them;
/// others see them after the next barrier. Both addresses are multiples of 16, `from` in either case.
__device__ inline void copy_beside(bfloat16* to, const bfloat16* from, bool zeros) {
#ifdef SGM_EMULATE_CUDA
  emulator::copy_beside(to, from, 16, zeros);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from), "r"(zeros ? 0 : 16)
               : "memory");
#endif
}

/// Ends a group of the thread's copies.
__device__ inline void end_copies() {
#ifdef SGM_EMULATE_CUDA
  emulator::end_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits for the thread's copies but those of the last kGroups groups.
template <int kGroups>
__device__ inline void wait_for_copies() {
#ifdef SGM_EMULATE_CUDA
  emulator::wait_for_copies(kGroups);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
#endif
}

}  // namespace sgm
