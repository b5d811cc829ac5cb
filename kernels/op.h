#pragma once
// The op interface. A kernel op is a plain struct that names its operands once; its two member functions are
// the two backends: cpu() in src/backend/cpu/<family>.cpp, cuda() in kernels/<family>.cu.

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

#include "sgm/core/buffer.h"
#include "sgm/core/context.h"
#include "sgm/core/error.h"
#include "sgm/core/types.h"

namespace sgm {

/// What an op costs at the least: every operand moves once, whatever launches it takes.
struct OpCost {
  std::int64_t bytes = 0;
  double flop = 0;  // multiplications and additions of a product; 0: bound by memory
};

/// Bytes of n elements of an operand; of an absent one: none.
inline std::int64_t bytes_of(const ConstBuffer& buffer, std::int64_t n) {
  return buffer ? n * static_cast<std::int64_t>(size_of(buffer.dtype)) : 0;
}
/// Bytes of several operands of n elements each.
inline std::int64_t bytes_of(std::initializer_list<ConstBuffer> buffers, std::int64_t n) {
  std::int64_t sum = 0;
  for (const ConstBuffer& buffer : buffers) sum += bytes_of(buffer, n);
  return sum;
}

template <class Op>
concept KernelOp = std::is_trivially_copyable_v<Op> && requires(const Op& op, Context& context) {
  { op.cost() } -> std::same_as<OpCost>;
  op.cpu(context);
  op.cuda(context);
};

#ifdef SGM_WITH_CUDA
inline constexpr bool kHasCuda = true;
#else
inline constexpr bool kHasCuda = false;
#endif

/// The name of an op's struct, for profilers.
template <class Op>
const char* op_name() {
  static const std::string name = [](const std::string_view text) {  // "... [with Op = Conv2d]"
    const std::size_t end = text.rfind(']'), begin = text.find_last_of(": ", end) + 1;
    return std::string(text.substr(begin, end - begin));
  }(__PRETTY_FUNCTION__);
  return name.c_str();
}

/// An op as work: on a CPU all there is, on a GPU the least that its launches come to.
template <KernelOp Op>
Work work_of(const Op& op) {
  const OpCost cost = op.cost();
  return {op_name<Op>(), cost.flop > 0 ? Traffic::product : Traffic::memory_bound, cost.bytes, cost.flop};
}

/// An op whose cpu() takes scratch memory. On a dry CPU it is called all the same, so that what it takes is
/// counted, and touches no memory.
template <class Op>
concept TakesScratch = KernelOp<Op> && Op::kTakesScratch;

/// Executes an op where its operands live: the only branch on the device in the project.
template <KernelOp Op>
void run(const Op& op, Context& context) {
  const Work work = work_of(op);
  const Range range(context, work);
  if (context.is_cpu()) {
    if (context.note(work) || TakesScratch<Op>) op.cpu(context);
    return;
  }
  if constexpr (kHasCuda) return op.cuda(context);
  fail("this build has no CUDA backend");
}

/// Calls body(T{}) with the element type that `dtype` names; `op` is named in the error.
template <class Body>
void dispatch_float(DType dtype, const char* op, Body&& body) {
  switch (dtype) {
    case DType::f32: return body(float{});
    case DType::bf16: return body(bfloat16{});
    case DType::f64: return body(double{});
    default: fail(op, ": tensors are f32, bf16 or f64, got ", dtype);
  }
}

}  // namespace sgm
