// The ops that cuDNN and cuBLAS execute on a GPU, for emulated builds: their CPU halves, queued on the
// stream. Like a tensor core they multiply what bf16 holds, sum in f32 and round once.

#include <memory>
#include <vector>

#include "backend/cpu/cpu_context.h"
#include "backend/cuda/cuda_context.h"
#include "emulator/stream.h"
#include "kernels/conv.h"

namespace sgm {
namespace {

/// An operand in f32: in place, or a copy of n bf16 elements.
class Single {
 public:
  Single(const ConstBuffer& from, std::int64_t n) : from_(from) {
    if (!from || from.dtype == DType::f32) return;
    check(from.dtype == DType::bf16, "cuda: products are of f32 or bf16, got ", from.dtype);
    const bfloat16* values = from.as<bfloat16>();
    copy_.assign(values, values + n);
  }
  ConstBuffer buffer() const { return copy_.empty() ? from_ : ConstBuffer{copy_.data(), DType::f32}; }

 private:
  ConstBuffer from_;
  std::vector<float> copy_;
};

/// An output in f32, from which n elements are rounded back at the end of its scope.
class SingleOut {
 public:
  SingleOut(const Buffer& to, std::int64_t n) : to_(to), n_(n) {
    if (!to || to.dtype == DType::f32) return;
    check(to.dtype == DType::bf16, "cuda: products are f32 or bf16, got ", to.dtype);
    const bfloat16* values = to.as<bfloat16>();  // what the op leaves alone, or adds to
    copy_.assign(values, values + n);
  }
  ~SingleOut() {
    for (std::int64_t i = 0; i < std::ssize(copy_); ++i)
      to_.as<bfloat16>()[i] = bfloat16(copy_[static_cast<std::size_t>(i)]);
  }
  SingleOut(const SingleOut&) = delete;
  SingleOut& operator=(const SingleOut&) = delete;

  Buffer buffer() { return copy_.empty() ? to_ : Buffer{copy_.data(), DType::f32}; }

 private:
  Buffer to_;
  std::int64_t n_;
  std::vector<float> copy_;
};

/// Where the CPU halves run.
struct HostProcessor {
  CpuContext cpu{{.threads = 1}};
  explicit HostProcessor(CudaContext&) {}
};

struct Sizes {
  std::int64_t x, x2, weight, y;
  explicit Sizes(const ConvShape& s)
      : x(s.n * s.h * s.w * (s.c - s.c2)),
        x2(s.n * s.h * s.w * s.c2),
        weight(s.k * s.r * s.s * s.c),
        y(s.n * s.oh * s.ow * s.k) {}
};

/// On GPUs weights have the type of what they multiply.
void check_weight(const char* op, DType weight, DType activations) {
  check(weight == activations, op, ": weights in ", weight, " beside ", activations, " on a GPU");
}

/// One past the last element of `batch` matrices.
std::int64_t extent(std::int64_t batch, std::int64_t stride, std::int64_t rows, std::int64_t ld,
                    std::int64_t cols) {
  return batch * rows * cols == 0 ? 0 : (batch - 1) * stride + (rows - 1) * ld + cols;
}

/// op, which names device memory of any storage type, by its CPU half in f32.
void compute(const Conv2d& op, Context& cpu) {
  const Sizes n(op.shape);
  const Single x(op.x, n.x), x2(op.x2, n.x2), weight(op.weight, n.weight), bias(op.bias, op.shape.k),
      residual(op.residual, n.y);
  SingleOut y(op.y, n.y);
  Conv2d{x.buffer(),    x2.buffer(),       weight.buffer(),
         bias.buffer(), residual.buffer(), y.buffer(),
         op.shape,      op.scale,          0}
      .cpu(cpu);
}

void compute(const Conv2dGradInput& op, Context& cpu) {
  const Sizes n(op.shape);
  const Single dy(op.dy, n.y), weight(op.weight, n.weight);
  SingleOut dx(op.dx, n.x), dx2(op.dx2, n.x2);
  Conv2dGradInput{dy.buffer(), weight.buffer(), dx.buffer(), dx2.buffer(), op.shape, op.scale}.cpu(cpu);
}

void compute(const Conv2dGradWeight& op, Context& cpu) {
  const Sizes n(op.shape);
  const Single x(op.x, n.x), x2(op.x2, n.x2), dy(op.dy, n.y);
  SingleOut dweight(op.dweight, n.weight), dbias(op.dbias, op.shape.k);
  Conv2dGradWeight{x.buffer(), x2.buffer(), dy.buffer(), dweight.buffer(), dbias.buffer(), op.shape, op.scale}
      .cpu(cpu);
}

void compute(const Matmul& op, Context& cpu) {
  const Single a(op.a, op.trans_a ? extent(op.batch, op.stride_a, op.k, op.lda, op.m)
                                  : extent(op.batch, op.stride_a, op.m, op.lda, op.k)),
      b(op.b, op.trans_b ? extent(op.batch, op.stride_b, op.n, op.ldb, op.k)
                         : extent(op.batch, op.stride_b, op.k, op.ldb, op.n)),
      bias(op.bias, op.n);
  SingleOut c(op.c, extent(op.batch, op.stride_c, op.m, op.ldc, op.n));
  Matmul host = op;
  host.a = a.buffer(), host.b = b.buffer(), host.bias = bias.buffer(), host.c = c.buffer();
  host.cpu(cpu);
}

/// Queues compute(op).
template <class Op>
void queue(const Op& op, Context& context, const char* name) {
  CudaContext& device = sgm::cuda(context);
  const OpCost cost = op.cost();
  if (!device.note({name, Traffic::product, cost.bytes, cost.flop})) return;
  emulator::enqueue(device.stream(), [op, &host = device.part<HostProcessor>()] { compute(op, host.cpu); });
}

}  // namespace

void Conv2d::cuda(Context& context) const {
  check_weight("conv2d", weight.dtype, x.dtype);
  queue(*this, context, "conv2d");
}

void Conv2dGradInput::cuda(Context& context) const {
  check_weight("conv2d gradient", weight.dtype, dy.dtype);
  queue(*this, context, "conv2d_grad_input");
}

void Conv2dGradWeight::cuda(Context& context) const {
  check_weight("conv2d gradient", dweight.dtype, x.dtype);
  queue(*this, context, "conv2d_grad_weight");
}

void Matmul::cuda(Context& context) const { queue(*this, context, "matmul"); }

}  // namespace sgm
