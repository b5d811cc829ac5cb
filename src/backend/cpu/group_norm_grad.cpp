#include "backend/cpu/assign.h"
#include "backend/cpu/group_norm_slices.h"
#include "backend/group_norm_steps.h"
#include "backend/scratch.h"

namespace sgm {
namespace {

template <class T>
class Backward {
  using A = Accumulator<T>;

 public:
  Backward(const GroupNormGrad& op, Context& context)
      : op_(op),
        slices_(op.n, op.hw, op.c, op.c2, op.groups),
        partial_(context, static_cast<std::size_t>(3 * op.n * op.c) * sizeof(A)),
        du_(context,
            static_cast<std::size_t>(omp_get_max_threads() * slices_.most_channels() * op.hw) * sizeof(A)) {}

  void operator()() const {
#pragma omp parallel
    {
      const std::int64_t width = slices_.most_channels();
      Work w(width, du_.as<A>() + omp_get_thread_num() * width * op_.hw);
#pragma omp for collapse(2) schedule(static)
      for (std::int64_t n = 0; n < op_.n; ++n)
        for (std::int64_t s = 0; s < slices_.per_sample(); ++s)
          dispatch_activation(op_.activation, [&]<Activation K>() { differentiate<K>(slices_.at(n, s), w); });
    }
    const std::int64_t c1 = op_.c - op_.c2;
    reduce_samples(kScaleGrad, 0, op_.c, op_.dgamma);
    reduce_samples(kOffsetGrad, 0, op_.c, op_.dbeta);
    reduce_samples(kInputGrad, 0, c1, op_.dx_sums);
    reduce_samples(kInputGrad, c1, op_.c2, op_.dx2_sums);
  }

 private:
  /// What is summed over the pixels of every sample: gradients of gamma, of beta and of the input.
  enum Partial { kScaleGrad, kOffsetGrad, kInputGrad };

  struct Work {
    A* du;  // [hw, width]
    std::vector<A> scale, offset, x_scale, x_offset;
    std::vector<A> keep, lanes_u, lanes_ux, lanes_x;
    std::vector<double> sum_u, sum_ux, sum_x, sum_addends;

    Work(std::int64_t width, A* du_of_thread)
        : du(du_of_thread),
          scale(width),
          offset(width),
          x_scale(width),
          x_offset(width),
          keep(width),
          lanes_u(width),
          lanes_ux(width),
          lanes_x(width),
          sum_u(width),
          sum_ux(width),
          sum_x(width),
          sum_addends(width) {}
  };

  const T* input(const Slice& slice, const SlicePart& part) const {
    return part.at((part.input == 0 ? op_.x : op_.x2).template as<T>(), slice.n, op_.hw);
  }
  A* partial(Partial which, std::int64_t n) const { return partial_.as<A>() + (which * op_.n + n) * op_.c; }

  /// With u = gamma xhat + beta and du = dL/du:
  ///   dx = rstd (gamma du - mean(gamma du) - xhat mean(gamma du xhat)), means over the group.
  template <Activation K>
  void differentiate(const Slice& slice, Work& w) const {
    const std::int64_t per_group = slices_.per_group();
    const A *gamma = op_.gamma.as<A>() + slice.c0, *beta = op_.beta.as<A>() + slice.c0;
    const A* shift = op_.shift ? op_.shift.as<A>() + slice.n * op_.shift_ld + slice.c0 : nullptr;
    for (std::int64_t i = 0; i < slice.width; ++i) {
      const std::int64_t g = slice.n * op_.groups + slice.g0 + i / per_group;
      w.x_scale[i] = op_.rstd.as<A>()[g];
      w.x_offset[i] = ((shift ? shift[i] : A(0)) - op_.mean.as<A>()[g]) * w.x_scale[i];
      w.scale[i] = gamma[i] * w.x_scale[i];
      w.offset[i] = gamma[i] * w.x_offset[i] + beta[i];
    }
    for (const SlicePart& part : slice) differentiate_activation<K>(slice, part, w);
    for (std::int64_t first = 0; first < slice.width; first += per_group) find_affine(slice, first, w);
    for (const SlicePart& part : slice) write(slice, part, w);
    for (std::int64_t i = 0; i < slice.width; ++i)
      partial(kInputGrad, slice.n)[slice.c0 + i] += A(w.sum_addends[i]);
  }

