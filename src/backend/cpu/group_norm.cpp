#include "kernels/group_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/scratch.h"

namespace sgm {
namespace {

/// A thread's share: some whole groups of one sample, at least 64 channels where there are as many, so that
/// rows are read in whole cache lines and the share fits the second-level cache.
struct Slices {
  std::int64_t groups_per_slice, slices, width;  // width: channels per slice (the last may be narrower)

  Slices(std::int64_t c, std::int64_t groups) {
    const std::int64_t per_group = c / groups;
    groups_per_slice = std::clamp<std::int64_t>((64 + per_group - 1) / per_group, 1, groups);
    slices = (groups + groups_per_slice - 1) / groups_per_slice;
    width = groups_per_slice * per_group;
  }
};

/// Per-channel sums of f(row, channel) over all rows: float lanes over blocks of rows, then double.
template <class A, class F>
void sum_channels(std::int64_t rows, std::int64_t width, std::vector<double>& sums, std::vector<A>& lanes,
                  F&& f) {
  constexpr std::int64_t kBlock = 64;
  std::fill_n(sums.begin(), width, 0.0);
  for (std::int64_t begin = 0; begin < rows; begin += kBlock) {
    std::fill_n(lanes.begin(), width, A(0));
    for (std::int64_t row = begin; row < std::min(rows, begin + kBlock); ++row) f(row, lanes.data());
    for (std::int64_t i = 0; i < width; ++i) sums[i] += lanes[i];
  }
}

double sum_of(const double* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

/// factors[i] = 1 / (1 - rate) or 0 for elements first .. first + count - 1 of a sample.
template <class A>
void keep_factors(const DropoutMask& dropout, std::uint32_t sample, std::int64_t first, std::int64_t count,
                  A* factors) {
  const A keep = A(1.0 / (1.0 - dropout.rate));
  const auto threshold = static_cast<std::uint32_t>(dropout.rate * 4294967296.0);
  if (first % 4 == 0 && count % 4 == 0) {
#pragma omp simd
    for (std::int64_t block = 0; block < count / 4; ++block) {
      const PhiloxWords words = philox(dropout.key, sample, static_cast<std::uint32_t>(first / 4 + block));
      for (int j = 0; j < 4; ++j) factors[4 * block + j] = words.word[j] >= threshold ? keep : A(0);
    }
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const auto e = static_cast<std::uint32_t>(first + i);
    factors[i] = philox(dropout.key, sample, e / 4).word[e % 4] >= threshold ? keep : A(0);
  }
}

template <class T>
class Forward {
  using A = Accumulator<T>;

 public:
  explicit Forward(const GroupNorm& op) : op_(op), slices_(op.c, op.groups) {}

  void operator()() const {
#pragma omp parallel
    {
      std::vector<double> sums(slices_.width);
      std::vector<A> lanes(slices_.width), scale(slices_.width), offset(slices_.width), keep(slices_.width);
#pragma omp for collapse(2) schedule(static)
      for (std::int64_t n = 0; n < op_.n; ++n)
        for (std::int64_t s = 0; s < slices_.slices; ++s) {
          affine_of(n, s, sums, lanes, scale, offset);
          dispatch_activation(op_.activation, [&]<Activation K>() { apply<K>(n, s, scale, offset, keep); });
        }
    }
  }

 private:
  /// Statistics of the slice's groups, and the per-channel y = activation(scale x + offset) they amount to.
  void affine_of(std::int64_t n, std::int64_t s, std::vector<double>& sums, std::vector<A>& lanes,
                 std::vector<A>& scale, std::vector<A>& offset) const {
    const std::int64_t per_group = op_.c / op_.groups, c0 = s * slices_.width;
    const std::int64_t g0 = s * slices_.groups_per_slice,
                       g1 = std::min(op_.groups, g0 + slices_.groups_per_slice);
    const std::int64_t width = (g1 - g0) * per_group;
    const double count = static_cast<double>(op_.hw * per_group);
    const T* x = op_.x.as<T>() + n * op_.hw * op_.c + c0;
    const A* shift = op_.shift ? op_.shift.as<A>() + n * op_.c + c0 : nullptr;
    const A *gamma = op_.gamma.as<A>() + c0, *beta = op_.beta.as<A>() + c0;

    sum_channels<A>(op_.hw, width, sums, lanes, [&](std::int64_t row, A* acc) {
      const T* in = x + row * op_.c;
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) acc[i] += A(in[i]);
    });
    if (shift)
      for (std::int64_t i = 0; i < width; ++i) sums[i] += static_cast<double>(op_.hw) * shift[i];
    for (std::int64_t g = g0; g < g1; ++g) {
      const std::int64_t first = (g - g0) * per_group;
      const double mean = sum_of(&sums[first], per_group) / count;
      op_.mean.as<A>()[n * op_.groups + g] = A(mean);
      for (std::int64_t i = first; i < first + per_group; ++i)
        offset[i] = A((shift ? shift[i] : A(0)) - mean);
    }
    sum_channels<A>(op_.hw, width, sums, lanes, [&](std::int64_t row, A* acc) {
      const T* in = x + row * op_.c;
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) {
        const A centred = A(in[i]) + offset[i];
        acc[i] += centred * centred;
      }
    });
    for (std::int64_t g = g0; g < g1; ++g) {
      const std::int64_t first = (g - g0) * per_group;
      const A rstd = A(1.0 / std::sqrt(sum_of(&sums[first], per_group) / count + op_.eps));
      op_.rstd.as<A>()[n * op_.groups + g] = rstd;
      for (std::int64_t i = first; i < first + per_group; ++i) {
        scale[i] = gamma[i] * rstd;
        offset[i] = offset[i] * scale[i] + beta[i];
      }
    }
  }

