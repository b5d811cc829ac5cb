#pragma once
// What the kernels of the group normalisation share: how blocks lie over a batch, sums over pixels, dropout,
// activations. For kernel sources only.

#include "kernels/last_block.h"

#include <numeric>

#include "backend/cuda/arrivals.h"
#include "kernels/group_norm.h"

namespace sgm {

/// Shared memory that a block may hold its share of a sample in: half of a multiprocessor's, but at least
/// what every GPU from compute capability 8.0 allows. Get it as device.part<OnChipMemory>().
struct OnChipMemory {
  std::size_t bytes = 99 * 1024;

  explicit OnChipMemory(CudaContext& device) {
    constexpr std::size_t kHalfOfHopper = 113 * 1024;
    if (!device.stream()) {  // a dry run
      bytes = kHalfOfHopper;
      return;
    }
    cudaDeviceProp properties{};  // of the first device: a context's, or its like
    cuda_check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    const std::size_t half = properties.sharedMemPerMultiprocessor / 2;
    if (half > properties.reservedSharedMemPerBlock)
      bytes = std::max(
          bytes, std::min(half - properties.reservedSharedMemPerBlock, properties.sharedMemPerBlockOptin));
  }
};

/// Where blocks lie over [n, hw, c]: each on `rows` pixels of `channels` channels of one sample, whole
/// groups; the last ones may get less. Blocks beside each other read neighbouring channels.
struct NormTiling {
  static constexpr int kMaxThreads = 256;

  std::int64_t n;
  int hw, c, c1;  // c1: channels of the first input
  int groups, per_group;
  int channels, slices, rows, chunks;
  int threads;

  bool on_chip() const { return chunks == 1; }
  unsigned blocks() const { return static_cast<unsigned>(n * slices * chunks); }
  std::int64_t elements() const { return n * hw * c; }
  /// Memory for a block's share of a tensor; constexpr, so that kernels may call it.
  constexpr std::size_t held_bytes(std::size_t element) const {
    return (static_cast<std::size_t>(rows) * channels * element + 15) / 16 * 16;
  }
  /// Shared memory of a block: its share of `held` tensors, `totals` floats per channel, and the buffer of
  /// sum_lines() for p channels per thread.
  std::size_t shared_bytes(int held, std::size_t element, int totals, int p) const {
    return held * held_bytes(element) +
           sizeof(float) * (static_cast<std::size_t>(totals) * channels + p * (threads + 1));
  }
};

/// A tiling for threads that own p channels: whole samples per block where `held` tensors' share of them fits
/// the memory, else chunks of 32 KB.
inline NormTiling norm_tiling(std::int64_t n, std::int64_t hw, std::int64_t c, std::int64_t c2,
                              std::int64_t groups, int held, std::size_t element, int p,
                              const OnChipMemory& memory) {
  constexpr int kSector = 32, kChunk = 32 * 1024, kEnough = 16 * 1024;  // bytes
  constexpr std::int64_t kBusy = 264;                                   // blocks that occupy a large GPU
  constexpr int kArrays = 8;                                            // floats per channel, in any kernel
  constexpr int kMostChannels = 1024;                                   // of a block
  check(hw * c < (std::int64_t{1} << 31), "group_norm: a sample of ", hw * c,
        " elements is too large for a GPU; at most 2^31 - 1");
  const auto per_group = static_cast<int>(c / groups), count = static_cast<int>(groups);
  // Whole groups, whole packs and whole sectors of memory; then more of them while there are blocks enough.
  const int unit = std::lcm(per_group, p) / per_group;
  int held_groups = unit;
  const auto row_bytes = [&] { return held_groups * per_group * static_cast<int>(element); };
  const auto widen = [&](int factor) { held_groups = std::min(held_groups * factor, count); };
  while (row_bytes() < kSector && held_groups < count) widen(2);
  NormTiling t{};
  t.n = n, t.hw = static_cast<int>(hw), t.c = static_cast<int>(c), t.c1 = static_cast<int>(c - c2);
  t.groups = count, t.per_group = per_group;
  t.rows = t.hw, t.chunks = 1;
  const auto lay = [&] {
    t.channels = std::min(held_groups, count) * per_group;
    t.slices = (count + held_groups - 1) / held_groups;
    const std::int64_t packs = std::int64_t{t.rows} * t.channels / p;
    t.threads = packs >= 1024 ? 256 : 128;
    while (t.threads < t.channels / p && t.threads < NormTiling::kMaxThreads) t.threads *= 2;
  };
  lay();
  if (t.shared_bytes(held, element, kArrays, p) <= memory.bytes) {
    while (held_groups < count && hw * row_bytes() < kEnough && 2 * t.channels <= kMostChannels / 2 &&
           n * (t.slices / 2) >= kBusy)
      widen(2), lay();
  } else {
    while (row_bytes() < 2 * kSector && held_groups < count) widen(2);
    t.rows = std::max(1, kChunk / row_bytes());
    t.chunks = static_cast<int>((hw + t.rows - 1) / t.rows);
    lay();
  }
  check(t.channels / p <= t.threads && t.channels <= kMostChannels, "group_norm: groups of ", per_group,
        " channels are too large for a GPU; use more groups, or --device cpu");
  return t;
}

/// What one thread holds of P neighbouring channels of a pixel.
template <class T, int P>
using NormPack = std::conditional_t<P == 1, T, Pack<T>>;

template <int P, class T>
__device__ inline NormPack<T, P> read_pack(const T* p) {
  if constexpr (P == 1)
    return *p;
  else
    return load16(p);
}
template <int P, class T>
__device__ inline void unpack(const NormPack<T, P>& pack, float (&v)[P]) {
  if constexpr (P == 1)
    v[0] = static_cast<float>(pack);
  else
    for (int j = 0; j < P; ++j) v[j] = static_cast<float>(pack.at[j]);
}
template <class T, int P>
__device__ inline NormPack<T, P> pack_of(const float (&v)[P]) {
  if constexpr (P == 1) {
    return rounded_to<T>(v[0]);
  } else {
    Pack<T> pack;
    for (int j = 0; j < P; ++j) pack.at[j] = rounded_to<T>(v[j]);
    return pack;
  }
}
template <int P, class T>
__device__ inline void copy_pack(T* p, const NormPack<T, P>& pack) {
  if constexpr (P == 1)
    *p = pack;
  else
    store16(p, pack);
}
template <int P, class T>
__device__ inline void write_pack(T* p, const float (&v)[P]) {
  copy_pack<P>(p, pack_of<T>(v));
}

/// The calling thread's place: P channels, and every `lines`-th pixel of the block's.
template <int P>
struct NormPlace {
  std::int64_t sample;
  int slice, chunk;
  int begin, width;      // the block's channels
  int first_row, rows;   // and pixels
  int channel, columns;  // the thread's first channel counted from `begin`; threads side by side
  int line, lines;       // the first of its pixels counted from first_row; `rows` for a thread left over

