#include "backend/cpu/widened.h"

#include <memory>
#include <utility>
#include <vector>

#include "backend/cpu/assign.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/parallel.h"
#include "backend/scratch.h"

namespace sgm::widened {
namespace {

/// Where the numbers of an operand lie: `matrices` of them, `stride` apart, each of rows `ld` apart.
struct Rows {
  std::int64_t matrices, count, length, ld, stride;

  static Rows dense(std::int64_t count, std::int64_t length) { return {1, count, length, length, 0}; }
  std::int64_t numel() const { return matrices * count * length; }
  std::int64_t at(std::int64_t matrix, std::int64_t row) const { return matrix * stride + row * ld; }
};

/// Between rows as they lie and dense ones.
template <class From, class To, class Where>
void copy_rows(const Rows& rows, const From* from, To* to, Where&& where) {
#pragma omp parallel for collapse(2) schedule(static) if (rows.numel() > kParallelFrom)
  for (std::int64_t m = 0; m < rows.matrices; ++m)
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const auto [source, target] = where(rows.at(m, r), (m * rows.count + r) * rows.length);
      assign_row(to + target, from + source, rows.length);
    }
}

/// Dense f32 copies of the operands of one op, in its order: operands in bf16 go through them, others stay.
class Copies {
 public:
  explicit Copies(Context& context) : context_(context) {}

  ConstBuffer read(const ConstBuffer& from, const Rows& rows) {
    if (from.dtype != DType::bf16 || !from) return from;
    return {widen(from, rows), DType::f32};
  }

  /// Rounded into `to` by finish().
  Buffer write(const Buffer& to, const Rows& rows, bool is_added_to = false) {
    if (to.dtype != DType::bf16 || !to) return to;
    float* const copy = is_added_to ? widen(to, rows) : allocate(rows);
    results_.push_back({to, rows, copy});
    return {copy, DType::f32};
  }

  void finish() {
    if (context_.is_dry()) return;
    for (const Result& result : results_)
      copy_rows(result.rows, result.copy, result.to.as<bfloat16>(),
                [](std::int64_t lies, std::int64_t dense) { return std::pair(dense, lies); });
  }

 private:
  struct Result {
    Buffer to;
    Rows rows;
    const float* copy;
  };

  float* allocate(const Rows& rows) {
    memory_.push_back(
        std::make_unique<Scratch>(context_, static_cast<std::size_t>(rows.numel()) * sizeof(float)));
    return memory_.back()->as<float>();
  }

  float* widen(const ConstBuffer& from, const Rows& rows) {
    float* const copy = allocate(rows);
    if (!context_.is_dry())
      copy_rows(rows, from.as<bfloat16>(), copy,
                [](std::int64_t lies, std::int64_t dense) { return std::pair(lies, dense); });
    return copy;
  }

  Context& context_;
  std::vector<std::unique_ptr<Scratch>> memory_;
  std::vector<Result> results_;
};

/// Operands of a convolution, but for its filter, which is f32 beside bf16.
Rows first_input(const ConvShape& s) { return Rows::dense(s.n * s.h * s.w, s.c - s.c2); }
Rows second_input(const ConvShape& s) { return Rows::dense(s.n * s.h * s.w, s.c2); }
Rows output(const ConvShape& s) { return Rows::dense(s.n * s.oh * s.ow, s.k); }
Rows filter_gradient(const ConvShape& s) { return Rows::dense(s.k * s.r * s.s, s.c); }

}  // namespace

bool suits(DType dtype) { return dtype == DType::bf16 && !onednn_takes_bfloats(); }

void convolve(const Conv2d& op, Context& context) {
  Copies copies(context);
  Conv2d wide = op;
  wide.x = copies.read(op.x, first_input(op.shape));
  wide.x2 = copies.read(op.x2, second_input(op.shape));
  wide.residual = copies.read(op.residual, output(op.shape));
  wide.y = copies.write(op.y, output(op.shape));
  wide.cpu(context);
  copies.finish();
}

void convolve_grad_input(const Conv2dGradInput& op, Context& context) {
  Copies copies(context);
  Conv2dGradInput wide = op;
  wide.dy = copies.read(op.dy, output(op.shape));
  wide.dx = copies.write(op.dx, first_input(op.shape));
  wide.dx2 = copies.write(op.dx2, second_input(op.shape));
  wide.cpu(context);
  copies.finish();
}

void convolve_grad_weight(const Conv2dGradWeight& op, Context& context) {
  Copies copies(context);
  Conv2dGradWeight wide = op;
  wide.x = copies.read(op.x, first_input(op.shape));
  wide.x2 = copies.read(op.x2, second_input(op.shape));
  wide.dy = copies.read(op.dy, output(op.shape));
  wide.dweight = copies.write(op.dweight, filter_gradient(op.shape));
  wide.cpu(context);
  copies.finish();
}

void multiply(const Matmul& op, Context& context) {
  Copies copies(context);
  Matmul wide = op;
  // One matrix for all has a stride of 0, also when it is dense.
  const auto operand = [&](const ConstBuffer& from, std::int64_t rows, std::int64_t length, std::int64_t& ld,
                           std::int64_t& stride) {
    const ConstBuffer copy = copies.read(from, {stride == 0 ? 1 : op.batch, rows, length, ld, stride});
    if (copy.dtype != from.dtype) ld = length, stride = stride == 0 ? 0 : rows * length;
    return copy;
  };
  wide.a = operand(op.a, op.trans_a ? op.k : op.m, op.trans_a ? op.m : op.k, wide.lda, wide.stride_a);
  wide.b = operand(op.b, op.trans_b ? op.n : op.k, op.trans_b ? op.k : op.n, wide.ldb, wide.stride_b);
  wide.c = copies.write(op.c, {op.batch, op.m, op.n, op.ldc, op.stride_c}, op.accumulate);
  if (wide.c.dtype != op.c.dtype) wide.ldc = op.n, wide.stride_c = op.m * op.n;
  wide.cpu(context);
  copies.finish();
}

}  // namespace sgm::widened
