#include "emulator/planted.h"

#include "kernels/device.h"

namespace sgm::planted {
namespace {

using emulator::Launch;

constexpr unsigned kAll = 0xffffffffu;

Launch size_of_launch(const char* name, const Size& size, std::size_t shared_bytes = 0) {
  return {name, dim3(size.blocks[0], size.blocks[1], size.blocks[2]),
          dim3(size.threads[0], size.threads[1], size.threads[2]), shared_bytes};
}

// ---- right ------------------------------------------------------------------------------------------------

__global__ void indices_kernel(std::uint64_t* y) {
  const unsigned block[3] = {blockIdx.x, blockIdx.y, blockIdx.z};
  const unsigned thread[3] = {threadIdx.x, threadIdx.y, threadIdx.z};
  const unsigned block_index = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned in_block = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  y[block_index * blockDim.x * blockDim.y * blockDim.z + in_block] = pack_indices(block, thread);
}

__global__ void turns_kernel(int* counters, int* turn, int* after_barrier) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  turn[i] = atomicAdd(counters, 1);
  __syncthreads();
  after_barrier[i] = atomicAdd(counters + 1 + blockIdx.x, 1);
}

template <class T>
__global__ void shuffle_kernel(Shuffle kind, int operand, int width, const T* x, T* y) {
  const T mine = x[threadIdx.x];
  T got{};
  switch (kind) {
    case Shuffle::from: got = __shfl_sync(kAll, mine, operand, width); break;
    case Shuffle::up: got = __shfl_up_sync(kAll, mine, static_cast<unsigned>(operand), width); break;
    case Shuffle::down: got = __shfl_down_sync(kAll, mine, static_cast<unsigned>(operand), width); break;
    case Shuffle::exclusive_or: got = __shfl_xor_sync(kAll, mine, operand, width); break;
  }
  y[threadIdx.x] = got;
}

template <class T>
void launch_shuffle(Shuffle kind, int operand, int width, const T* x, T* y) {
  emulator::launch({"shuffle", 1, 32}, nullptr, shuffle_kernel<T>, kind, operand, width, x, y);
}

__global__ void gather_kernel(const int* source, const int* x, int* y) {
  y[threadIdx.x] = __shfl_sync(kAll, x[threadIdx.x], source[threadIdx.x]);
}

__global__ void votes_kernel(unsigned mask, const int* predicate, const int* value, std::int64_t* y) {
  const unsigned lane = threadIdx.x;
  if (!(mask >> lane & 1u)) return;
  const int p = predicate[lane], v = value[lane];
  std::int64_t* out = y + 8 * lane;
  // Lanes that return before others vote must not be named: they are not, all of the mask get here.
  out[0] = __ballot_sync(mask, p);
  out[1] = __any_sync(mask, p);
  out[2] = __all_sync(mask, p);
  out[3] = __reduce_add_sync(mask, v);
  out[4] = __reduce_min_sync(mask, v);
  out[5] = __reduce_max_sync(mask, static_cast<unsigned>(v));
  out[6] = __match_any_sync(mask, v);
  int all_equal = -1;
  out[7] = __match_all_sync(mask, v, &all_equal);
  if ((out[7] != 0) != (all_equal == 1)) out[7] = -1;
}

__global__ void half_warps_kernel(const int* x, int* y) {
  const bool low = threadIdx.x < 16;
  const unsigned mask = low ? 0x0000ffffu : 0xffff0000u;
  int value = x[threadIdx.x];
  for (int round = 0; round < (low ? 3 : 1); ++round)
    for (int offset = 8; offset > 0; offset /= 2) value += __shfl_xor_sync(mask, value, offset);
  y[threadIdx.x] = value;
}

__global__ void overlapping_masks_kernel(const int* x, int* y) {
  const unsigned lane = threadIdx.x;
  int value = x[lane];
  if (lane >= 2) value = __shfl_xor_sync(0xcu, value, 1);
  y[lane] = lane <= 2 ? __reduce_add_sync(0x7u, value) : value;
}

__global__ void rotate_kernel(const float* x, float* y) {
  __shared__ float row[1024];
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = row[(threadIdx.x + 1) % blockDim.x];
}

__global__ void count_kernel(const int* x, int* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[3 * i] = __syncthreads_count(x[i]);
  y[3 * i + 1] = __syncthreads_or(x[i]);
  y[3 * i + 2] = __syncthreads_and(x[i]);
}

/// Shared memory of a device function, of another one for each type, and declared in two places.
template <class T>
__device__ T look_and_write(T value) {
  __shared__ T first;
  const T seen = first;
  first = value;
  __shared__ T second[3];
  const T seen_second = second[2];
  second[2] = value;
  return seen + seen_second;
}

__global__ void fresh_kernel(float* y) {
  __shared__ __align__(16) float tile[2][4];
  float* dynamic = dynamic_shared<float>();
  float seen = tile[1][3], seen_dynamic = dynamic[1];
  if (!isnan(look_and_write(1.0f)) || look_and_write(2.0f) != 2.0f) seen = -1.0f;
  if (!isnan(look_and_write(1.0)) || look_and_write(2.0) != 2.0) seen_dynamic = -1.0f;
  y[2 * blockIdx.x] = seen;
  y[2 * blockIdx.x + 1] = seen_dynamic;
  for (int i = 0; i < 8; ++i) tile[i / 4][i % 4] = 1.0f;
  dynamic[0] = dynamic[1] = 1.0f;
}

__global__ void fill_dynamic_kernel(unsigned bytes, unsigned* y) {
  unsigned char* memory = dynamic_shared<unsigned char>();
  for (unsigned i = threadIdx.x; i < bytes; i += blockDim.x) memory[i] = 1;
  __syncthreads();
  if (threadIdx.x != 0) return;
  unsigned sum = 0;
  for (unsigned i = 0; i < bytes; ++i) sum += memory[i];
  *y = sum;
}

__global__ void grid_sum_kernel(const float* x, float* y, unsigned* finished, float* total) {
  __shared__ float partial[32];
  __shared__ bool is_last;
  const float sum = block_sum(x[blockIdx.x * blockDim.x + threadIdx.x], partial);
  if (threadIdx.x == 0) {
    y[blockIdx.x] = sum;
    __threadfence();
    is_last = atomicAdd(finished, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!is_last) return;
  float mine = 0.0f;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) mine += __ldcg(y + i);
  mine = block_sum(mine, partial);
  if (threadIdx.x != 0) return;
  *total = mine;
  *finished = 0;
}

__global__ void atomics_kernel(unsigned* results, float* float_sum, double* double_sum) {
  const unsigned i = threadIdx.x;
  atomicAdd(&results[0], i);
  atomicMax(&results[1], i);
  atomicMin(reinterpret_cast<int*>(&results[2]), -static_cast<int>(i));
  atomicOr(&results[3], 1u << i % 32);
  atomicAnd(&results[4], ~(1u << i % 32));
  atomicInc(&results[5], 4);
  // A sum by compare and swap.
  unsigned seen = results[6], expected;
  do {
    expected = seen;
    seen = atomicCAS(&results[6], expected, expected + 2);
  } while (seen != expected);
  atomicXor(&results[7], i);
  atomicAdd(float_sum, 0.5f);
  atomicAdd(double_sum, 0.25);
}

__global__ void copy16_kernel(const float* x, float* y) {
  store16(y + 4 * threadIdx.x, load16(x + 4 * threadIdx.x));
}

__global__ void throwing_kernel() {
  if (threadIdx.x == 3) fail("from inside");
  __syncthreads();
}

// ---- at fault ---------------------------------------------------------------------------------------------

__global__ void no_barrier_before_read_kernel(const float* x, float* y) {
  __shared__ float row[256];
  row[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = row[(threadIdx.x + 1) % blockDim.x];
}

__global__ void no_barrier_before_reuse_kernel(const float* x, float* y) {
  __shared__ float row[256];
  float sum = 0.0f;
  for (int round = 0; round < 2; ++round) {
    row[threadIdx.x] = x[threadIdx.x] + static_cast<float>(round);
    __syncthreads();
    sum += row[(threadIdx.x + 1) % blockDim.x];
  }
  y[threadIdx.x] = sum;
}

__global__ void two_writers_kernel(float* y) { y[threadIdx.x / 2] = static_cast<float>(threadIdx.x); }

__global__ void blocks_race_kernel(float* y) { *y = static_cast<float>(blockIdx.x); }

__global__ void no_warp_barrier_kernel(const float* x, float* y) {
  __shared__ float row[32];
  row[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = row[threadIdx.x ^ 1u];
}

__global__ void reads_uninitialised_kernel(float* y) {
  __shared__ float row[32];
  if (threadIdx.x % 2 == 0) row[threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = row[threadIdx.x];
}

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < 16)
    __syncthreads();  // fault: divergent_barrier
  else
    __syncthreads();  // fault: divergent_barrier
}

__global__ void early_return_kernel() {
  if (threadIdx.x == 5) return;
  __syncthreads();  // fault: early_return
}

__global__ void barrier_in_half_kernel() {
  if (threadIdx.x < 32) __syncthreads();  // fault: barrier_in_half
  if (threadIdx.x >= 32) __syncwarp();
}

__global__ void barrier_against_shuffle_kernel() {
  if (threadIdx.x < 16)
    __syncthreads();  // fault: barrier_against_shuffle
  else
    __shfl_xor_sync(kAll, 1, 1);  // fault: barrier_against_shuffle
}

__global__ void mask_without_caller_kernel() {
  __ballot_sync(0x0000ffffu, 1);  // fault: mask_without_caller
}

__global__ void mask_names_returned_kernel() {
  if (threadIdx.x < 4) return;
  __syncwarp();  // fault: mask_names_returned
}

__global__ void mask_names_absent_kernel() {
  __any_sync(kAll, 1);  // fault: mask_names_absent
}

__global__ void masks_differ_kernel() {
  const unsigned mask = threadIdx.x % 2 == 0 ? kAll : 0xfffffffeu;
  __all_sync(mask, 1);  // fault: masks_differ
}

__global__ void functions_differ_kernel(int* y) {
  if (threadIdx.x % 2 == 0)
    y[threadIdx.x] = __shfl_up_sync(kAll, 1, 1);  // fault: functions_differ
  else
    y[threadIdx.x] = __shfl_down_sync(kAll, 1, 1);  // fault: functions_differ
}

__global__ void reads_inactive_lane_kernel() {
  if (threadIdx.x < 16) __shfl_sync(0x0000ffffu, 1, 20);  // fault: reads_inactive_lane
}

__global__ void partner_returns_kernel() {
  if (threadIdx.x == 31) return;
  __syncwarp();  // fault: partner_returns
}

__global__ void odd_width_kernel() {
  __shfl_sync(kAll, 1, 0, 12);  // fault: odd_width
}

__global__ void beyond_global_kernel(float* x, int i) { x[i] = 1.0f; }

__global__ void beyond_dynamic_kernel(int i) { dynamic_shared<unsigned char>()[i] = 1; }

__global__ void beyond_static_kernel(int i) {
  __shared__ int row[8];
  volatile int* p = row;
  p[i] = 1;
}

__global__ void overflow_stack_kernel(float* y) {
  constexpr int kFloats = 127 * 1024;
  volatile float large[kFloats];
  large[0] = 1.0f;
  for (int i = 1; i < kFloats; ++i) large[i] = large[i - 1] + 1.0f;
  *y = large[kFloats - 1];
}

__global__ void divide_kernel(int by, int* y) { *y = 7 / by; }

__global__ void empty_kernel() {}

__global__ void static_and_dynamic_kernel(float* y) {
  __shared__ float tile[4096];
  tile[threadIdx.x] = 1.0f;
  dynamic_shared<float>()[threadIdx.x] = 1.0f;
  *y = tile[threadIdx.x];
}

__global__ void pointers_kernel(const float* first, float* second) {
  if (first && second) *second = *first;
}

}  // namespace

void write_indices(const Size& size, std::uint64_t* y) {
  emulator::launch(size_of_launch("indices", size), nullptr, indices_kernel, y);
}
void record_turns(unsigned blocks, unsigned threads, int* counters, int* turn, int* after_barrier) {
  emulator::launch({"turns", blocks, threads}, nullptr, turns_kernel, counters, turn, after_barrier);
}
void shuffle(Shuffle kind, int operand, int width, const float* x, float* y) {
  launch_shuffle(kind, operand, width, x, y);
}
void shuffle(Shuffle kind, int operand, int width, const double* x, double* y) {
  launch_shuffle(kind, operand, width, x, y);
}
void shuffle(Shuffle kind, int operand, int width, const std::uint64_t* x, std::uint64_t* y) {
  launch_shuffle(kind, operand, width, x, y);
}
void gather(const int* source, const int* x, int* y) {
  emulator::launch({"gather", 1, 32}, nullptr, gather_kernel, source, x, y);
}
void votes(unsigned mask, const int* predicate, const int* value, std::int64_t* y) {
  emulator::launch({"votes", 1, 32}, nullptr, votes_kernel, mask, predicate, value, y);
}
void half_warps(const int* x, int* y) {
  emulator::launch({"half_warps", 1, 32}, nullptr, half_warps_kernel, x, y);
}
void overlapping_masks(const int* x, int* y) {
  emulator::launch({"overlapping_masks", 1, 4}, nullptr, overlapping_masks_kernel, x, y);
}
void rotate(unsigned threads, const float* x, float* y) {
  emulator::launch({"rotate", 1, threads}, nullptr, rotate_kernel, x, y);
}
void count_at_barrier(unsigned threads, const int* x, int* y) {
  emulator::launch({"count", 1, threads}, nullptr, count_kernel, x, y);
}
void look_at_fresh_shared(unsigned blocks, float* y) {
  emulator::launch({"fresh", blocks, 1, 2 * sizeof(float)}, nullptr, fresh_kernel, y);
}
void fill_dynamic(std::size_t bytes, unsigned* y) {
  emulator::launch({"fill_dynamic", 1, 64, bytes}, nullptr, fill_dynamic_kernel, static_cast<unsigned>(bytes),
                   y);
}
void grid_sum(unsigned blocks, unsigned threads, const float* x, float* y, unsigned* finished, float* total) {
  emulator::launch({"grid_sum", blocks, threads}, nullptr, grid_sum_kernel, x, y, finished, total);
}
void atomics(unsigned threads, unsigned* results, float* float_sum, double* double_sum) {
  emulator::launch({"atomics", 1, threads}, nullptr, atomics_kernel, results, float_sum, double_sum);
}
void copy16(const float* x, float* y, unsigned packs) {
  emulator::launch({"copy16", 1, packs}, nullptr, copy16_kernel, x, y);
}
void throw_exception() { emulator::launch({"throw", 1, 32}, nullptr, throwing_kernel); }

void no_barrier_before_read(unsigned threads, const float* x, float* y) {
  emulator::launch({"planted", 1, threads}, nullptr, no_barrier_before_read_kernel, x, y);
}
void no_barrier_before_reuse(unsigned threads, const float* x, float* y) {
  emulator::launch({"planted", 1, threads}, nullptr, no_barrier_before_reuse_kernel, x, y);
}
void two_writers(unsigned threads, float* y) {
  emulator::launch({"planted", 1, threads}, nullptr, two_writers_kernel, y);
}
void blocks_race(unsigned blocks, float* y) {
  emulator::launch({"planted", blocks, 1}, nullptr, blocks_race_kernel, y);
}
void no_warp_barrier(const float* x, float* y) {
  emulator::launch({"planted", 1, 32}, nullptr, no_warp_barrier_kernel, x, y);
}
void reads_uninitialised_shared(float* y) {
  emulator::launch({"planted", 1, 32}, nullptr, reads_uninitialised_kernel, y);
}
void divergent_barrier(unsigned threads) {
  emulator::launch({"planted", 1, threads}, nullptr, divergent_barrier_kernel);
}
void early_return(unsigned threads) {
  emulator::launch({"planted", 1, threads}, nullptr, early_return_kernel);
}
void barrier_in_half(unsigned threads) {
  emulator::launch({"planted", 1, threads}, nullptr, barrier_in_half_kernel);
}
void barrier_against_shuffle() {
  emulator::launch({"planted", 1, 32}, nullptr, barrier_against_shuffle_kernel);
}
void mask_without_caller() { emulator::launch({"planted", 1, 32}, nullptr, mask_without_caller_kernel); }
void mask_names_returned() { emulator::launch({"planted", 1, 32}, nullptr, mask_names_returned_kernel); }
void mask_names_absent() { emulator::launch({"planted", 1, 24}, nullptr, mask_names_absent_kernel); }
void masks_differ() { emulator::launch({"planted", 1, 32}, nullptr, masks_differ_kernel); }
void functions_differ(int* y) { emulator::launch({"planted", 1, 32}, nullptr, functions_differ_kernel, y); }
void reads_inactive_lane() { emulator::launch({"planted", 1, 32}, nullptr, reads_inactive_lane_kernel); }
void partner_returns() { emulator::launch({"planted", 1, 32}, nullptr, partner_returns_kernel); }
void odd_width() { emulator::launch({"planted", 1, 32}, nullptr, odd_width_kernel); }

void beyond_global(float* x, int i) {
  emulator::launch({"planted", 1, 1}, nullptr, beyond_global_kernel, x, i);
}
void beyond_dynamic(std::size_t bytes, int i) {
  emulator::launch({"planted", 1, 1, bytes}, nullptr, beyond_dynamic_kernel, i);
}
void beyond_static(int i) { emulator::launch({"planted", 1, 1}, nullptr, beyond_static_kernel, i); }
void overflow_stack(float* y) { emulator::launch({"planted", 1, 1}, nullptr, overflow_stack_kernel, y); }
void divide(int by, int* y) { emulator::launch({"planted", 1, 1}, nullptr, divide_kernel, by, y); }
void launch_size(const Size& size, std::size_t shared_bytes) {
  emulator::launch(size_of_launch("planted", size, shared_bytes), nullptr, empty_kernel);
}
void static_and_dynamic(std::size_t shared_bytes, float* y) {
  emulator::launch({"planted", 1, 1, shared_bytes}, nullptr, static_and_dynamic_kernel, y);
}
void use_pointer(const float* first, float* second) {
  emulator::launch({"planted", 1, 1}, nullptr, pointers_kernel, first, second);
}

}  // namespace sgm::planted