  __device__ explicit NormPlace(const NormTiling& t) {
    const int block = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
    slice = block % t.slices;
    chunk = block / t.slices % t.chunks;
    sample = block / t.slices / t.chunks;
    begin = slice * t.channels, width = min(t.channels, t.c - begin);
    first_row = chunk * t.rows, rows = min(t.rows, t.hw - first_row);
    columns = width / P, lines = static_cast<int>(blockDim.x) / columns;
    channel = thread % columns * P;
    line = thread / columns < lines ? thread / columns : rows;
  }

  /// The thread's channels in the block's first pixel of a tensor [n, hw, c].
  template <class T>
  __device__ T* in(const NormTiling& t, T* tensor) const {
    return tensor + (sample * t.hw + first_row) * t.c + begin + channel;
  }
  /// The same of a tensor whose last channels are in `second`; ld: channels of the one that has them.
  template <class T>
  __device__ T* in(const NormTiling& t, T* first, T* second, int& ld) const {
    const int at = begin + channel;
    ld = at < t.c1 ? t.c1 : t.c - t.c1;
    return (at < t.c1 ? first + at : second + (at - t.c1)) + (sample * t.hw + first_row) * ld;
  }
  /// v[j] = of_channel[the thread's channel + j], of an array over the block's channels.
  __device__ void take(const float* of_channel, float (&v)[P]) const {
    for (int j = 0; j < P; ++j) v[j] = of_channel[channel + j];
  }
  /// Where the thread keeps its channels of pixel `row` in the block's memory.
  __device__ int slot(int row) const { return row * columns + channel / P; }
};

/// Copies the thread's share of a tensor to the block's memory; no other thread needs it.
template <int P, class T>
__device__ inline void hold(const NormPlace<P>& at, const T* x, int ld, NormPack<T, P>* held) {
  constexpr int kInFlight = 4;
#pragma unroll 1
  for (int first = at.line; first < at.rows; first += kInFlight * at.lines) {
    NormPack<T, P> packs[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int row = first + i * at.lines;
      if (row < at.rows) packs[i] = read_pack<P>(x + std::int64_t{row} * ld);
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int row = first + i * at.lines;
      if (row < at.rows) held[at.slot(row)] = packs[i];
    }
  }
}

/// Calls done(channel, total) once for each of columns * P channels, after adding up in a fixed order the
/// sums of the blockDim.x / columns threads that have it. buffer: P (blockDim.x + 1) floats. What `done`
/// writes is visible to others after the next barrier.
template <int P, class Done>
__device__ inline void sum_lines(const float (&sums)[P], int columns, float* buffer, Done&& done) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int pitch = threads + 1, lines = threads / columns, channels = columns * P;
  __syncthreads();
  for (int j = 0; j < P; ++j) buffer[j * pitch + thread] = sums[j];
  __syncthreads();
  int lanes = kWarp;  // neighbouring threads that share a channel
  while (lanes > 1 && lanes * channels > threads) lanes /= 2;
  const int lane = thread % lanes;
  for (int first = 0; first < channels; first += threads / lanes) {
    const int channel = first + thread / lanes;
    float sum = 0.0f;
    if (channel < channels)
      for (int line = lane; line < lines; line += lanes)
        sum += buffer[channel % P * pitch + channel / P + line * columns];
    for (int offset = lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0 && channel < channels) done(channel, sum);
  }
}

