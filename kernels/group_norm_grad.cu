#include "kernels/group_norm_tile.h"

#include "backend/group_norm_steps.h"
#include "backend/scratch.h"
#include "kernels/fill.h"

namespace sgm {
namespace {

constexpr int kMaxAddends = GroupNormGrad::kMaxAddends;

/// The gradient of one input: where it goes, and what is added to it.
template <class T>
struct InputGrad {
  T* dx;
  const T* addends[kMaxAddends];
  float factors[kMaxAddends];
  int count;  // of addends
  float* sums;

  InputGrad(const Buffer& grad, const Addend (&others)[kMaxAddends], const Buffer& totals)
      : dx(grad.as<T>()), addends(), factors(), count(0), sums(totals.as<float>()) {
    for (; count < kMaxAddends && others[count].x; ++count) {
      addends[count] = others[count].x.template as<T>();
      factors[count] = static_cast<float>(others[count].factor);
    }
  }
};

/// What is summed over pixels: factors of du = dL/du with u = scale x + offset. Later, in the same order, of
/// the parameters: gradients of gamma, of beta, and of the input.
constexpr int kSums = 3;

template <class T>
struct GradArgs {
  const T *x, *x2, *dy;
  const float *shift, *gamma, *beta, *mean, *rstd;
  InputGrad<T> first, second;
  float *dshift, *dgamma, *dbeta;
  std::int64_t shift_ld;
  float factor;  // of dy: its scale, and dropout's
  Activation activation;
  NormDropout dropout;
  float* sample_sums;     // [kSums, n, c]: of the parameters and the input
  float* chunk_sums;      // [kSums, n, chunks, c]: of samples in chunks
  float* chunk_addends;   // [n, chunks, c]
  float *slope, *origin;  // [n, c]
  unsigned* counters;

  __device__ bool wants_totals() const { return dgamma || dbeta || first.sums || second.sums; }
};

/// Arrays over a block's channels, in its shared memory behind what it holds.
struct Channels {
  static constexpr int kArrays = 8;
  float* arrays;
  int pitch;

  __device__ Channels(const NormTiling& t, std::size_t held_bytes)
      : arrays(reinterpret_cast<float*>(dynamic_shared<char>() + held_bytes)), pitch(t.channels) {}

  // u = scale x + offset, xhat = rstd (x + centre)
  __device__ float* centre() const { return arrays; }
  __device__ float* scale() const { return arrays + pitch; }
  __device__ float* offset() const { return arrays + 2 * pitch; }
  __device__ float* rstd() const { return arrays + 3 * pitch; }
  /// Sums over pixels: of du, of du (x + centre), of x + centre.
  __device__ float* sum(int which) const { return arrays + (4 + which) * pitch; }
  /// Of the norm's part of dx.
  __device__ float* input() const { return arrays + 7 * pitch; }
  __device__ float* buffer() const { return arrays + kArrays * pitch; }
  // dx = scale factor du + slope x + origin; in place of what is not needed any more
  __device__ float* slope() const { return rstd(); }
  __device__ float* origin() const { return sum(2); }

  template <class T>
  __device__ void load(const GradArgs<T>& a, const NormTiling& t, std::int64_t sample, int begin, int width) {
    const float* const shift = a.shift ? a.shift + sample * a.shift_ld + begin : nullptr;
    const std::int64_t statistics = sample * t.groups + begin / t.per_group;
    each_channel(width, [&](int channel) {
      const std::int64_t group = statistics + channel / t.per_group;
      rstd()[channel] = a.rstd[group];
      centre()[channel] = (shift ? shift[channel] : 0.0f) - a.mean[group];
      scale()[channel] = a.gamma[begin + channel] * rstd()[channel];
      offset()[channel] = fmaf(centre()[channel], scale()[channel], a.beta[begin + channel]);
    });
  }

