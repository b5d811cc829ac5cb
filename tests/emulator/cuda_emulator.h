#pragma once
// CUDA's device language as ordinary C++: kernels/device.h includes this header instead of CUDA's when
// SGM_EMULATE_CUDA is defined, so that the tests run the very source that GPUs run, on a CPU.
//
// Every CUDA thread is a fiber with a stack of its own; blocks run one after the other. A thread runs until
// it reaches a barrier or a warp function or returns; then the first thread of the order that can run goes
// on. So each thread runs as far ahead of the others as it legally can, and running a kernel forward and in
// reverse executes every pair of unsynchronised accesses in both orders: a missing barrier shows as a result
// that depends on the order, or as NaN, since shared memory is filled with 0xff when a block starts.
//
// Checked at every call, with the kernel, block, thread, file and line in the message: barriers that not all
// threads reach, or not at one line; warp functions whose mask leaves the caller out, names absent lanes, or
// differs between lanes; shuffles from lanes outside the mask; misaligned 16-byte accesses; launches beyond
// the hardware's limits; host pointers as arguments. Out-of-bounds accesses are found by building with
// AddressSanitizer. docs/emulation.md says what is not checked.

#ifndef SGM_EMULATE_CUDA
#error "the kernel emulator belongs to the tests: define SGM_EMULATE_CUDA"
#endif

// CUDA's headers keep these where they are defined first.
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
// Shared memory is static storage: one block runs at a time. The mark before it finds and poisons the
// variables of the function when the first thread of a block comes by; "used" keeps the compiler from
// assuming that it sees every store. Alignment is written __shared__ __align__(16) float tile[64].
#define SGM_EMULATOR_JOIN2(a, b) a##b
#define SGM_EMULATOR_JOIN(a, b) SGM_EMULATOR_JOIN2(a, b)
#define __shared__                                                                      \
  static ::sgm::emulator::SharedMark SGM_EMULATOR_JOIN(sgm_emulator_shared_, __LINE__); \
  SGM_EMULATOR_JOIN(sgm_emulator_shared_, __LINE__).enter();                            \
  static __attribute__((used))
// The header that declares threadIdx and the like as constants.
#define __DEVICE_LAUNCH_PARAMETERS_H__

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "emulator/stream.h"

// CUDA's built-in variables.
extern uint3 threadIdx, blockIdx, blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace sgm::emulator {

/// In which order the threads of a block, and the blocks of a grid, get their turn.
struct Order {
  enum class Kind { forward, reverse, random };
  Kind kind = Kind::forward;
  std::uint64_t seed = 0;
};

/// "forward", "reverse" or "random:SEED"; throws Error for anything else.
Order parse_order(const std::string& text);
std::string to_string(const Order& order);

/// The order of launches from now on. At first it is that of the environment variable SGM_EMULATOR_ORDER, or
/// forward.
Order order();
void set_order(const Order& order);

/// Names, without namespaces and template arguments, of the kernels that have run in this process, sorted.
/// The environment variable SGM_EMULATOR_RECORD names a file to which each name is appended as well.
std::vector<std::string> kernels_run();

struct Launch {
  const char* name;
  dim3 blocks;
  dim3 threads;
  std::size_t shared_bytes = 0;
};

/// The launch's dynamic shared memory, of exactly the size it asked for; only in kernels.
void* dynamic_shared();

/// A line of a kernel's source.
struct Place {
  const char* file;
  int line;
};

enum class WarpOp {
  shuffle,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all,
  barrier,
  add,
  min_signed,
  max_signed,
  min_unsigned,
  max_unsigned,
  bit_and,
  bit_or,
  bit_xor,
  match_any,
  match_all,
  together
};

/// What the warp function gives the calling lane, once all lanes of the mask have called it.
std::uint64_t warp_call(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand, int width,
                        Place place);

/// Waits for all threads of the block; the number of threads that gave true.
int block_barrier(bool predicate, Place place);

/// Lanes of the calling warp that have not returned.
unsigned live_lanes();

[[noreturn]] void misaligned(const void* p, std::size_t bytes);

/// Faults unless p is a multiple of bytes.
inline void check_aligned(const void* p, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes != 0) misaligned(p, bytes);
}

struct SharedVariables;

/// Stands before every shared variable.
class SharedMark {
 public:
  void enter() {
    if (block_ != running_block) poison();
  }

  /// A number that no other block has, of whatever launch.
  static std::uint64_t running_block;

 private:
  void poison();

  std::uint64_t block_ = 0;
  SharedVariables* variables_ = nullptr;
};