  template <Activation K>
  void apply(std::int64_t n, std::int64_t s, const std::vector<A>& scale, const std::vector<A>& offset,
             std::vector<A>& keep) const {
    const std::int64_t c0 = s * slices_.width, width = std::min(slices_.width, op_.c - c0);
    for (std::int64_t row = 0; row < op_.hw; ++row) {
      const T* in = op_.x.as<T>() + (n * op_.hw + row) * op_.c + c0;
      T* out = op_.y.as<T>() + (n * op_.hw + row) * op_.c + c0;
      if (op_.dropout.rate == 0.0) {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) out[i] = T(activate<K>(scale[i] * A(in[i]) + offset[i]));
        continue;
      }
      keep_factors(op_.dropout, static_cast<std::uint32_t>(n), row * op_.c + c0, width, keep.data());
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i)
        out[i] = T(keep[i] * activate<K>(scale[i] * A(in[i]) + offset[i]));
    }
  }

  const GroupNorm& op_;
  Slices slices_;
};

template <class T>
class Backward {
  using A = Accumulator<T>;

 public:
  Backward(const GroupNormGrad& op, Context& context)
      : op_(op),
        slices_(op.c, op.groups),
        partial_(context, static_cast<std::size_t>(2 * op.n * op.c) * sizeof(A)) {}

  void operator()() const {
#pragma omp parallel
    {
      Work w(slices_.width, op_.hw);
#pragma omp for collapse(2) schedule(static)
      for (std::int64_t n = 0; n < op_.n; ++n)
        for (std::int64_t s = 0; s < slices_.slices; ++s)
          dispatch_activation(op_.activation, [&]<Activation K>() { slice<K>(n, s, w); });
    }
    if (op_.dgamma) reduce_samples(partial_.as<A>(), op_.dgamma.as<A>());
    if (op_.dbeta) reduce_samples(partial_.as<A>() + op_.n * op_.c, op_.dbeta.as<A>());
  }

 private:
  struct Work {
    std::vector<A> scale, offset, x_scale, x_offset, keep, du;
    std::vector<A> lanes_u, lanes_ux, lanes_x;
    std::vector<double> sum_u, sum_ux, sum_x;

    Work(std::int64_t width, std::int64_t hw)
        : scale(width),
          offset(width),
          x_scale(width),
          x_offset(width),
          keep(width),
          du(width * hw),
          lanes_u(width),
          lanes_ux(width),
          lanes_x(width),
          sum_u(width),
          sum_ux(width),
          sum_x(width) {}
  };

  /// With u = gamma xhat + beta and du = dL/du:
  ///   dx = rstd (gamma du - mean(gamma du) - xhat mean(gamma du xhat)), means over the group.
  template <Activation K>
  void slice(std::int64_t n, std::int64_t s, Work& w) const {
    const std::int64_t per_group = op_.c / op_.groups, c0 = s * slices_.width;
    const std::int64_t width = std::min(slices_.width, op_.c - c0), g0 = s * slices_.groups_per_slice;
    const A *gamma = op_.gamma.as<A>() + c0, *beta = op_.beta.as<A>() + c0;
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t g = n * op_.groups + g0 + i / per_group;
      w.x_scale[i] = op_.rstd.as<A>()[g];
      w.x_offset[i] =
          ((op_.shift ? op_.shift.as<A>()[n * op_.c + c0 + i] : A(0)) - op_.mean.as<A>()[g]) * w.x_scale[i];
      w.scale[i] = gamma[i] * w.x_scale[i];
      w.offset[i] = gamma[i] * w.x_offset[i] + beta[i];
    }
    differentiate_activation<K>(n, c0, width, w);

