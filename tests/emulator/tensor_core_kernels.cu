#include "emulator/tensor_core_kernels.h"

#include "kernels/tensor_core.h"

namespace sgm::planted {
namespace {

constexpr int kPitch = 24;  // elements: rows of 48 bytes

__device__ int lane_of_thread() { return static_cast<int>(threadIdx.x); }

/// rows x 16 elements to shared memory, by one warp.
__device__ void put(bfloat16* to, const bfloat16* from, int rows) {
  for (int i = lane_of_thread(); i < rows * 16; i += kWarp) to[i / 16 * kPitch + i % 16] = from[i];
}

__global__ void product_kernel(const bfloat16* a, const bfloat16* b, bool b_transposed, float* y) {
  __shared__ __align__(16) bfloat16 a_rows[16 * kPitch];
  __shared__ __align__(16) bfloat16 b_rows[16 * kPitch];
  const int lane = lane_of_thread();
  put(a_rows, a, 16);
  put(b_rows, b, 16);
  __syncthreads();
  BFloat16Pair a_parts[4], b_parts[4];
  load_matrices(a_parts, a_rows + lane % 16 * kPitch + lane / 16 * 8);
  if (b_transposed)
    load_matrices(b_parts, b_rows + (lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8);
  else
    load_transposed(b_parts, b_rows + lane % 16 * kPitch + lane / 16 * 8);
  for (int part = 0; part < 2; ++part) {
    float sum[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    multiply_add(sum, a_parts, b_parts[2 * part], b_parts[2 * part + 1]);
    for (int i = 0; i < 4; ++i) y[(lane / 4 + i / 2 * 8) * 16 + 8 * part + lane % 4 * 2 + i % 2] = sum[i];
  }
}

__global__ void copy_kernel(const bfloat16* x, bfloat16* y, int groups_left, bool zeros, bool waits) {
  __shared__ __align__(16) bfloat16 rows[2][8 * kWarp];
  for (int i = 0; i < 2; ++i) {
    copy_beside(rows[i] + 8 * threadIdx.x, x + 8 * (i * kWarp + threadIdx.x), zeros);
    end_copies();
  }
  if (groups_left == 0) wait_for_copies<0>();
  if (groups_left == 1) wait_for_copies<1>();
  __syncthreads();
  const int neighbour = (lane_of_thread() + 1) % kWarp;
  for (int i = 0; i < 2; ++i)
    for (int k = 0; k < 8; ++k) y[8 * (i * kWarp + lane_of_thread()) + k] = rows[i][8 * neighbour + k];
  __syncthreads();
  if (waits) wait_for_copies<0>();
}

__global__ void lane_missing_kernel() {
  float sum[4] = {};
  const BFloat16Pair a[4] = {};
  if (threadIdx.x != 5) multiply_add(sum, a, 0, 0);
}

__global__ void misaligned_rows_kernel() {
  __shared__ __align__(16) bfloat16 rows[16 * 9];
  BFloat16Pair parts[4];
  load_matrices(parts, rows + lane_of_thread() % 8 * 9);
}

}  // namespace

void product(const std::uint16_t* a, const std::uint16_t* b, bool b_transposed, float* y) {
  emulator::launch({"product", 1, 32}, nullptr, product_kernel, reinterpret_cast<const bfloat16*>(a),
                   reinterpret_cast<const bfloat16*>(b), b_transposed, y);
}
void copy_beside_threads(const std::uint16_t* x, std::uint16_t* y, int groups_left, bool zeros, bool waits) {
  emulator::launch({"copy", 1, 32}, nullptr, copy_kernel, reinterpret_cast<const bfloat16*>(x),
                   reinterpret_cast<bfloat16*>(y), groups_left, zeros, waits);
}
void lane_missing() { emulator::launch({"lane_missing", 1, 32}, nullptr, lane_missing_kernel); }
void misaligned_rows() { emulator::launch({"misaligned", 1, 32}, nullptr, misaligned_rows_kernel); }

}  // namespace sgm::planted
