#include "kernels/group_norm.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/assign.h"
#include "backend/cpu/group_norm_slices.h"
#include "backend/scratch.h"

namespace sgm {
namespace {

template <class T>
class Forward {
  using A = Accumulator<T>;

 public:
  explicit Forward(const GroupNorm& op) : op_(op), slices_(op.n, op.hw, op.c, op.c2, op.groups) {}

  void operator()() const {
#pragma omp parallel
    {
      Work w(slices_.most_channels());
#pragma omp for collapse(2) schedule(static)
      for (std::int64_t n = 0; n < op_.n; ++n)
        for (std::int64_t s = 0; s < slices_.per_sample(); ++s) {
          const Slice slice = slices_.at(n, s);
          find_affine(slice, w);
          dispatch_activation(op_.activation, [&]<Activation K>() {
            for (const SlicePart& part : slice) apply<K>(slice, part, w);
          });
        }
    }
  }

 private:
  struct Work {
    std::vector<double> sums;
    std::vector<A> lanes, scale, offset, keep, row;

    explicit Work(std::int64_t width)
        : sums(width), lanes(width), scale(width), offset(width), keep(width), row(width) {}
  };

  const T* input(const Slice& slice, const SlicePart& part) const {
    return part.at((part.input == 0 ? op_.x : op_.x2).template as<T>(), slice.n, op_.hw);
  }

  /// w.sums: per-channel sums of f(value, channel of the slice) over all pixels.
  template <class F>
  void sum_pixels(const Slice& slice, Work& w, F&& f) const {
    std::fill_n(w.sums.begin(), slice.width, 0.0);
    for (const SlicePart& part : slice) {
      const T* x = input(slice, part);
      A* const lanes = w.lanes.data() + part.begin;
      for (std::int64_t begin = 0; begin < op_.hw; begin += kSummedRows) {
        std::fill_n(lanes, part.size, A(0));
        for (std::int64_t row = begin; row < std::min(op_.hw, begin + kSummedRows); ++row) {
          const T* in = x + row * part.ld;
#pragma omp simd
          for (std::int64_t i = 0; i < part.size; ++i) lanes[i] += f(A(in[i]), part.begin + i);
        }
        for (std::int64_t i = 0; i < part.size; ++i) w.sums[part.begin + i] += lanes[i];
      }
    }
  }

  /// Statistics of the slice's groups, and the per-channel y = activation(scale x + offset) they amount to.
  void find_affine(const Slice& slice, Work& w) const {
    const std::int64_t per_group = slices_.per_group();
    const double count = static_cast<double>(op_.hw * per_group);
    const A* shift = op_.shift ? op_.shift.as<A>() + slice.n * op_.shift_ld + slice.c0 : nullptr;
    const A *gamma = op_.gamma.as<A>() + slice.c0, *beta = op_.beta.as<A>() + slice.c0;
    A *mean = op_.mean.as<A>() + slice.n * op_.groups + slice.g0,
      *rstd = op_.rstd.as<A>() + slice.n * op_.groups + slice.g0;

    sum_pixels(slice, w, [](A value, std::int64_t) { return value; });
    if (shift)
      for (std::int64_t i = 0; i < slice.width; ++i) w.sums[i] += static_cast<double>(op_.hw) * shift[i];
    for (std::int64_t g = 0; g < slice.groups; ++g) {
      const std::int64_t first = g * per_group;
      const double exact = sum_of(&w.sums[first], per_group) / count;
      mean[g] = A(exact);
      for (std::int64_t i = first; i < first + per_group; ++i)
        w.offset[i] = A((shift ? shift[i] : A(0)) - exact);
    }
    const A* offset = w.offset.data();
    sum_pixels(slice, w, [offset](A value, std::int64_t i) {
      const A centred = value + offset[i];
      return centred * centred;
    });
    for (std::int64_t g = 0; g < slice.groups; ++g) {
      const std::int64_t first = g * per_group;
      rstd[g] = A(1.0 / std::sqrt(sum_of(&w.sums[first], per_group) / count + op_.eps));
      for (std::int64_t i = first; i < first + per_group; ++i) {
        w.scale[i] = gamma[i] * rstd[g];
        w.offset[i] = w.offset[i] * w.scale[i] + beta[i];
      }
    }
  }

  template <Activation K>
  void apply(const Slice& slice, const SlicePart& part, Work& w) const {
    const T* x = input(slice, part);
    const A *scale = w.scale.data() + part.begin, *offset = w.offset.data() + part.begin;
    const std::int64_t column = slice.c0 + part.begin;
    A *keep = w.keep.data(), *result = w.row.data();
    for (std::int64_t row = 0; row < op_.hw; ++row) {
      const T* in = x + row * part.ld;
      T* out = op_.y.as<T>() + (slice.n * op_.hw + row) * op_.c + column;
      if (op_.joined)
        std::copy_n(in, part.size, op_.joined.as<T>() + (slice.n * op_.hw + row) * op_.c + column);
      if constexpr (std::is_same_v<T, A>) result = out;
#pragma omp simd
      for (std::int64_t i = 0; i < part.size; ++i) result[i] = activate<K>(scale[i] * A(in[i]) + offset[i]);
      if (op_.dropout.rate != 0.0) {
        keep_factors(op_.dropout, slice.n, row * op_.c + column, part.size, 1.0, keep);
#pragma omp simd
        for (std::int64_t i = 0; i < part.size; ++i) result[i] *= keep[i];
      }
      if constexpr (!std::is_same_v<T, A>) assign_row(out, result, part.size);
    }
  }

  const GroupNorm& op_;
  Slices slices_;
};

}  // namespace

void GroupNorm::cpu(Context&) const {
  dispatch_float(x.dtype, "group_norm", [&]<class T>(T) { Forward<T>{*this}(); });
}

void GroupNormResample::cpu(Context& context) const {
  const Scratch normalised(context,
                           static_cast<std::size_t>(norm.n * norm.hw * norm.c) * size_of(norm.x.dtype));
  if (context.is_dry()) return;
  GroupNorm first = norm;
  first.y = {normalised.data(), norm.x.dtype};
  first.cpu(context);
  UpFirDn then = resample;
  then.x = first.y, then.y = y;
  then.cpu(context);
  then.x = norm.x, then.y = input;
  then.cpu(context);
}

}  // namespace sgm
