#include "emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "sgm/core/error.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef SGM_EMULATOR_UCONTEXT
// Saves the registers that a call must keep on the stack, stores the stack pointer in *save and goes on from
// the stack `load`.
extern "C" void sgm_emulator_switch(void** save, void* load);
asm(R"(
  .text
  .globl sgm_emulator_switch
  .type sgm_emulator_switch, @function
sgm_emulator_switch:
  .cfi_startproc
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
  .size sgm_emulator_switch, .-sgm_emulator_switch
)");
#endif

namespace sgm::emulator {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kStackBytes = 256 * 1024;
#else
constexpr std::size_t kStackBytes = 64 * 1024;
#endif
constexpr std::size_t kGuardBytes = 512 * 1024;  // CUDA's limit of local memory
constexpr std::size_t kStagger = 192, kStaggers = 16;

Fiber* switched_from = nullptr;

}  // namespace

Fiber::Fiber(int n) {
  mapping_bytes_ = kGuardBytes + kStackBytes + kStaggers * kStagger;
  void* mapping = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  check(mapping != MAP_FAILED, "kernel emulator: no memory for the stack of thread ", n);
  mapping_ = static_cast<char*>(mapping);
  check(mprotect(mapping_, kGuardBytes, PROT_NONE) == 0,
        "kernel emulator: no guard below the stack of thread ", n);
  bottom_ = mapping_ + kGuardBytes;
  bytes_ = mapping_bytes_ - kGuardBytes - static_cast<std::size_t>(n) % kStaggers * kStagger;
}

Fiber::~Fiber() {
  if (mapping_) munmap(mapping_, mapping_bytes_);
}

bool Fiber::guards(const void* address) const { return mapping_ && address >= mapping_ && address < bottom_; }

void Fiber::prepare(void (*entry)()) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(bottom_, bytes_);
  fake_stack_ = nullptr;
#endif
#ifdef SGM_EMULATOR_UCONTEXT
  check(getcontext(&context_) == 0, "kernel emulator: getcontext failed");
  context_.uc_stack.ss_sp = const_cast<void*>(bottom_);
  context_.uc_stack.ss_size = bytes_;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#else
  // What sgm_emulator_switch pops: six registers, then entry as the address to return to. Above it stands a
  // null return address for entry, where debuggers stop unwinding.
  constexpr int kSaved = 6;
  const auto top = (reinterpret_cast<std::uintptr_t>(bottom_) + bytes_) / 16 * 16;
  auto* slot = reinterpret_cast<void**>(top);
  *--slot = nullptr;
  *--slot = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSaved; ++i) *--slot = nullptr;
  stack_pointer_ = slot;
#endif
}

void Fiber::entered() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &switched_from->bottom_, &switched_from->bytes_);
#endif
}

void Fiber::switch_to(Fiber& from, Fiber& to, [[maybe_unused]] bool done) {
  switched_from = &from;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(done ? nullptr : &from.fake_stack_, to.bottom_, to.bytes_);
#endif
#ifdef SGM_EMULATOR_UCONTEXT
  swapcontext(&from.context_, &to.context_);
#else
  sgm_emulator_switch(&from.stack_pointer_, to.stack_pointer_);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

}  // namespace sgm::emulator
