#include "kernels/upfirdn.h"

#include <vector>

#include "backend/cpu/assign.h"

namespace sgm {
namespace {

/// For each output index along one axis: the input indices it reads and their taps.
class AxisPlan {
 public:
  struct Term {
    std::int64_t index;
    double tap;
  };

  /// factor: of all taps.
  AxisPlan(const UpFirDn& op, std::int64_t in, std::int64_t out, double factor) : first_(out + 1) {
    for (std::int64_t o = 0; o < out; ++o) {
      first_[o] = static_cast<std::int64_t>(terms_.size());
      for (int j = 0; j < op.num_taps; ++j) {
        const std::int64_t position = o * op.down + j - op.pad0;
        if (position >= 0 && position % op.up == 0 && position / op.up < in && op.taps[j] != 0.0)
          terms_.push_back({position / op.up, factor * op.taps[j]});
      }
    }
    first_[out] = static_cast<std::int64_t>(terms_.size());
  }

  const Term* begin(std::int64_t o) const { return terms_.data() + first_[o]; }
  const Term* end(std::int64_t o) const { return terms_.data() + first_[o + 1]; }

 private:
  std::vector<std::int64_t> first_;
  std::vector<Term> terms_;
};

template <class T>
void filter(const UpFirDn& op) {
  using A = Accumulator<T>;
  const AxisPlan rows(op, op.h, op.oh, op.scale), cols(op, op.w, op.ow, 1.0);
  const std::int64_t line = op.w * op.c;
#pragma omp parallel
  {
    std::vector<A> column_sums(line), sum(op.c);
#pragma omp for collapse(2)
    for (std::int64_t n = 0; n < op.n; ++n)
      for (std::int64_t oy = 0; oy < op.oh; ++oy) {
        std::fill(column_sums.begin(), column_sums.end(), A(0));
        for (const auto* term = rows.begin(oy); term != rows.end(oy); ++term) {
          const T* in = op.x.as<T>() + (n * op.h + term->index) * line;
          const A tap = A(term->tap);
#pragma omp simd
          for (std::int64_t i = 0; i < line; ++i) column_sums[i] += tap * A(in[i]);
        }
        for (std::int64_t ox = 0; ox < op.ow; ++ox) {
          std::fill(sum.begin(), sum.end(), A(0));
          for (const auto* term = cols.begin(ox); term != cols.end(ox); ++term) {
            const A* in = column_sums.data() + term->index * op.c;
            const A tap = A(term->tap);
#pragma omp simd
            for (std::int64_t i = 0; i < op.c; ++i) sum[i] += tap * in[i];
          }
          T* out = op.y.as<T>() + ((n * op.oh + oy) * op.ow + ox) * op.c;
#pragma omp simd
          for (std::int64_t i = 0; i < op.c; ++i) assign(out[i], sum[i]);
        }
      }
  }
}

}  // namespace

void UpFirDn::cpu(Context&) const {
  dispatch_float(x.dtype, "upfirdn", [&]<class T>(T) { filter<T>(*this); });
}

}  // namespace sgm