template <class T>
std::uint64_t bits_of(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8,
                "warp functions take numbers of at most 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

void check_launch(const Launch& launch, const void* kernel);
void check_pointer(const Launch& launch, const void* kernel, int position, const void* pointer);
void run(const Launch& launch, const void* kernel, void (*call)(const void*), const void* arguments);

template <class T>
void check_argument(const Launch& launch, const void* kernel, int position, const T& argument) {
  if constexpr (std::is_pointer_v<T>)
    if constexpr (!std::is_function_v<std::remove_pointer_t<T>>)
      check_pointer(launch, kernel, position, argument);
}

/// Puts kernel(args...) on the stream, the arguments copied now. Throws Error at once for a launch that CUDA
/// would refuse, and for host pointers; faults in the kernel are thrown from the stream's work.
template <class... Params>
void launch(const Launch& launch, cudaStream_t stream, void (*kernel)(Params...),
            std::type_identity_t<Params>... args) {
  static_assert((std::is_trivially_copyable_v<Params> && ...), "kernel arguments are copied byte by byte");
  static_assert((sizeof(Params) + ... + 0) <= 32764, "more than CUDA's 32764 bytes of kernel arguments");
  struct Call {
    void (*kernel)(Params...);
    std::tuple<Params...> arguments;
  };
  const void* address = reinterpret_cast<const void*>(kernel);
  check_launch(launch, address);
  int position = 0;
  (check_argument(launch, address, ++position, args), ...);
  enqueue(stream, [launch, address, call = Call{kernel, std::tuple<Params...>(args...)}] {
    run(
        launch, address,
        [](const void* data) {
          const Call& saved = *static_cast<const Call*>(data);
          std::apply(saved.kernel, saved.arguments);
        },
        &call);
  });
}

}  // namespace sgm::emulator

#define SGM_EMULATOR_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SGM_EMULATOR_HERE) { sgm::emulator::block_barrier(false, {file, line}); }
inline int __syncthreads_count(int predicate, SGM_EMULATOR_HERE) {
  return sgm::emulator::block_barrier(predicate != 0, {file, line});
}
inline int __syncthreads_or(int predicate, SGM_EMULATOR_HERE) {
  return sgm::emulator::block_barrier(predicate != 0, {file, line}) > 0;
}
inline int __syncthreads_and(int predicate, SGM_EMULATOR_HERE) {
  return sgm::emulator::block_barrier(predicate == 0, {file, line}) == 0;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<T>(
      warp_call(WarpOp::shuffle, mask, bits_of(value), static_cast<unsigned>(source), width, {file, line}));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<T>(warp_call(WarpOp::shuffle_up, mask, bits_of(value), delta, width, {file, line}));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<T>(warp_call(WarpOp::shuffle_down, mask, bits_of(value), delta, width, {file, line}));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<T>(warp_call(WarpOp::shuffle_xor, mask, bits_of(value), static_cast<unsigned>(lanes),
                                width, {file, line}));
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return static_cast<unsigned>(warp_call(WarpOp::ballot, mask, predicate != 0, 0, 32, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return static_cast<int>(warp_call(WarpOp::any, mask, predicate != 0, 0, 32, {file, line}));
}
inline int __all_sync(unsigned mask, int predicate, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return static_cast<int>(warp_call(WarpOp::all, mask, predicate != 0, 0, 32, {file, line}));
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  warp_call(WarpOp::barrier, mask, 0, 0, 32, {file, line});
}
inline unsigned __activemask() { return sgm::emulator::live_lanes(); }

template <class T>
unsigned __match_any_sync(unsigned mask, T value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return static_cast<unsigned>(warp_call(WarpOp::match_any, mask, bits_of(value), 0, 32, {file, line}));
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* all_equal, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  const auto lanes =
      static_cast<unsigned>(warp_call(WarpOp::match_all, mask, bits_of(value), 0, 32, {file, line}));
  *all_equal = lanes != 0;
  return lanes;
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<unsigned>(warp_call(WarpOp::add, mask, value, 0, 32, {file, line}));
}
inline int __reduce_add_sync(unsigned mask, int value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<int>(warp_call(WarpOp::add, mask, bits_of(value), 0, 32, {file, line}));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<unsigned>(warp_call(WarpOp::min_unsigned, mask, value, 0, 32, {file, line}));
}
inline int __reduce_min_sync(unsigned mask, int value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<int>(warp_call(WarpOp::min_signed, mask, bits_of(value), 0, 32, {file, line}));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<unsigned>(warp_call(WarpOp::max_unsigned, mask, value, 0, 32, {file, line}));
}
inline int __reduce_max_sync(unsigned mask, int value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<int>(warp_call(WarpOp::max_signed, mask, bits_of(value), 0, 32, {file, line}));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<unsigned>(warp_call(WarpOp::bit_and, mask, value, 0, 32, {file, line}));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<unsigned>(warp_call(WarpOp::bit_or, mask, value, 0, 32, {file, line}));
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, SGM_EMULATOR_HERE) {
  using namespace sgm::emulator;
  return from_bits<unsigned>(warp_call(WarpOp::bit_xor, mask, value, 0, 32, {file, line}));
}

#undef SGM_EMULATOR_HERE

#include "emulator/device_functions.h"