    const double count = static_cast<double>(op_.hw * per_group);
    for (std::int64_t first = 0; first < width; first += per_group) {
      double mean_u = 0, mean_ux = 0;
      for (std::int64_t i = first; i < first + per_group; ++i) {
        mean_u += gamma[i] * w.sum_u[i];
        mean_ux += gamma[i] * w.sum_ux[i];
      }
      mean_u /= count, mean_ux /= count;
      for (std::int64_t i = first; i < first + per_group; ++i) {
        const double rstd = w.x_scale[i];
        if (op_.dshift)
          op_.dshift.as<A>()[n * op_.c + c0 + i] =
              A(rstd * (gamma[i] * w.sum_u[i] - static_cast<double>(op_.hw) * mean_u - mean_ux * w.sum_x[i]));
        partial_.as<A>()[n * op_.c + c0 + i] = A(w.sum_ux[i]);
        partial_.as<A>()[(op_.n + n) * op_.c + c0 + i] = A(w.sum_u[i]);
        // dx = scale du + lanes_ux x + lanes_u, the per-channel affine form of the formula above.
        w.lanes_ux[i] = A(-rstd * mean_ux * w.x_scale[i]);
        w.lanes_u[i] = A(-rstd * (mean_u + mean_ux * w.x_offset[i]));
      }
    }
    for (std::int64_t row = 0; row < op_.hw; ++row) {
      const T* x = op_.x.as<T>() + (n * op_.hw + row) * op_.c + c0;
      T* dx = op_.dx.as<T>() + (n * op_.hw + row) * op_.c + c0;
      const A* du = w.du.data() + row * width;
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i)
        dx[i] = T(w.scale[i] * du[i] + w.lanes_ux[i] * A(x[i]) + w.lanes_u[i]);
    }
  }

  /// w.du = dL/du, and its sums over rows: of du, du xhat and xhat.
  template <Activation K>
  void differentiate_activation(std::int64_t n, std::int64_t c0, std::int64_t width, Work& w) const {
    constexpr std::int64_t kBlock = 64;
    for (std::vector<double>* sums : {&w.sum_u, &w.sum_ux, &w.sum_x}) std::fill_n(sums->begin(), width, 0.0);
    for (std::int64_t begin = 0; begin < op_.hw; begin += kBlock) {
      for (std::vector<A>* lanes : {&w.lanes_u, &w.lanes_ux, &w.lanes_x})
        std::fill_n(lanes->begin(), width, A(0));
      for (std::int64_t row = begin; row < std::min(op_.hw, begin + kBlock); ++row) {
        const T* x = op_.x.as<T>() + (n * op_.hw + row) * op_.c + c0;
        const T* dy = op_.dy.as<T>() + (n * op_.hw + row) * op_.c + c0;
        A* du = w.du.data() + row * width;
        if (op_.dropout.rate == 0.0)
          std::fill_n(w.keep.begin(), width, A(1));
        else
          keep_factors(op_.dropout, static_cast<std::uint32_t>(n), row * op_.c + c0, width, w.keep.data());
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) {
          const A value = A(x[i]), xhat = w.x_scale[i] * value + w.x_offset[i];
          const A d = w.keep[i] * A(dy[i]) * activate_grad<K>(w.scale[i] * value + w.offset[i]);
          du[i] = d;
          w.lanes_u[i] += d;
          w.lanes_ux[i] += d * xhat;
          w.lanes_x[i] += xhat;
        }
      }
      for (std::int64_t i = 0; i < width; ++i) {
        w.sum_u[i] += w.lanes_u[i];
        w.sum_ux[i] += w.lanes_ux[i];
        w.sum_x[i] += w.lanes_x[i];
      }
    }
  }

  void reduce_samples(const A* partial, A* out) const {
    for (std::int64_t i = 0; i < op_.c; ++i) {
      double sum = 0;
      for (std::int64_t n = 0; n < op_.n; ++n) sum += partial[n * op_.c + i];
      out[i] = A(sum);
    }
  }

  const GroupNormGrad& op_;
  Slices slices_;
  Scratch partial_;  // [2, n, c]: sums of du xhat, then of du
};

}  // namespace

void GroupNorm::cpu(Context&) const {
  dispatch_float(x.dtype, "group_norm", [&]<class T>(T) { Forward<T>{*this}(); });
}

void GroupNormGrad::cpu(Context& context) const {
  dispatch_float(x.dtype, "group_norm", [&]<class T>(T) { Backward<T>{*this, context}(); });
}

}  // namespace sgm