  /// w.du = dL/du, and its sums over pixels: of du, du xhat and xhat.
  template <Activation K>
  void differentiate_activation(const Slice& slice, const SlicePart& part, Work& w) const {
    const T* x_part = input(slice, part);
    const std::int64_t from = part.begin, column = slice.c0 + from;
    const A *x_scale = w.x_scale.data() + from, *x_offset = w.x_offset.data() + from;
    const A *scale = w.scale.data() + from, *offset = w.offset.data() + from;
    A *keep = w.keep.data(), *lanes_u = w.lanes_u.data(), *lanes_ux = w.lanes_ux.data(),
      *lanes_x = w.lanes_x.data();
    for (std::vector<double>* sums : {&w.sum_u, &w.sum_ux, &w.sum_x, &w.sum_addends})
      std::fill_n(sums->begin() + from, part.size, 0.0);
    keep_factors({}, slice.n, 0, part.size, op_.dy_scale, keep);
    for (std::int64_t begin = 0; begin < op_.hw; begin += kSummedRows) {
      for (A* lanes : {lanes_u, lanes_ux, lanes_x}) std::fill_n(lanes, part.size, A(0));
      for (std::int64_t row = begin; row < std::min(op_.hw, begin + kSummedRows); ++row) {
        const T *x = x_part + row * part.ld, *dy = op_.dy.as<T>() + (slice.n * op_.hw + row) * op_.c + column;
        A* du = w.du + row * slice.width + from;
        if (op_.dropout.rate != 0.0)
          keep_factors(op_.dropout, slice.n, row * op_.c + column, part.size, op_.dy_scale, keep);
#pragma omp simd
        for (std::int64_t i = 0; i < part.size; ++i) {
          const A value = A(x[i]), xhat = x_scale[i] * value + x_offset[i];
          const A d = keep[i] * A(dy[i]) * activate_grad<K>(scale[i] * value + offset[i]);
          du[i] = d;
          lanes_u[i] += d;
          lanes_ux[i] += d * xhat;
          lanes_x[i] += xhat;
        }
      }
      for (std::int64_t i = 0; i < part.size; ++i) {
        w.sum_u[from + i] += lanes_u[i];
        w.sum_ux[from + i] += lanes_ux[i];
        w.sum_x[from + i] += lanes_x[i];
      }
    }
  }

  /// The formula of dx as scale du + lanes_ux x + lanes_u per channel, for the group that begins at channel
  /// `first` of the slice; and the gradients that are sums over pixels.
  void find_affine(const Slice& slice, std::int64_t first, Work& w) const {
    const std::int64_t per_group = slices_.per_group();
    const A* gamma = op_.gamma.as<A>() + slice.c0;
    double mean_u = 0, mean_ux = 0;
    for (std::int64_t i = first; i < first + per_group; ++i) {
      mean_u += gamma[i] * w.sum_u[i];
      mean_ux += gamma[i] * w.sum_ux[i];
    }
    const double hw = static_cast<double>(op_.hw), count = hw * static_cast<double>(per_group);
    mean_u /= count, mean_ux /= count;
    for (std::int64_t i = first; i < first + per_group; ++i) {
      const double rstd = w.x_scale[i];
      const A sum = A(rstd * (gamma[i] * w.sum_u[i] - hw * mean_u - mean_ux * w.sum_x[i]));
      if (op_.dshift) op_.dshift.as<A>()[slice.n * op_.shift_ld + slice.c0 + i] = sum;
      partial(kInputGrad, slice.n)[slice.c0 + i] = sum;
      partial(kScaleGrad, slice.n)[slice.c0 + i] = A(w.sum_ux[i]);
      partial(kOffsetGrad, slice.n)[slice.c0 + i] = A(w.sum_u[i]);
      w.lanes_ux[i] = A(-rstd * mean_ux * w.x_scale[i]);
      w.lanes_u[i] = A(-rstd * (mean_u + mean_ux * w.x_offset[i]));
    }
  }

