#pragma once
// Kernels that test the emulator itself: right ones, and ones with planted faults. All arguments point to
// memory that emulator::is_device_pointer knows.

#include <cstddef>
#include <cstdint>

namespace sgm::planted {

/// Size of a launch in blocks and threads.
struct Size {
  unsigned blocks[3] = {1, 1, 1};
  unsigned threads[3] = {1, 1, 1};
};

// ---- right ------------------------------------------------------------------------------------------------

/// y[i] of the ith thread of the grid = its indices and sizes, packed by pack_indices.
void write_indices(const Size& size, std::uint64_t* y);
constexpr std::uint64_t pack_indices(const unsigned block[3], const unsigned thread[3]) {
  std::uint64_t packed = 0;
  for (int axis = 0; axis < 3; ++axis) packed = packed * 64 + block[axis];
  for (int axis = 0; axis < 3; ++axis) packed = packed * 64 + thread[axis];
  return packed;
}

/// turn[i] = how many threads of the grid had their turn before thread i; after_barrier[i]: the same among
/// the threads of its block after a barrier. `counters` are 1 + blocks zeros.
void record_turns(unsigned blocks, unsigned threads, int* counters, int* turn, int* after_barrier);

enum class Shuffle { from, up, down, exclusive_or };
/// y[lane] = what lane gets when each brings x[lane]; one warp.
void shuffle(Shuffle kind, int operand, int width, const float* x, float* y);
void shuffle(Shuffle kind, int operand, int width, const double* x, double* y);
void shuffle(Shuffle kind, int operand, int width, const std::uint64_t* x, std::uint64_t* y);
/// Lane i reads lane source[i].
void gather(const int* source, const int* x, int* y);

/// y[8 lane ..] = ballot, any, all of predicate[lane], then sum, min, max of value[lane], and match_any,
/// match_all of it, over the lanes of the mask, which alone take part.
void votes(unsigned mask, const int* predicate, const int* value, std::int64_t* y);
/// The lower half of a warp forms 3 sums of its values in turn, the upper half 1, each with its own mask.
void half_warps(const int* x, int* y);
/// Lanes 2 and 3 exchange values before lanes 0, 1 and 2 form their sum.
void overlapping_masks(const int* x, int* y);

/// y[i] = x[i] of the next thread of the block, through static shared memory.
void rotate(unsigned threads, const float* x, float* y);
/// y[3 i ..] = __syncthreads_count, _or and _and of x[i].
void count_at_barrier(unsigned threads, const int* x, int* y);
/// y[2 block ..] = the block's static and dynamic shared memory as it was at the start; then writes to both.
void look_at_fresh_shared(unsigned blocks, float* y);
/// y[0] = sum of the block's dynamic shared bytes after it has been filled with ones.
void fill_dynamic(std::size_t bytes, unsigned* y);
/// y[block] = sum over the block by block_sum of kernels/device.h; *total = sum over the grid by the last
/// block that finishes, whose number of predecessors *finished counts and is zero again after.
void grid_sum(unsigned blocks, unsigned threads, const float* x, float* y, unsigned* finished, float* total);
/// histogram[x[i]] += 1 by all kinds of atomics; see the kernel for what the 8 results hold.
void atomics(unsigned threads, unsigned* results, float* float_sum, double* double_sum);
/// y[i] = x[i], 16 bytes by each thread.
void copy16(const float* x, float* y, unsigned packs);
void throw_exception();

// ---- at fault ---------------------------------------------------------------------------------------------

void no_barrier_before_read(unsigned threads, const float* x, float* y);
void no_barrier_before_reuse(unsigned threads, const float* x, float* y);
void two_writers(unsigned threads, float* y);
void blocks_race(unsigned blocks, float* y);
void no_warp_barrier(const float* x, float* y);
void reads_uninitialised_shared(float* y);

void divergent_barrier(unsigned threads);
void early_return(unsigned threads);
void barrier_in_half(unsigned threads);
void barrier_against_shuffle();
void mask_without_caller();
void mask_names_returned();
void mask_names_absent();
void masks_differ();
void functions_differ(int* y);
void reads_inactive_lane();
void partner_returns();
void odd_width();

void beyond_global(float* x, int i);
void beyond_dynamic(std::size_t bytes, int i);
void beyond_static(int i);
void overflow_stack(float* y);
void divide(int by, int* y);
void launch_size(const Size& size, std::size_t shared_bytes);
void static_and_dynamic(std::size_t shared_bytes, float* y);
void use_pointer(const float* first, float* second);

}  // namespace sgm::planted
