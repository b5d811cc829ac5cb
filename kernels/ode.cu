// The states of ODE solvers are f64: a thread for each element reads 8 bytes beside its neighbour's, which
// fills the bus like 16 do.

#include "kernels/sampling.h"
#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;
constexpr int kNormThreads = 1024;

/// sum_j coefficient_j term_j[i], added in order.
__device__ inline double sum_of_terms(const TermList& terms, std::int64_t i) {
  double sum = 0.0;
  // A constant number of turns: only so can the list stay where the launch puts it.
  for (int j = 0; j < kMaxTerms; ++j)
    if (j < terms.count) sum = fma(terms.coefficient[j], terms.term[j][i], sum);
  return sum;
}

__global__ void __launch_bounds__(kThreads) linear_combination_kernel(LinearCombination op) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= op.n * op.per_image) return;
  op.y[i] = fma(op.h[quotient(i, op.per_image)], sum_of_terms(op.terms, i), op.base[i]);
}

/// A block per image.
__global__ void __launch_bounds__(kNormThreads) scaled_squared_norms_kernel(ScaledSquaredNorms op) {
  __shared__ double partial[kWarp];
  const std::int64_t image = blockIdx.x, end = (image + 1) * op.per_image;
  double total = 0.0;
  for (std::int64_t i = image * op.per_image + threadIdx.x; i < end; i += kNormThreads) {
    const double u = fabs(op.y[i]), v = fabs(op.y_other[i]);
    const double scaled = sum_of_terms(op.terms, i) / fma(op.rtol, u > v ? u : v, op.atol);
    total = fma(scaled, scaled, total);
  }
  total = block_sum(total, partial);
  if (threadIdx.x == 0) op.norms[image] = total;
}

__global__ void __launch_bounds__(kThreads) gather_images_kernel(GatherImages op) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= op.n * op.per_image) return;
  const std::int64_t image = quotient(i, op.per_image), element = i - image * op.per_image;
  const std::int64_t row = static_cast<std::int64_t>(op.rows[image]);
  op.y[i] = row < op.n_first ? op.first[row * op.per_image + element]
                             : op.second[(row - op.n_first) * op.per_image + element];
}

}  // namespace

void LinearCombination::cuda(Context& context) const {
  const std::int64_t size = n * per_image;
  launch(sgm::cuda(context), {"linear_combination", blocks_for(size, kThreads), kThreads, cost().bytes},
         linear_combination_kernel, *this);
}

void ScaledSquaredNorms::cuda(Context& context) const {
  launch(sgm::cuda(context), {"scaled_squared_norms", blocks_for(n, 1), kNormThreads, cost().bytes},
         scaled_squared_norms_kernel, *this);
}

void GatherImages::cuda(Context& context) const {
  const std::int64_t size = n * per_image;
  launch(sgm::cuda(context), {"gather_images", blocks_for(size, kThreads), kThreads, cost().bytes},
         gather_images_kernel, *this);
}

}  // namespace sgm