  void write(const Slice& slice, const SlicePart& part, Work& w) const {
    const T* x_part = input(slice, part);
    T* dx_part = part.at((part.input == 0 ? op_.dx : op_.dx2).template as<T>(), slice.n, op_.hw);
    const A *scale = w.scale.data() + part.begin, *factor = w.lanes_ux.data() + part.begin,
            *offset = w.lanes_u.data() + part.begin;
    const bool more = (part.input == 0 ? op_.addends : op_.addends2)[0].x.data != nullptr;
    for (std::int64_t row = 0; row < op_.hw; ++row) {
      const T* x = x_part + row * part.ld;
      A* du = w.du + row * slice.width + part.begin;
#pragma omp simd
      for (std::int64_t i = 0; i < part.size; ++i) du[i] = scale[i] * du[i] + factor[i] * A(x[i]) + offset[i];
      if (!more) assign_row(dx_part + row * part.ld, du, part.size);
    }
    if (more) add_others(slice, part, dx_part, w);
  }

  /// dx = w.du, which holds the norm's own part, plus the addends; sums of these over pixels.
  void add_others(const Slice& slice, const SlicePart& part, T* dx_part, Work& w) const {
    A* lanes = w.lanes_x.data() + part.begin;
    for (std::int64_t begin = 0; begin < op_.hw; begin += kSummedRows) {
      std::fill_n(lanes, part.size, A(0));
      for (std::int64_t row = begin; row < std::min(op_.hw, begin + kSummedRows); ++row) {
        A* sum = w.du + row * slice.width + part.begin;
        for (const Addend& addend : part.input == 0 ? op_.addends : op_.addends2) {
          if (!addend.x) break;
          const T* add = part.at(addend.x.as<T>(), slice.n, op_.hw) + row * part.ld;
          const A factor = A(addend.factor);
#pragma omp simd
          for (std::int64_t i = 0; i < part.size; ++i) {
            const A value = factor * A(add[i]);
            sum[i] += value;
            lanes[i] += value;
          }
        }
        assign_row(dx_part + row * part.ld, sum, part.size);
      }
      for (std::int64_t i = 0; i < part.size; ++i) w.sum_addends[part.begin + i] += lanes[i];
    }
  }

  /// out[i] = the sum over samples of a partial's channel first + i.
  void reduce_samples(Partial which, std::int64_t first, std::int64_t count, const Buffer& out) const {
    if (!out) return;
    for (std::int64_t i = 0; i < count; ++i) {
      double sum = 0;
      for (std::int64_t n = 0; n < op_.n; ++n) sum += partial(which, n)[first + i];
      out.as<A>()[i] = A(sum);
    }
  }

  const GroupNormGrad& op_;
  Slices slices_;
  Scratch partial_;  // [3, n, c]
  Scratch du_;       // of every thread
};

}  // namespace

void GroupNormGrad::cpu(Context& context) const {
  dispatch_float(x.dtype, "group_norm", [&]<class T>(T) {
    const Backward<T> backward{*this, context};
    if (!context.is_dry()) backward();
  });
}

void GroupNormResampleGrad::cpu(Context& context) const {
  resample_grad_in_steps(*this, context, [&]<class Op>(const Op& op) {
    if (!context.is_dry() || TakesScratch<Op>) op.cpu(context);
  });
}

}  // namespace sgm