  /// With xhat = (x + centre) rstd, and means over the group of channel:
  ///   dx = rstd (gamma du - mean(gamma du) - xhat mean(gamma du xhat)).
  template <class T>
  __device__ void solve(const GradArgs<T>& a, const NormTiling& t, std::int64_t sample, int begin,
                        int channel) {
    const int first = channel / t.per_group * t.per_group;
    float total_u = 0.0f, total_ux = 0.0f;
    for (int i = first; i < first + t.per_group; ++i) {
      total_u = fmaf(scale()[i], sum(0)[i], total_u);
      total_ux = fmaf(scale()[i], sum(1)[i], total_ux);
    }
    const float pixels = static_cast<float>(t.hw), r = rstd()[channel], x = sum(2)[channel],
                per_element = a.factor / (pixels * static_cast<float>(t.per_group));
    const float constant = -per_element * total_u, linear = -per_element * r * r * total_ux;
    const float total = a.factor * scale()[channel] * sum(0)[channel] + pixels * constant + linear * x;
    if (a.dshift) a.dshift[sample * a.shift_ld + begin + channel] = total;
    const std::int64_t all = t.n * t.c, at = sample * t.c + begin + channel;
    a.sample_sums[at] = a.factor * r * sum(1)[channel];
    a.sample_sums[all + at] = a.factor * sum(0)[channel];
    a.sample_sums[2 * all + at] = input()[channel] = total;
    slope()[channel] = linear;
    origin()[channel] = fmaf(linear, centre()[channel], constant);
  }
};

/// dy with zeros where dropout drops.
template <int P, class T>
__device__ inline NormPack<T, P> dropped(const NormDropout& dropout, const NormTiling& t,
                                         const NormPlace<P>& at, int row, NormPack<T, P> dy) {
  if (!dropout.on) return dy;
  const auto e = static_cast<std::uint32_t>((at.first_row + row) * t.c + at.begin + at.channel);
  const unsigned kept = dropout.kept<P>(at.sample, e);
  if constexpr (P == 1) {
    if (kept == 0) dy = static_cast<T>(0.0f);
  } else {
    for (int j = 0; j < P; ++j)
      if ((kept >> j & 1u) == 0) dy.at[j] = static_cast<T>(0.0f);
  }
  return dy;
}

/// What a block holds of x and dy, dropped already.
template <class T, int P>
struct Held {
  static constexpr int kInFlight = 1;
  const NormPlace<P>& at;
  const NormPack<T, P>*x_packs, *dy_packs;

  __device__ NormPack<T, P> x(int row) const { return x_packs[at.slot(row)]; }
  __device__ NormPack<T, P> dy(int row) const { return dy_packs[at.slot(row)]; }
  __device__ NormPack<T, P> after_dropout(int, const NormPack<T, P>& dy) const { return dy; }
};

/// x and dy where they are.
template <class T, int P>
struct Streamed {
  static constexpr int kInFlight = 2;
  const NormTiling& t;
  const NormPlace<P>& at;
  const T *x_begin, *dy_begin;
  int ld;
  NormDropout dropout;

