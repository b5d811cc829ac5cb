#include "kernels/group_norm_tile.h"

#include "backend/scratch.h"

namespace sgm {
namespace {

template <class T>
struct ForwardArgs {
  const T *x, *x2;
  const float *shift, *gamma, *beta;
  T *y, *joined;
  float *mean, *rstd;
  std::int64_t shift_ld;
  float eps;
  Activation activation;
  NormDropout dropout;
  float *chunk_sums, *chunk_squares;  // [n, chunks, c]: of samples in chunks
  unsigned* counters;

  __device__ const float* shift_of(std::int64_t sample, int channel) const {
    return shift ? shift + sample * shift_ld + channel : nullptr;
  }
};

/// y = dropout(activation(scale x + offset)) for the thread's pixels; pack(row) are its channels of one,
/// asked for kInFlight at a time.
template <bool kSwish, int kInFlight, int P, class T, class Packs>
__device__ inline void write_normalised(const ForwardArgs<T>& a, const NormTiling& t, const NormPlace<P>& at,
                                        const float (&scale)[P], const float (&offset)[P], Packs&& pack) {
  const NormActivation<T, kSwish> activation{a.activation};
  const NormDropout dropout = a.dropout.resolved();
  T* const y = at.in(t, a.y);
  T* const joined = a.joined ? at.in(t, a.joined) : nullptr;
#pragma unroll 1
  for (int first = at.line; first < at.rows; first += kInFlight * at.lines) {
    NormPack<T, P> packs[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i)
      if (first + i * at.lines < at.rows) packs[i] = pack(first + i * at.lines);
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int row = first + i * at.lines;
      if (row >= at.rows) continue;
      if (joined) copy_pack<P>(joined + std::int64_t{row} * t.c, packs[i]);
      float v[P];
      unpack<P, T>(packs[i], v);
      for (int j = 0; j < P; ++j) v[j] = activation.value(fmaf(scale[j], v[j], offset[j]));
      if (dropout.on) {
        const auto e = static_cast<std::uint32_t>((at.first_row + row) * t.c + at.begin + at.channel);
        const unsigned kept = dropout.kept<P>(at.sample, e);
        for (int j = 0; j < P; ++j) v[j] = kept >> j & 1u ? dropout.factor * v[j] : 0.0f;
      }
      write_pack(y + std::int64_t{row} * t.c, v);
    }
  }
}

/// Arrays over a block's channels, in its shared memory behind what it holds.
struct Channels {
  static constexpr int kArrays = 4;
  float *shift, *gamma, *beta;  // later: shift - mean, scale, offset
  float *totals, *buffer;

