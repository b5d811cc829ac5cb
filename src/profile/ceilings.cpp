#include <algorithm>

#include "kernels/conv.h"
#include "sgm/profile/profile.h"
#include "sgm/tensor/math.h"

namespace sgm {
namespace {

/// The least time of one of several runs of `work`, by the device's own clock.
template <class Body>
double least_seconds(Context& context, Body&& work) {
  constexpr int kRuns = 8;
  const auto timeline = context.create_timeline();
  work();  // the first run allocates and chooses
  context.synchronize();
  timeline->mark();
  for (int i = 0; i < kRuns; ++i) {
    work();
    timeline->mark();
  }
  const std::vector<double> times = timeline->take();
  double least = times.back();
  for (std::size_t i = 1; i < times.size(); ++i) least = std::min(least, times[i] - times[i - 1]);
  return least;
}

}  // namespace

double Ceilings::seconds(std::int64_t bytes, double flop) const {
  return known() ? std::max(static_cast<double>(bytes) / bytes_per_second, flop / flop_per_second) : 0.0;
}

Ceilings measure_ceilings(Context& context, DType type) {
  if (context.is_dry()) return {};
  // More than caches hold, and a product that is large enough for every core.
  const std::int64_t elements = std::int64_t{1} << (context.is_cpu() ? 25 : 28);
  const std::int64_t n = context.is_cpu() ? 1536 : 8192;
  Ceilings ceilings;
  {
    const Tensor from = Tensor::zeros(context, {elements});
    Tensor to = Tensor::zeros(context, {elements});
    const double seconds = least_seconds(context, [&] { to.copy_from(from); });
    ceilings.bytes_per_second = static_cast<double>(from.bytes() + to.bytes()) / seconds;
  }
  const Tensor a = normal(context, {n, n}, NoiseKey{.seed = 1}, 1.0, type),
               b = normal(context, {n, n}, NoiseKey{.seed = 2}, 1.0, type);
  Tensor c = Tensor::empty(context, {n, n}, type);
  const Matmul product{.a = a.buffer(),
                       .b = b.buffer(),
                       .bias = {},
                       .c = c.buffer(),
                       .batch = 1,
                       .m = n,
                       .n = n,
                       .k = n,
                       .lda = n,
                       .ldb = n,
                       .ldc = n,
                       .stride_a = n * n,
                       .stride_b = n * n,
                       .stride_c = n * n,
                       .trans_a = false,
                       .trans_b = true};
  ceilings.flop_per_second = product.cost().flop / least_seconds(context, [&] { run(product, context); });
  return ceilings;
}

}  // namespace sgm
