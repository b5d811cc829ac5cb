#pragma once
// Runs the threads of one block at a time as fibers.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "emulator/cuda_emulator.h"
#include "emulator/fiber.h"
#include "emulator/limits.h"

namespace sgm::emulator {

/// One launch as the scheduler runs it.
struct Grid {
  std::string kernel;  // as messages name it
  dim3 blocks;
  dim3 threads;
  std::size_t shared_bytes;
  void (*call)(const void*);  // calls the kernel with
  const void* arguments;      // these
};

class Scheduler {
 public:
  /// Runs all blocks. Throws Error when a thread faults.
  void run(const Grid& grid, const Order& order);

  // For the running thread:
  int block_barrier(bool predicate, Place place);
  std::uint64_t warp_call(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand, int width,
                          Place place);
  /// Calls all(brought) once, when every lane of the warp has come with a pointer of its own.
  using Together = void (*)(void* const* brought);
  void warp_together(Together all, void* mine, Place place);
  unsigned live_lanes() const;
  void* dynamic_shared() const;
  /// A copy that the thread has not waited for, or the end of a group of them.
  struct Copy {
    void* to;
    const void* from;  // null: zeros
    std::size_t bytes;
    bool ends_group;
  };
  /// Those of the running thread, oldest first.
  std::vector<Copy>& copies() { return threads_[current_].copies; }
  /// The running block has so many bytes of static shared memory more.
  void add_static_shared(std::size_t bytes);
  /// Unwinds the thread's stack and abandons the block; run() throws Error saying which kernel, block and
  /// thread did what.
  [[noreturn]] void fault(const std::string& what);

  /// The running kernel, block and thread, for messages.
  std::string where() const;
  /// Whether the running thread has overflowed its stack when an access of `address` failed.
  bool below_stack(const void* address) const;

 private:
  static constexpr int kMaxThreads = 1024, kLanes = 32, kWords = kMaxThreads / 64;

  /// A thread of the block. Threads are numbered by their position in the order, not by threadIdx.
  struct Thread {
    Fiber* fiber = nullptr;  // null: not started
    uint3 index{};
    int linear = 0;
    bool at_barrier = false;
    Place barrier{};
    std::vector<Copy> copies;
  };

  /// What a lane that waits in a warp function gave it.
  struct Deposit {
    WarpOp op;
    unsigned mask;
    unsigned source;
    std::uint64_t value;
    Place place;
  };

  struct Warp {
    unsigned existing = 0, live = 0, waiting = 0;
    unsigned mask = 0;               // of the first that waits
    bool has_several_masks = false;  // among those that wait
    std::array<int, kLanes> position{};
    std::array<Deposit, kLanes> deposit{};
    std::array<std::uint64_t, kLanes> result{};
  };

  void arrange(const Order& order, std::uint64_t block);
  void run_block();
  void run_threads();
  void thread_returned();
  void abandon();
  int first_runnable() const;
  void make_runnable(int position);
  void block(int position);
  void become(int position);
  void give_way();
  Fiber* take_fiber();

  static unsigned source_lane(WarpOp op, unsigned lane, unsigned operand, int width);
  void check_mask(const Warp& warp, unsigned lane, const Deposit& deposit);
  bool joins_last(Warp& warp, unsigned lane, const Deposit& deposit);
  void complete(Warp& warp, unsigned mask, unsigned lane);
  void exchange(Warp& warp, unsigned mask);
  static unsigned common_result(const Warp& warp, unsigned mask, WarpOp op);
  static std::string describe(const Deposit& deposit);
  std::string describe_waiting() const;

  const Grid* grid_ = nullptr;
  int threads_in_block_ = 0, live_ = 0, arrived_ = 0;
  int current_ = -1;
  int predicates_ = 0, barrier_result_ = 0;
  Place barrier_{};
  std::array<std::uint64_t, kWords> runnable_{};  // by position
  std::uint32_t runnable_words_ = 0;              // which of the words are not zero
  std::array<std::uint64_t, kWords> live_bits_{};
  std::array<Thread, kMaxThreads> threads_{};
  std::array<Warp, kMaxThreads / kLanes> warps_{};
  std::array<int, kMaxThreads> order_{};  // the linear index of the thread at each position
  Fiber launcher_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;
  std::unique_ptr<void, void (*)(void*)> shared_{nullptr, nullptr};
  std::size_t static_shared_ = 0;
  std::string fault_;
};

/// The one scheduler; run() takes turns between host threads.
Scheduler& scheduler();

const char* name_of(WarpOp op);

/// From now on, a kernel that crashes on this host thread says before it dies which kernel, block and thread
/// it was, and whether its stack overflowed. Under AddressSanitizer that is the sanitizer's business.
void report_signals();

}  // namespace sgm::emulator
