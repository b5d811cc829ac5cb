#pragma once
// The one header of kernel sources: launching, 16-byte accesses, conversions and reductions. Sources that
// include it compile for GPUs with nvcc, and for the tests' emulator with any C++ compiler; hence the rules:
// launch() instead of <<<>>>, dynamic_shared() instead of extern __shared__, no inline assembly but that of
// tensor_core.h, no cooperative groups, every thread reaches every barrier, and blocks never wait for each
// other.

#ifdef SGM_EMULATE_CUDA
#include "emulator/cuda_emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#endif

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>

#include "backend/cuda/cuda_context.h"
#include "kernels/op.h"

namespace sgm {

inline constexpr int kWarp = 32;

/// One kernel launch: its name in profiles, its grid, and the bytes of device memory that it reads and writes
/// when every operand moves once.
struct LaunchSpec {
  const char* name;
  dim3 blocks;
  dim3 threads;
  std::int64_t bytes;
  std::size_t shared_bytes = 0;  // dynamic shared memory
  double flop = 0;               // of products
};

/// Puts kernel(args...) on the device's stream. Throws Error naming the kernel when the launch is refused.
template <class... Params, class... Args>
void launch(CudaContext& device, const LaunchSpec& spec, void (*kernel)(Params...), const Args&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args));
  const Traffic kind = spec.flop > 0 ? Traffic::product : Traffic::memory_bound;
  if (spec.blocks.x == 0 || !device.note({spec.name, kind, spec.bytes, spec.flop})) return;
#ifdef SGM_EMULATE_CUDA
  emulator::launch({spec.name, spec.blocks, spec.threads, spec.shared_bytes}, device.stream(), kernel,
                   static_cast<Params>(args)...);
#else
  if (spec.shared_bytes > 48 * 1024)
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(spec.shared_bytes)),
               "cudaFuncSetAttribute", spec.name);
  cudaLaunchConfig_t config{};
  config.gridDim = spec.blocks;
  config.blockDim = spec.threads;
  config.dynamicSmemBytes = spec.shared_bytes;
  config.stream = device.stream();
  cuda_check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), "cudaLaunchKernelEx",
             spec.name);
#endif
}

/// Blocks that cover n items, `per_block` each.
inline unsigned blocks_for(std::int64_t n, std::int64_t per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

/// Calls body(T{}) for the element types of images and parameters.
template <class Body>
void dispatch_storage(DType dtype, const char* op, Body&& body) {
  switch (dtype) {
    case DType::f32: return body(float{});
    case DType::bf16: return body(bfloat16{});
    default: fail(op, ": on a GPU tensors are f32 or bf16, got ", dtype, "; use --device cpu");
  }
}

/// Sixteen bytes of T, moved by one instruction.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T at[kSize];
};

/// p must be 16-byte aligned.
template <class T>
__device__ inline Pack<T> load16(const T* p) {
#ifdef SGM_EMULATE_CUDA
  emulator::check_aligned(p, 16);
#endif
  return std::bit_cast<Pack<T>>(*reinterpret_cast<const uint4*>(p));
}
template <class T>
__device__ inline void store16(T* p, const Pack<T>& pack) {
#ifdef SGM_EMULATE_CUDA
  emulator::check_aligned(p, 16);
#endif
  // A plain assignment is sometimes split into stores of single elements.
  __stwb(reinterpret_cast<uint4*>(p), std::bit_cast<uint4>(pack));
}

/// Whether every one of these addresses and row lengths (in elements) allows 16-byte accesses.
template <class T>
bool packs(std::initializer_list<const void*> pointers, std::int64_t row) {
  for (const void* p : pointers)
    if (reinterpret_cast<std::uintptr_t>(p) % 16 != 0) return false;
  return row % Pack<T>::kSize == 0;
}

/// value rounded to T; one instruction on GPUs.
template <class T>
__device__ inline T rounded_to(Accumulator<T> value) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, bfloat16>) {
    const __nv_bfloat16 native = __float2bfloat16_rn(value);
    bfloat16 result;
    result.bits = __bfloat16_as_ushort(native);
    return result;
  }
#endif
  return static_cast<T>(value);
}

/// Sum over the 32 lanes of a warp, in every lane; all lanes must call.
template <class T>
__device__ inline T warp_sum(T value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

/// Sum over the threads of a block (a multiple of 32, at most 1024), in every thread, in a fixed order.
/// `partial` is shared memory for 32 values; the sum may be called again with the same memory after its
/// return.
template <class T>
__device__ inline T block_sum(T value, T* partial) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  value = warp_sum(value);
  __syncthreads();
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = lane < warps ? partial[lane] : T(0);
  return warp_sum(value);
}

/// The launch's dynamic shared memory.
template <class T>
__device__ inline T* dynamic_shared() {
#ifdef SGM_EMULATE_CUDA
  return static_cast<T*>(emulator::dynamic_shared());
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#endif
}

}  // namespace sgm