/// done(channel, sum of value(row, channel) over rows 0 .. rows - 1) once for each of `width` channels; as
/// above, with blockDim.x + 1 floats of buffer.
template <class Value, class Done>
__device__ inline void sum_partials(std::int64_t rows, int width, float* buffer, Value&& value, Done&& done) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int first = 0; first < width; first += threads) {
    const int columns = min(threads, width - first), lines = threads / columns;
    const int channel = first + thread % columns, line = thread / columns;
    float sum[1] = {};
    if (line < lines)
      for (std::int64_t row = line; row < rows; row += lines) sum[0] += value(row, channel);
    sum_lines(sum, columns, buffer, [&](int column, float total) { done(first + column, total); });
  }
}

/// body(channel) by one thread for each of the block's `width` channels.
template <class Body>
__device__ inline void each_channel(int width, Body&& body) {
  for (int channel = static_cast<int>(threadIdx.x); channel < width; channel += static_cast<int>(blockDim.x))
    body(channel);
}

/// Sum of the group that `channel` belongs to; both count from the block's first channel.
__device__ inline float sum_of_group(const float* of_channel, int channel, int per_group) {
  const float* const group = of_channel + channel / per_group * per_group;
  float sum = 0.0f;
  for (int i = 0; i < per_group; ++i) sum += group[i];
  return sum;
}

/// finish(id) by all threads of the block that is the last of `blocks` with that id, 0 .. ids - 1; what all
/// of them wrote before is then visible. Ids share counters where there are more of them.
template <class Finish>
__device__ inline void finish_last(unsigned* counters, std::int64_t ids, std::int64_t id, unsigned blocks,
                                   Finish&& finish) {
  const std::int64_t used = ids < Arrivals::kCount ? ids : Arrivals::kCount, counter = id % used;
  const unsigned sharing = static_cast<unsigned>((ids - counter + used - 1) / used);
  if (!is_last_block(counters + counter, blocks * sharing)) return;
  for (std::int64_t i = counter; i < ids; i += used) finish(i);
}

/// Resampling of an image that a block works on, as UpFirDn says.
struct ImageResampling {
  int h, w, oh, ow, up, down, pad0, num_taps;
  float row_taps[UpFirDn::kMaxTaps], col_taps[UpFirDn::kMaxTaps];

  explicit ImageResampling(const UpFirDn& op)
      : h(static_cast<int>(op.h)),
        w(static_cast<int>(op.w)),
        oh(static_cast<int>(op.oh)),
        ow(static_cast<int>(op.ow)),
        up(op.up),
        down(op.down),
        pad0(op.pad0),
        num_taps(op.num_taps) {
    for (int j = 0; j < num_taps; ++j) {
      row_taps[j] = static_cast<float>(op.scale * op.taps[j]);
      col_taps[j] = static_cast<float>(op.taps[j]);
    }
  }
  /// The first tap of a window from `position` of an axis with zeros inserted that reads a sample; each
  /// up-th after it reads the next.
  __device__ int first_tap(int position) const {
    const int past = position % up;
    return past > 0 ? up - past : -past;
  }
  /// sum = pixel o of the result; read(pixel): a pack of the image's, some asked for at a time.
  template <class T, int P, class Read>
  __device__ void resample(int o, float (&sum)[P], Read&& read) const {
    constexpr int kInFlight = 4;
    const int top = o / ow * down - pad0, left = o % ow * down - pad0;
    const int first_i = first_tap(top), first_j = first_tap(left), first_col = (left + first_j) / up;
    int row = (top + first_i) / up;
    for (int k = 0; k < P; ++k) sum[k] = 0.0f;
    for (int i = first_i; i < num_taps; i += up, ++row) {
      if (row < 0 || row >= h || row_taps[i] == 0.0f) continue;
      float row_sum[P] = {};
      for (int j = first_j, col = first_col; j < num_taps; j += kInFlight * up, col += kInFlight) {
        NormPack<T, P> packs[kInFlight] = {};
        const auto reads = [&](int q) {
          return j + q * up < num_taps && col + q >= 0 && col + q < w && col_taps[j + q * up] != 0.0f;
        };
#pragma unroll
        for (int q = 0; q < kInFlight; ++q)
          if (reads(q)) packs[q] = read(row * w + col + q);
#pragma unroll
        for (int q = 0; q < kInFlight; ++q) {
          if (!reads(q)) continue;
          float v[P];
          unpack<P, T>(packs[q], v);
          for (int k = 0; k < P; ++k) row_sum[k] = fmaf(col_taps[j + q * up], v[k], row_sum[k]);
        }
      }
      for (int k = 0; k < P; ++k) sum[k] = fmaf(row_taps[i], row_sum[k], sum[k]);
    }
  }
};