  __device__ Channels(const NormTiling& t, std::size_t held_bytes)
      : shift(reinterpret_cast<float*>(dynamic_shared<char>() + held_bytes)),
        gamma(shift + t.channels),
        beta(gamma + t.channels),
        totals(beta + t.channels),
        buffer(totals + t.channels) {}
  template <class T>
  __device__ void load(const ForwardArgs<T>& a, std::int64_t sample, int begin, int width) {
    const float* const from = a.shift_of(sample, begin);
    each_channel(width, [&](int channel) {
      shift[channel] = from ? from[channel] : 0.0f;
      gamma[channel] = a.gamma[begin + channel];
      beta[channel] = a.beta[begin + channel];
    });
  }
  /// gamma, beta = scale, offset; shift must hold shift - mean.
  __device__ void make_affine(int channel, float rstd) {
    gamma[channel] *= rstd;
    beta[channel] = fmaf(shift[channel], gamma[channel], beta[channel]);
  }
};

/// Sums of f(x) over the block's pixels for each of the thread's channels.
template <int P, class T, class F>
__device__ inline void sum_held(const NormPlace<P>& at, const NormPack<T, P>* held, float (&sums)[P], F&& f) {
  for (int j = 0; j < P; ++j) sums[j] = 0.0f;
#pragma unroll 2
  for (int row = at.line; row < at.rows; row += at.lines) {
    float v[P];
    unpack<P, T>(held[at.slot(row)], v);
    for (int j = 0; j < P; ++j) f(sums[j], v[j], j);
  }
}

/// Takes the block's share of a sample into its memory, and finds scale and offset of the thread's channels.
template <class T, int P>
__device__ inline void hold_and_measure(const ForwardArgs<T>& a, const NormTiling& t, const NormPlace<P>& at,
                                        NormPack<T, P>* held, float (&scale)[P], float (&offset)[P]) {
  Channels of(t, t.held_bytes(sizeof(T)));
  of.load(a, at.sample, at.begin, at.width);
  int ld;
  const T* x = at.in(t, a.x, a.x2, ld);
  hold(at, x, ld, held);

  const float pixels = static_cast<float>(t.hw), count = pixels * static_cast<float>(t.per_group);
  const std::int64_t statistics = at.sample * t.groups + at.begin / t.per_group;
  float sums[P];
  sum_held<P, T>(at, held, sums, [](float& sum, float x_value, int) { sum += x_value; });
  sum_lines(sums, at.columns, of.buffer,
            [&](int channel, float total) { of.totals[channel] = fmaf(pixels, of.shift[channel], total); });
  __syncthreads();
  each_channel(at.width, [&](int channel) {
    const float mean = sum_of_group(of.totals, channel, t.per_group) / count;
    of.shift[channel] -= mean;
    if (channel % t.per_group == 0) a.mean[statistics + channel / t.per_group] = mean;
  });
  __syncthreads();
  at.take(of.shift, offset);
  sum_held<P, T>(at, held, sums, [&](float& sum, float x_value, int j) {
    const float centred = x_value + offset[j];
    sum = fmaf(centred, centred, sum);
  });
  sum_lines(sums, at.columns, of.buffer, [&](int channel, float total) { of.totals[channel] = total; });
  __syncthreads();
  each_channel(at.width, [&](int channel) {
    const float rstd = 1.0f / sqrtf(sum_of_group(of.totals, channel, t.per_group) / count + a.eps);
    of.make_affine(channel, rstd);
    if (channel % t.per_group == 0) a.rstd[statistics + channel / t.per_group] = rstd;
  });
  __syncthreads();
  at.take(of.gamma, scale);
  at.take(of.beta, offset);
}

/// A block holds its share of a sample, so that it is read once.
template <class T, int P, bool kSwish>
__global__ void __launch_bounds__(NormTiling::kMaxThreads, 4)
    group_norm_on_chip_kernel(ForwardArgs<T> a, NormTiling t) {
  const NormPlace<P> at(t);
  NormPack<T, P>* const held = dynamic_shared<NormPack<T, P>>();
  float scale[P], offset[P];
  hold_and_measure(a, t, at, held, scale, offset);
  write_normalised<kSwish, 1>(a, t, at, scale, offset, [&](int row) { return held[at.slot(row)]; });
}

/// Writes the thread's share of what becomes of `held`, which all threads read: y is that of the sample.
template <int P, class T>
__device__ inline void resample_held(const NormPlace<P>& at, const ImageResampling& r,
                                     const NormPack<T, P>* held, T* y, int ld) {
  const int line = static_cast<int>(threadIdx.x) / at.columns;
  if (line >= at.lines) return;
  for (int o = line; o < r.oh * r.ow; o += at.lines) {
    float sum[P];
    r.resample<T>(o, sum, [&](int pixel) { return held[at.slot(pixel)]; });
    write_pack(y + std::int64_t{o} * ld, sum);
  }
}

/// The same with resampling: first of x, then of what the norm makes of it in the same place.
template <class T, int P, bool kSwish>
__global__ void __launch_bounds__(NormTiling::kMaxThreads, 3)
    group_norm_resample_kernel(ForwardArgs<T> a, T* input, const ImageResampling r, NormTiling t) {
  const NormPlace<P> at(t);
  NormPack<T, P>* const held = dynamic_shared<NormPack<T, P>>();
  float scale[P], offset[P];
  hold_and_measure(a, t, at, held, scale, offset);
  const std::int64_t begin = at.sample * r.oh * r.ow * t.c + at.begin + at.channel;
  resample_held<P>(at, r, held, input + begin, t.c);
  __syncthreads();
  const NormActivation<T, kSwish> activation{a.activation};
#pragma unroll 1
  for (int row = at.line; row < at.rows; row += at.lines) {
    float v[P];
    unpack<P, T>(held[at.slot(row)], v);
    for (int j = 0; j < P; ++j) v[j] = activation.value(fmaf(scale[j], v[j], offset[j]));
    held[at.slot(row)] = pack_of<T>(v);
  }
  __syncthreads();
  resample_held<P>(at, r, held, a.y + begin, t.c);
}

/// Mean and rstd of a slice's groups from the sums of its chunks.
template <class T>
__device__ inline void combine_chunks(const ForwardArgs<T>& a, const NormTiling& t, std::int64_t sample,
                                      int slice, Channels& of) {
  const int begin = slice * t.channels, width = min(t.channels, t.c - begin);
  const std::int64_t first = sample * t.chunks * t.c + begin,
                     statistics = sample * t.groups + begin / t.per_group;
  const float pixels = static_cast<float>(t.hw), count = pixels * static_cast<float>(t.per_group);
  of.load(a, sample, begin, width);
  sum_partials(
      t.chunks, width, of.buffer,
      [&](std::int64_t chunk, int channel) { return a.chunk_sums[first + chunk * t.c + channel]; },
      [&](int channel, float total) { of.totals[channel] = fmaf(pixels, of.shift[channel], total); });
  __syncthreads();
  each_channel(width, [&](int channel) {
    const float mean = sum_of_group(of.totals, channel, t.per_group) / count;
    of.shift[channel] -= mean;
    if (channel % t.per_group == 0) a.mean[statistics + channel / t.per_group] = mean;
  });
  __syncthreads();
  // Squares about the mean of a chunk's channel, moved to the group's.
  sum_partials(
      t.chunks, width, of.buffer,
      [&](std::int64_t chunk, int channel) {
        const std::int64_t i = first + chunk * t.c + channel;
        const float rows = static_cast<float>(min(t.rows, t.hw - static_cast<int>(chunk) * t.rows)),
                    distance = a.chunk_sums[i] / rows + of.shift[channel];
        return fmaf(rows * distance, distance, a.chunk_squares[i]);
      },
      [&](int channel, float total) { of.totals[channel] = total; });
  __syncthreads();
  each_channel(width, [&](int channel) {
    if (channel % t.per_group == 0)
      a.rstd[statistics + channel / t.per_group] =
          1.0f / sqrtf(sum_of_group(of.totals, channel, t.per_group) / count + a.eps);
  });
  __syncthreads();
}

/// Statistics of samples in chunks: sums and centred squares of every chunk; the last block of a slice
/// combines them.
template <class T, int P>
__global__ void __launch_bounds__(NormTiling::kMaxThreads, 4)
    group_norm_statistics_kernel(ForwardArgs<T> a, NormTiling t) {
  const NormPlace<P> at(t);
  NormPack<T, P>* const held = dynamic_shared<NormPack<T, P>>();
  Channels of(t, t.held_bytes(sizeof(T)));
  const std::int64_t partial = (at.sample * t.chunks + at.chunk) * t.c + at.begin;
  int ld;
  const T* x = at.in(t, a.x, a.x2, ld);
  hold(at, x, ld, held);

  float sums[P], mean[P];
  sum_held<P, T>(at, held, sums, [](float& sum, float x_value, int) { sum += x_value; });
  sum_lines(sums, at.columns, of.buffer, [&](int channel, float total) {
    of.totals[channel] = total / static_cast<float>(at.rows);
    a.chunk_sums[partial + channel] = total;
  });
  __syncthreads();
  at.take(of.totals, mean);
  sum_held<P, T>(at, held, sums, [&](float& sum, float x_value, int j) {
    const float centred = x_value - mean[j];
    sum = fmaf(centred, centred, sum);
  });
  sum_lines(sums, at.columns, of.buffer,
            [&](int channel, float total) { a.chunk_squares[partial + channel] = total; });
  finish_last(
      a.counters, t.n * t.slices, at.sample * t.slices + at.slice, static_cast<unsigned>(t.chunks),
      [&](std::int64_t id) { combine_chunks(a, t, id / t.slices, static_cast<int>(id % t.slices), of); });
}

/// Samples in chunks, once their statistics are known.
template <class T, int P, bool kSwish>
__global__ void __launch_bounds__(NormTiling::kMaxThreads, 3)
    group_norm_apply_kernel(ForwardArgs<T> a, NormTiling t) {
  const NormPlace<P> at(t);
  Channels of(t, 0);
  of.load(a, at.sample, at.begin, at.width);
  const std::int64_t statistics = at.sample * t.groups + at.begin / t.per_group;
  each_channel(at.width, [&](int channel) {  // by the thread that loaded it
    of.shift[channel] -= a.mean[statistics + channel / t.per_group];
    of.make_affine(channel, a.rstd[statistics + channel / t.per_group]);
  });
  __syncthreads();
  float scale[P], offset[P];
  at.take(of.gamma, scale);
  at.take(of.beta, offset);
  int ld;
  const T* x = at.in(t, a.x, a.x2, ld);
  write_normalised<kSwish, 4>(a, t, at, scale, offset,
                              [&](int row) { return read_pack<P>(x + std::int64_t{row} * ld); });
}

template <class T>
ForwardArgs<T> args_of(const GroupNorm& op, float* chunks, std::size_t partials, unsigned* counters) {
  return {op.x.as<T>(),
          op.x2.as<T>(),
          op.shift.as<float>(),
          op.gamma.as<float>(),
          op.beta.as<float>(),
          op.y.as<T>(),
          op.joined.as<T>(),
          op.mean.as<float>(),
          op.rstd.as<float>(),
          op.shift_ld,
          static_cast<float>(op.eps),
          op.activation,
          NormDropout(op.dropout),
          chunks,
          chunks + partials,
          counters};
}

template <class T, int P>
NormTiling tiling_of(const GroupNorm& op, CudaContext& device) {
  return norm_tiling(op.n, op.hw, op.c, op.c2, op.groups, 1, sizeof(T), P, device.part<OnChipMemory>());
}

template <class T, int P, bool kSwish>
void forward(Context& context, const GroupNorm& op) {
  CudaContext& device = cuda(context);
  const NormTiling t = tiling_of<T, P>(op, device);
  const std::size_t partials = t.on_chip() ? 0 : static_cast<std::size_t>(op.n * t.chunks * op.c);
  const Scratch chunks(context, 2 * partials * sizeof(float));
  const auto args = args_of<T>(op, chunks.as<float>(), partials,
                               t.on_chip() ? nullptr : device.part<Arrivals>().counters());
  const auto threads = static_cast<unsigned>(t.threads);
  const std::int64_t tensor = t.elements() * static_cast<std::int64_t>(sizeof(T)),
                     outputs = op.joined ? 2 * tensor : tensor,
                     vectors = bytes_of(op.shift, op.n * op.c) + bytes_of(op.gamma, 2 * op.c),
                     statistics = bytes_of(op.mean, 2 * op.n * op.groups);
  const std::size_t shared = t.shared_bytes(1, sizeof(T), Channels::kArrays, P);
  if (t.on_chip())
    return launch(device, {"group_norm", t.blocks(), threads, op.cost().bytes, shared},
                  group_norm_on_chip_kernel<T, P, kSwish>, args, t);
  launch(device, {"group_norm_statistics", t.blocks(), threads, tensor + statistics, shared},
         group_norm_statistics_kernel<T, P>, args, t);
  launch(device,
         {"group_norm_apply", t.blocks(), threads, tensor + outputs + vectors + statistics,
          t.shared_bytes(0, 0, Channels::kArrays, 0)},
         group_norm_apply_kernel<T, P, kSwish>, args, t);
}

/// Whether blocks can hold what they resample; then it has been launched.
template <class T, int P, bool kSwish>
bool resample_on_chip(Context& context, const GroupNormResample& op) {
  const GroupNorm& norm = op.norm;
  CudaContext& device = cuda(context);
  const NormTiling t = tiling_of<T, P>(norm, device);
  if (!t.on_chip()) return false;
  ForwardArgs<T> args = args_of<T>(norm, nullptr, 0, nullptr);
  args.y = op.y.as<T>();
  launch(device,
         {"group_norm_resample", t.blocks(), static_cast<unsigned>(t.threads), op.cost().bytes,
          t.shared_bytes(1, sizeof(T), Channels::kArrays, P)},
         group_norm_resample_kernel<T, P, kSwish>, args, op.input.as<T>(), ImageResampling(op.resample), t);
  return true;
}

void resample_in_steps(Context& context, const GroupNormResample& op) {
  const DType type = op.norm.x.dtype;
  const Scratch normalised(context,
                           static_cast<std::size_t>(op.norm.n * op.norm.hw * op.norm.c) * size_of(type));
  GroupNorm norm = op.norm;
  norm.y = {normalised.data(), type};
  norm.cuda(context);
  UpFirDn resample = op.resample;
  resample.x = norm.y, resample.y = op.y;
  resample.cuda(context);
  resample.x = norm.x, resample.y = op.input;
  resample.cuda(context);
}

}  // namespace

void GroupNormResample::cuda(Context& context) const {
  check(!norm.x2 && norm.dropout.rate == 0.0, "group_norm: what is resampled has one input and no dropout");
  if (norm.n == 0 || norm.hw == 0) return;
  const auto packed = [this]<class T>(T) { return packs<T>({norm.x.data, y.data, input.data}, norm.c); };
  dispatch_norm(norm.x.dtype, norm.activation, packed, [&]<class T, int P, bool kSwish>() {
    if (!resample_on_chip<T, P, kSwish>(context, *this)) resample_in_steps(context, *this);
  });
}

void GroupNorm::cuda(Context& context) const {
  if (n == 0 || hw == 0) return;
  const auto packed = [this]<class T>(T) {
    return packs<T>({x.data, x2.data, y.data, joined.data}, c) && packs<T>({}, c2);
  };
  dispatch_norm(x.dtype, activation, packed,
                [&]<class T, int P, bool kSwish>() { forward<T, P, kSwish>(context, *this); });
}

}  // namespace sgm