  __device__ Streamed(const GradArgs<T>& a, const NormTiling& tiling, const NormPlace<P>& place)
      : t(tiling),
        at(place),
        x_begin(at.in(t, a.x, a.x2, ld)),
        dy_begin(at.in(t, a.dy)),
        dropout(a.dropout.resolved()) {}
  __device__ NormPack<T, P> x(int row) const { return read_pack<P>(x_begin + std::int64_t{row} * ld); }
  __device__ NormPack<T, P> dy(int row) const { return read_pack<P>(dy_begin + std::int64_t{row} * t.c); }
  __device__ NormPack<T, P> after_dropout(int row, const NormPack<T, P>& dy) const {
    return dropped<P, T>(dropout, t, at, row, dy);
  }
};

/// Calls body(row, x, dy) for the thread's pixels with its channels of both, some pixels asked for at a time.
template <int P, class T, class Source, class Body>
__device__ inline void each_pixel(const NormPlace<P>& at, const Source& source, Body&& body) {
  constexpr int kInFlight = Source::kInFlight;
#pragma unroll 1
  for (int first = at.line; first < at.rows; first += kInFlight * at.lines) {
    NormPack<T, P> x[kInFlight], dy[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int row = first + i * at.lines;
      if (row < at.rows) x[i] = source.x(row), dy[i] = source.dy(row);
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int row = first + i * at.lines;
      if (row < at.rows) body(row, x[i], source.after_dropout(row, dy[i]));
    }
  }
}

/// The block's sums over pixels, into the arrays of `of`.
template <bool kSwish, int P, class T, class Source>
__device__ inline void sum_pixels(const GradArgs<T>& a, const NormPlace<P>& at, const Channels& of,
                                  const Source& source) {
  const NormActivation<T, kSwish> activation{a.activation};
  float scale[P], offset[P], centre[P], sum_u[P] = {}, sum_ux[P] = {}, sum_x[P] = {};
  at.take(of.scale(), scale);
  at.take(of.offset(), offset);
  at.take(of.centre(), centre);
  each_pixel<P, T>(at, source, [&](int, const NormPack<T, P>& x_pack, const NormPack<T, P>& dy_pack) {
    float x[P], dy[P];
    unpack<P, T>(x_pack, x);
    unpack<P, T>(dy_pack, dy);
    for (int j = 0; j < P; ++j) {
      const float du = dy[j] * activation.slope(fmaf(scale[j], x[j], offset[j]));
      const float centred = x[j] + centre[j];
      sum_u[j] += du;
      sum_ux[j] = fmaf(du, centred, sum_ux[j]);
      sum_x[j] += centred;
    }
  });
  sum_lines(sum_u, at.columns, of.buffer(), [&](int channel, float total) { of.sum(0)[channel] = total; });
  sum_lines(sum_ux, at.columns, of.buffer(), [&](int channel, float total) { of.sum(1)[channel] = total; });
  sum_lines(sum_x, at.columns, of.buffer(), [&](int channel, float total) { of.sum(2)[channel] = total; });
  __syncthreads();
}

/// dx of the thread's pixels; added[channel] = the sum over the block's pixels of what was added to it.
template <bool kSwish, int P, class T, class Source>
__device__ inline void write_gradient(const GradArgs<T>& a, const NormTiling& t, const NormPlace<P>& at,
                                      const Channels& of, float* added, const Source& source) {
  const NormActivation<T, kSwish> activation{a.activation};
  float scale[P], offset[P], slope[P], origin[P], sums[P] = {};
  at.take(of.scale(), scale);
  at.take(of.offset(), offset);
  at.take(of.slope(), slope);
  at.take(of.origin(), origin);
  const bool is_first = at.begin + at.channel < t.c1;
  const int count = is_first ? a.first.count : a.second.count;
  int ld;
  T* const dx = is_first ? a.first.dx : a.second.dx;
  const std::int64_t begin = at.in(t, a.first.dx, a.second.dx, ld) - dx;
  each_pixel<P, T>(at, source, [&](int row, const NormPack<T, P>& x_pack, const NormPack<T, P>& dy_pack) {
    const std::int64_t i = begin + std::int64_t{row} * ld;
    float x[P], dy[P];
    unpack<P, T>(x_pack, x);
    unpack<P, T>(dy_pack, dy);
    for (int j = 0; j < P; ++j) {
      const float du = a.factor * dy[j] * activation.slope(fmaf(scale[j], x[j], offset[j]));
      x[j] = fmaf(scale[j], du, fmaf(slope[j], x[j], origin[j]));
    }
#pragma unroll
    for (int k = 0; k < kMaxAddends; ++k) {
      if (k >= count) continue;
      const T* const addend = is_first ? a.first.addends[k] : a.second.addends[k];
      const float factor = is_first ? a.first.factors[k] : a.second.factors[k];
      unpack<P, T>(read_pack<P>(addend + i), dy);
      for (int j = 0; j < P; ++j) {
        const float added_here = factor * dy[j];
        x[j] += added_here;
        sums[j] += added_here;
      }
    }
    write_pack(dx + i, x);
  });
  if (a.first.count + a.second.count > 0)
    sum_lines(sums, at.columns, of.buffer(), [&](int channel, float total) { added[channel] = total; });
}

/// Totals over samples of a slice's channels. `added`: rows of what was added to the gradients of the
/// inputs, t.c floats apart; none where sample_sums has it.
template <class T>
__device__ inline void write_totals(const GradArgs<T>& a, const NormTiling& t, int slice, const float* added,
                                    const Channels& of) {
  const int begin = slice * t.channels, width = min(t.channels, t.c - begin);
  const auto total = [&](const float* rows, std::int64_t count, float* out) {
    sum_partials(
        count, width, of.buffer(),
        [&](std::int64_t row, int channel) { return rows[row * t.c + begin + channel]; },
        [&](int channel, float sum) { out[channel] = sum; });
    __syncthreads();
  };
  if (a.dgamma) total(a.sample_sums, t.n, a.dgamma + begin);
  if (a.dbeta) total(a.sample_sums + t.n * t.c, t.n, a.dbeta + begin);
  if (!a.first.sums && !a.second.sums) return;
  total(a.sample_sums + 2 * t.n * t.c, t.n, of.input());
  if (added) total(added, t.n * t.chunks, of.sum(0));
  each_channel(width, [&](int channel) {
    const int c = begin + channel;
    float* const sums = c < t.c1 ? a.first.sums : a.second.sums;
    if (sums) sums[c < t.c1 ? c : c - t.c1] = of.input()[channel] + (added ? of.sum(0)[channel] : 0.0f);
  });
  __syncthreads();
}

/// The gradient of a block's share of a sample, which it holds.
template <bool kSwish, int P, class T>
__device__ inline void gradient_on_chip(const GradArgs<T>& a, const NormTiling& t, const NormPlace<P>& at,
                                        Channels& of, const Held<T, P>& held) {
  sum_pixels<kSwish>(a, at, of, held);
  each_channel(at.width, [&](int channel) { of.solve(a, t, at.sample, at.begin, channel); });
  __syncthreads();
  write_gradient<kSwish>(a, t, at, of, of.sum(0), held);
  if (!a.wants_totals()) return;
  if (a.first.count + a.second.count > 0) {
    __syncthreads();
    each_channel(at.width, [&](int channel) {
      a.sample_sums[(2 * t.n + at.sample) * t.c + at.begin + channel] =
          of.input()[channel] + of.sum(0)[channel];
    });
  }
  finish_last(a.counters, t.slices, at.slice, static_cast<unsigned>(t.n),
              [&](std::int64_t slice) { write_totals(a, t, static_cast<int>(slice), nullptr, of); });
}

/// A block holds its share of a sample's x and dy, so that they are read once.
template <class T, int P, bool kSwish>
__global__ void __launch_bounds__(NormTiling::kMaxThreads, kSwish ? 3 : 2)
    group_norm_grad_on_chip_kernel(GradArgs<T> a, NormTiling t) {
  using Packs = NormPack<T, P>;
  const NormPlace<P> at(t);
  Packs* const held_x = dynamic_shared<Packs>();
  Packs* const held_dy = reinterpret_cast<Packs*>(dynamic_shared<char>() + t.held_bytes(sizeof(T)));
  Channels of(t, 2 * t.held_bytes(sizeof(T)));
  of.load(a, t, at.sample, at.begin, at.width);
  int ld;
  const T* x = at.in(t, a.x, a.x2, ld);
  hold(at, x, ld, held_x);
  const NormDropout dropout = a.dropout.resolved();
  hold(at, at.in(t, a.dy), t.c, held_dy);
  if (dropout.on)
#pragma unroll 1
    for (int row = at.line; row < at.rows; row += at.lines)
      held_dy[at.slot(row)] = dropped<P, T>(dropout, t, at, row, held_dy[at.slot(row)]);
  __syncthreads();
  gradient_on_chip<kSwish>(a, t, at, of, Held<T, P>{at, held_x, held_dy});
}

/// The gradients of what a resampled norm makes and of what it passes on.
template <class T>
struct ResampledGrads {
  const T *dy, *dinput;
  float factor;  // of dinput
  ImageResampling back;
};

/// The same for a resampled norm. What comes by way of its resampled input is in dx before the rest, which
/// finds it there as an addend.
template <class T, int P, bool kSwish>
__global__ void __launch_bounds__(NormTiling::kMaxThreads, kSwish ? 3 : 2)
    group_norm_resample_grad_kernel(GradArgs<T> a, const ResampledGrads<T> from, NormTiling t) {
  using Packs = NormPack<T, P>;
  const NormPlace<P> at(t);
  Packs* const held_x = dynamic_shared<Packs>();
  Packs* const held_dy = reinterpret_cast<Packs*>(dynamic_shared<char>() + t.held_bytes(sizeof(T)));
  Channels of(t, 2 * t.held_bytes(sizeof(T)));
  of.load(a, t, at.sample, at.begin, at.width);
  hold(at, at.in(t, a.x), t.c, held_x);
  const std::int64_t begin = at.sample * from.back.h * from.back.w * t.c + at.begin + at.channel;
  const auto pixel_of = [&](const T* grads) {
    return [first = grads + begin, ld = t.c](int pixel) {
      return read_pack<P>(first + std::int64_t{pixel} * ld);
    };
  };
  T* const dx = at.in(t, a.first.dx);
#pragma unroll 1
  for (int row = at.line; row < at.rows; row += at.lines) {
    float v[P];
    from.back.template resample<T>(row, v, pixel_of(from.dy));
    held_dy[at.slot(row)] = pack_of<T>(v);
    from.back.template resample<T>(row, v, pixel_of(from.dinput));
    for (int j = 0; j < P; ++j) v[j] *= from.factor;
    write_pack(dx + std::int64_t{row} * t.c, v);
  }
  __syncthreads();
  gradient_on_chip<kSwish>(a, t, at, of, Held<T, P>{at, held_x, held_dy});
}

/// Sums over the pixels of samples in chunks; the last block of a slice combines its chunks.
template <class T, int P, bool kSwish>
__global__ void __launch_bounds__(NormTiling::kMaxThreads, 2)
    group_norm_grad_sums_kernel(GradArgs<T> a, NormTiling t) {
  const NormPlace<P> at(t);
  Channels of(t, 0);
  of.load(a, t, at.sample, at.begin, at.width);
  __syncthreads();
  sum_pixels<kSwish>(a, at, of, Streamed<T, P>(a, t, at));
  const std::int64_t all = t.n * t.chunks * t.c, row = (at.sample * t.chunks + at.chunk) * t.c + at.begin;
  each_channel(at.width, [&](int channel) {
    for (int i = 0; i < kSums; ++i) a.chunk_sums[i * all + row + channel] = of.sum(i)[channel];
  });
  finish_last(a.counters, t.n * t.slices, at.sample * t.slices + at.slice, static_cast<unsigned>(t.chunks),
              [&](std::int64_t id) {
                const std::int64_t sample = id / t.slices;
                const int begin = static_cast<int>(id % t.slices) * t.channels,
                          width = min(t.channels, t.c - begin);
                of.load(a, t, sample, begin, width);
                for (int i = 0; i < kSums; ++i) {
                  const float* const sums = a.chunk_sums + i * all + sample * t.chunks * t.c + begin;
                  float* const totals = of.sum(i);
                  sum_partials(
                      t.chunks, width, of.buffer(),
                      [=](std::int64_t chunk, int channel) { return sums[chunk * t.c + channel]; },
                      [=](int channel, float total) { totals[channel] = total; });
                }
                __syncthreads();
                each_channel(width, [&](int channel) {
                  of.solve(a, t, sample, begin, channel);
                  a.slope[sample * t.c + begin + channel] = of.slope()[channel];
                  a.origin[sample * t.c + begin + channel] = of.origin()[channel];
                });
                __syncthreads();
              });
}

/// Samples in chunks, once their sums are known.
template <class T, int P, bool kSwish>
__global__ void __launch_bounds__(NormTiling::kMaxThreads, 2)
    group_norm_grad_apply_kernel(GradArgs<T> a, NormTiling t) {
  const NormPlace<P> at(t);
  Channels of(t, 0);
  of.load(a, t, at.sample, at.begin, at.width);
  each_channel(at.width, [&](int channel) {  // by the thread that loaded it
    of.slope()[channel] = a.slope[at.sample * t.c + at.begin + channel];
    of.origin()[channel] = a.origin[at.sample * t.c + at.begin + channel];
  });
  __syncthreads();
  write_gradient<kSwish>(a, t, at, of, a.chunk_addends + (at.sample * t.chunks + at.chunk) * t.c + at.begin,
                         Streamed<T, P>(a, t, at));
  if (!a.wants_totals()) return;
  const float* const added = a.first.count + a.second.count > 0 ? a.chunk_addends : nullptr;
  finish_last(a.counters, t.slices, at.slice, static_cast<unsigned>(t.n * t.chunks),
              [&](std::int64_t slice) { write_totals(a, t, static_cast<int>(slice), added, of); });
}

template <class T, int P>
NormTiling tiling_of(const GroupNormGrad& op, CudaContext& device) {
  return norm_tiling(op.n, op.hw, op.c, op.c2, op.groups, 2, sizeof(T), P, device.part<OnChipMemory>());
}

/// Launches what makes all of a norm's gradients. `from`: where a dy comes from that is not there; then
/// blocks can hold their share.
template <class T, int P, bool kSwish>
void backward(Context& context, const GroupNormGrad& op, const GroupNormResampleGrad* from = nullptr) {
  CudaContext& device = cuda(context);
  const NormTiling t = tiling_of<T, P>(op, device);
  const std::int64_t of_samples = op.n * op.c, of_chunks = t.on_chip() ? 0 : of_samples * t.chunks;
  // sample_sums; then of samples in chunks: chunk_sums, chunk_addends, slope, origin.
  const std::int64_t floats = kSums * of_samples + (kSums + 1) * of_chunks + (of_chunks ? 2 * of_samples : 0);
  const Scratch scratch(context, static_cast<std::size_t>(floats) * sizeof(float));
  float* const sample_sums = scratch.as<float>();
  float* const chunk_sums = sample_sums + kSums * of_samples;
  float* const chunk_addends = chunk_sums + kSums * of_chunks;
  const NormDropout dropout(op.dropout);
  const GradArgs<T> args{op.x.as<T>(),
                         op.x2.as<T>(),
                         op.dy.as<T>(),
                         op.shift.as<float>(),
                         op.gamma.as<float>(),
                         op.beta.as<float>(),
                         op.mean.as<float>(),
                         op.rstd.as<float>(),
                         {op.dx, op.addends, op.dx_sums},
                         {op.dx2, op.addends2, op.dx2_sums},
                         op.dshift.as<float>(),
                         op.dgamma.as<float>(),
                         op.dbeta.as<float>(),
                         op.shift_ld,
                         static_cast<float>(op.dy_scale) * dropout.factor,
                         op.activation,
                         dropout,
                         sample_sums,
                         chunk_sums,
                         chunk_addends,
                         chunk_addends + of_chunks,
                         chunk_addends + of_chunks + of_samples,
                         device.part<Arrivals>().counters()};

  const auto threads = static_cast<unsigned>(t.threads);
  const auto element = static_cast<std::int64_t>(sizeof(T));
  const std::int64_t pixels = op.n * op.hw, reads = 2 * pixels * op.c * element,
                     writes = pixels * element *
                              (op.c + args.first.count * (op.c - op.c2) + args.second.count * op.c2),
                     vectors = bytes_of(op.shift, of_samples) + bytes_of(op.dshift, of_samples) +
                               bytes_of(op.gamma, 2 * op.c) + bytes_of(op.mean, 2 * op.n * op.groups),
                     totals = bytes_of(op.dgamma, op.c) + bytes_of(op.dbeta, op.c) +
                              bytes_of(op.dx_sums, op.c - op.c2) + bytes_of(op.dx2_sums, op.c2);
  const std::size_t held = t.shared_bytes(2, sizeof(T), Channels::kArrays, P);
  if (from) {
    const ResampledGrads<T> grads{from->dy.as<T>(), from->dinput.as<T>(),
                                  static_cast<float>(from->dinput_scale), ImageResampling(from->back)};
    return launch(device, {"group_norm_resample_grad", t.blocks(), threads, from->cost().bytes, held},
                  group_norm_resample_grad_kernel<T, P, kSwish>, args, grads, t);
  }
  if (t.on_chip())
    return launch(device, {"group_norm_grad", t.blocks(), threads, op.cost().bytes, held},
                  group_norm_grad_on_chip_kernel<T, P, kSwish>, args, t);
  const std::size_t shared = t.shared_bytes(0, 0, Channels::kArrays, P);
  launch(device, {"group_norm_grad_sums", t.blocks(), threads, reads + vectors, shared},
         group_norm_grad_sums_kernel<T, P, kSwish>, args, t);
  launch(device, {"group_norm_grad_apply", t.blocks(), threads, reads + writes + totals, shared},
         group_norm_grad_apply_kernel<T, P, kSwish>, args, t);
}

}  // namespace

void GroupNormGrad::cuda(Context& context) const {
  if (n == 0 || hw == 0) {  // sums of nothing
    const auto zero = [&](const Buffer& sums, std::int64_t count) {
      if (sums) Fill{sums, count, 0.0}.cuda(context);
    };
    for (const Buffer& sums : {dgamma, dbeta}) zero(sums, c);
    zero(dx_sums, c - c2), zero(dx2_sums, c2);
    return;
  }
  const auto packed = [this]<class T>(T) {
    bool result = packs<T>({x.data, x2.data, dy.data, dx.data, dx2.data}, c) && packs<T>({}, c2);
    for (int k = 0; k < kMaxAddends; ++k) result &= packs<T>({addends[k].x.data, addends2[k].x.data}, 0);
    return result;
  };
  dispatch_norm(x.dtype, activation, packed,
                [&]<class T, int P, bool kSwish>() { backward<T, P, kSwish>(context, *this); });
}

void GroupNormResampleGrad::cuda(Context& context) const {
  check(!norm.x2 && norm.dropout.rate == 0.0, "group_norm: what is resampled has one input and no dropout");
  if (norm.n == 0 || norm.hw == 0) return norm.cuda(context);
  const auto packed = [this]<class T>(T) {
    bool result = packs<T>({norm.x.data, norm.dx.data, dy.data, dinput.data}, norm.c);
    for (const Addend& addend : norm.addends) result &= packs<T>({addend.x.data}, 0);
    return result;
  };
  dispatch_norm(norm.x.dtype, norm.activation, packed, [&]<class T, int P, bool kSwish>() {
    if (tiling_of<T, P>(norm, sgm::cuda(context)).on_chip())
      return backward<T, P, kSwish>(context, norm.with({norm.dx, 1.0}), this);
    resample_grad_in_steps(*this, context, [&](const auto& op) { op.cuda(context); });
  });
}

}  // namespace sgm