/// Which elements dropout keeps, and what it multiplies them by.
struct NormDropout {
  NoiseKey key;
  std::uint32_t threshold;
  float factor;  // 1 / (1 - rate)
  bool on;

  explicit NormDropout(const DropoutMask& mask)
      : key(mask.key),
        threshold(static_cast<std::uint32_t>(mask.rate * 4294967296.0)),
        factor(static_cast<float>(1.0 / (1.0 - mask.rate))),
        on(mask.rate != 0.0) {}

  /// The same with the step looked up, once for a kernel.
  __device__ NormDropout resolved() const {
    NormDropout result = *this;
    if (on && key.step_from) result.key.step += *key.step_from;
    result.key.step_from = nullptr;
    return result;
  }
  /// Bit j: whether element first + j of the sample is kept.
  template <int P>
  __device__ unsigned kept(std::int64_t sample, std::uint32_t first) const {
    unsigned bits = 0;
#pragma unroll 1
    for (int j = 0; j < P; j += 4) {
      const PhiloxWords words = philox(key, static_cast<std::uint32_t>(sample), first / 4 + j / 4);
      for (int i = 0; i < 4; ++i) bits |= (words.word[i] >= threshold ? 1u : 0u) << (j + i);
    }
    return P == 1 ? bits >> first % 4 & 1u : bits;
  }
};

/// The nonlinearity on values of storage type T. Swish, which networks use, is a constant to the compiler,
/// and approximated for bf16 far below that type's rounding; the others are chosen as the kernel runs.
template <class T, bool kSwish>
struct NormActivation {
  static constexpr bool kFast = std::is_same_v<T, bfloat16>;
  Activation kind;

  __device__ float value(float u) const {
    if constexpr (kSwish && kFast) return __fdividef(u, 1.0f + __expf(-u));
    if constexpr (kSwish) return activate<Activation::swish>(u);
    switch (kind) {
      case Activation::swish: return activate<Activation::swish>(u);
      case Activation::elu: return activate<Activation::elu>(u);
      case Activation::relu: return activate<Activation::relu>(u);
      case Activation::lrelu: return activate<Activation::lrelu>(u);
      default: return u;
    }
  }
  __device__ float slope(float u) const {
    if constexpr (kSwish && kFast) {
      const float s = __fdividef(1.0f, 1.0f + __expf(-u));
      return s * (1.0f + u * (1.0f - s));
    }
    if constexpr (kSwish) return activate_grad<Activation::swish>(u);
    switch (kind) {
      case Activation::swish: return activate_grad<Activation::swish>(u);
      case Activation::elu: return activate_grad<Activation::elu>(u);
      case Activation::relu: return activate_grad<Activation::relu>(u);
      case Activation::lrelu: return activate_grad<Activation::lrelu>(u);
      default: return 1.0f;
    }
  }
};

/// Calls body.operator()<T, P, kSwish>(): the element type, channels per thread, and whether the nonlinearity
/// is known. packed(T{}) tells whether 16-byte accesses are allowed.
template <class Packed, class Body>
void dispatch_norm(DType dtype, Activation activation, Packed&& packed, Body&& body) {
  dispatch_storage(dtype, "group_norm", [&]<class T>(T) {
    if (!packed(T{})) return body.template operator()<T, 1, false>();
    if (activation == Activation::swish) return body.template operator()<T, Pack<T>::kSize, true>();
    body.template operator()<T, Pack<T>::kSize, false>();
  });
}

}  // namespace sgm
