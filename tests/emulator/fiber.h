#pragma once
// Stackful coroutines. On x86-64 a switch saves six registers and swaps the stack pointer; elsewhere, or with
// SGM_EMULATOR_UCONTEXT, ucontext does it, some twenty times slower. AddressSanitizer is told of every
// switch.

#include <cstddef>

#if !defined(__x86_64__) && !defined(SGM_EMULATOR_UCONTEXT)
#define SGM_EMULATOR_UCONTEXT
#endif
#ifdef SGM_EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

namespace sgm::emulator {

class Fiber {
 public:
  /// The stack that the calling thread came with.
  Fiber() = default;
  /// A stack of its own below which nothing may be touched for as far as the largest frame of a GPU's thread
  /// reaches. The nth stack starts a little lower than the one before, so that the tops of many stacks do not
  /// compete for the same cache lines.
  explicit Fiber(int n);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next switch to this fiber calls entry, which never returns. Whatever the fiber did before is
  /// forgotten.
  void prepare(void (*entry)());

  /// First call in every entry.
  static void entered();

  /// Goes on with `to` until something switches back. A fiber that is `done` is never switched to again
  /// unless prepared.
  static void switch_to(Fiber& from, Fiber& to, bool done = false);

  /// Whether the address is below the stack.
  bool guards(const void* address) const;

 private:
#ifdef SGM_EMULATOR_UCONTEXT
  ucontext_t context_{};
#else
  void* stack_pointer_ = nullptr;
#endif
  char* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
  const void* bottom_ = nullptr;  // of the usable stack
  std::size_t bytes_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace sgm::emulator
