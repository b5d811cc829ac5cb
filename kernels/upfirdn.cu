// Resampling in one pass. Networks use five combinations of factors and taps; those have kernels in which a
// thread walks down a column of the image with the row sums of the last few rows in registers. Everything
// else goes through a plain sum over all taps.

#include "kernels/upfirdn.h"

#include <bit>

#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;
constexpr int kStrip = 4;  // steps of a walk: longer ones read less twice, shorter ones fill small images

/// What both kinds of kernels need; taps of both axes, scale in those of the rows.
template <class T>
struct Resampling {
  using A = Accumulator<T>;
  const T* x;
  T* y;
  std::int64_t n, h, w, c, oh, ow;
  int up, down, pad0, num_taps;
  A row_taps[UpFirDn::kMaxTaps], col_taps[UpFirDn::kMaxTaps];

  explicit Resampling(const UpFirDn& op)
      : x(op.x.as<T>()),
        y(op.y.as<T>()),
        n(op.n),
        h(op.h),
        w(op.w),
        c(op.c),
        oh(op.oh),
        ow(op.ow),
        up(op.up),
        down(op.down),
        pad0(op.pad0),
        num_taps(op.num_taps),
        row_taps{},
        col_taps{} {
    for (int j = 0; j < num_taps; ++j) {
      row_taps[j] = static_cast<A>(op.scale * op.taps[j]);
      col_taps[j] = static_cast<A>(op.taps[j]);
    }
  }
};

/// A walk's step makes `up` x `up` outputs from kRows x kRows inputs, and `down` rows of these are new. With
/// up = 2 output phase p of a step reads input i through tap 2 i + kOdd - p: the padding is even with four
/// taps and odd with two.
template <int Up, int Down, int Taps>
struct Polyphase {
  static constexpr int kOdd = Up == 2 ? Taps / 2 % 2 : 0;
  static constexpr int kRows = Up == 2 ? Taps / 2 + 1 - kOdd : Taps;

  static constexpr int tap(int input, int phase) { return Up == 2 ? 2 * input + kOdd - phase : input; }
  static constexpr bool reads(int input, int phase) {
    return tap(input, phase) >= 0 && tap(input, phase) < Taps;
  }
  /// The first input that step 0 reads.
  SGM_HD static int origin(int pad0) { return Up == 2 ? -(pad0 - kOdd) / 2 : -pad0; }
  static bool fits(const UpFirDn& op) {
    if (op.up != Up || op.down != Down || op.num_taps != Taps) return false;
    for (int j = 0; j < Taps; ++j)
      if (op.taps[j] == 0.0) return false;  // what is multiplied by zero may not be finite
    return Up == 1 || (op.pad0 - kOdd) % 2 == 0;
  }
};

/// sums[phase] = the sums along one row of an image for the step whose first column is `col`; zero outside.
/// `image` is that of the thread's channels.
template <class P, int Up, class T, class A, int V>
__device__ inline void sum_row(const Resampling<T>& op, const T* image, std::int64_t row, std::int64_t col,
                               A (&sums)[Up][V]) {
#pragma unroll
  for (int p = 0; p < Up; ++p)
#pragma unroll
    for (int k = 0; k < V; ++k) sums[p][k] = 0;
  if (row < 0 || row >= op.h) return;
  const T* line = image + row * op.w * op.c;
#pragma unroll
  for (int i = 0; i < P::kRows; ++i) {
    if (col + i < 0 || col + i >= op.w) continue;
    A v[V];
    load_span(line + (col + i) * op.c, V, V > 1, v);
#pragma unroll
    for (int p = 0; p < Up; ++p)
      if (P::reads(i, p))
#pragma unroll
        for (int k = 0; k < V; ++k) sums[p][k] += op.col_taps[P::tap(i, p)] * v[k];
  }
}

/// V > 1: 16 bytes by one instruction, which the compiler does not see in a store of their parts here.
template <class T, class A, int V>
__device__ inline void store(T* p, const A (&v)[V]) {
  if constexpr (V == 1) {
    *p = rounded_to<T>(v[0]);
  } else {
    Pack<T> pack;
#pragma unroll
    for (int k = 0; k < V; ++k) pack.at[k] = rounded_to<T>(v[k]);
    __stwb(reinterpret_cast<uint4*>(p), std::bit_cast<uint4>(pack));
  }
}

/// Threads: [n, strips, steps along a row, channels / V]. V > 1: 16-byte accesses, c is a multiple of V.
template <class T, int V, int Up, int Down, int Taps>
__global__ void __launch_bounds__(kThreads)
    resample_kernel(const Resampling<T> op, std::int64_t strips, std::int64_t steps, std::int64_t threads) {
  using A = Accumulator<T>;
  using P = Polyphase<Up, Down, Taps>;
  std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (t >= threads) return;
  const std::int64_t packs = op.c / V;
  std::int64_t rest = quotient(t, packs);
  const std::int64_t channel = (t - rest * packs) * V;
  t = rest, rest = quotient(t, steps);
  const std::int64_t step_x = t - rest * steps, image = quotient(rest, strips);
  const std::int64_t first_step = (rest - image * strips) * kStrip;
  const T* x = op.x + image * op.h * op.w * op.c + channel;
  const int origin = P::origin(op.pad0);
  const std::int64_t col = step_x * Down + origin;

  A window[P::kRows][Up][V];  // sums along the rows that the step reads
  std::int64_t row = first_step * Down + origin;
#pragma unroll
  for (int i = Down; i < P::kRows; ++i) sum_row<P>(op, x, row++, col, window[i]);
#pragma unroll
  for (int step = 0; step < kStrip; ++step) {
    const std::int64_t first_row = (first_step + step) * Up;
    if (first_row >= op.oh) return;
#pragma unroll
    for (int i = 0; i + Down < P::kRows; ++i)
#pragma unroll
      for (int p = 0; p < Up; ++p)
#pragma unroll
        for (int k = 0; k < V; ++k) window[i][p][k] = window[i + Down][p][k];
#pragma unroll
    for (int i = P::kRows > Down ? P::kRows - Down : 0; i < P::kRows; ++i)
      sum_row<P>(op, x, row++, col, window[i]);
#pragma unroll
    for (int p = 0; p < Up; ++p)
#pragma unroll
      for (int q = 0; q < Up; ++q) {
        A sum[V] = {};
#pragma unroll
        for (int i = 0; i < P::kRows; ++i)
          if (P::reads(i, p))
#pragma unroll
            for (int k = 0; k < V; ++k) sum[k] += op.row_taps[P::tap(i, p)] * window[i][q][k];
        if (first_row + p < op.oh && step_x * Up + q < op.ow)
          store(op.y + ((image * op.oh + first_row + p) * op.ow + step_x * Up + q) * op.c + channel, sum);
      }
  }
}

/// One thread for each element of y.
template <class T>
__global__ void __launch_bounds__(kThreads)
    resample_any_kernel(const Resampling<T> op, std::int64_t elements) {
  using A = Accumulator<T>;
  std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (t >= elements) return;
  T* y = op.y + t;
  std::int64_t rest = quotient(t, op.c);
  const std::int64_t channel = t - rest * op.c;
  t = rest, rest = quotient(t, op.ow);
  const std::int64_t left = (t - rest * op.ow) * op.down - op.pad0, image = quotient(rest, op.oh);
  const std::int64_t top = (rest - image * op.oh) * op.down - op.pad0;
  const T* x = op.x + image * op.h * op.w * op.c + channel;
  A sum = 0;
  for (int i = 0; i < op.num_taps; ++i) {
    const std::int64_t row = quotient(std::max<std::int64_t>(top + i, 0), op.up);
    if (op.col_taps[i] == A(0) || row * op.up != top + i || row >= op.h) continue;
    A row_sum = 0;
    for (int j = 0; j < op.num_taps; ++j) {
      const std::int64_t col = quotient(std::max<std::int64_t>(left + j, 0), op.up);
      if (op.col_taps[j] == A(0) || col * op.up != left + j || col >= op.w) continue;
      row_sum += op.col_taps[j] * static_cast<A>(x[(row * op.w + col) * op.c]);
    }
    sum += op.row_taps[i] * row_sum;
  }
  *y = rounded_to<T>(sum);
}

/// Whether the op is of this kind; then it has been launched.
template <class T, int Up, int Down, int Taps>
bool resample_as(const UpFirDn& op, CudaContext& device) {
  if (!Polyphase<Up, Down, Taps>::fits(op)) return false;
  const auto run_with = [&]<int V>(std::integral_constant<int, V>) {
    const std::int64_t steps_y = (op.oh + Up - 1) / Up, steps = (op.ow + Up - 1) / Up,
                       strips = (steps_y + kStrip - 1) / kStrip, threads = op.n * strips * steps * (op.c / V);
    launch(device, {"resample", blocks_for(threads, kThreads), kThreads, op.cost().bytes},
           resample_kernel<T, V, Up, Down, Taps>, Resampling<T>(op), strips, steps, threads);
  };
  if (packs<T>({op.x.data, op.y.data}, op.c))
    run_with(std::integral_constant<int, Pack<T>::kSize>{});
  else
    run_with(std::integral_constant<int, 1>{});
  return true;
}

}  // namespace

void UpFirDn::cuda(Context& context) const {
  CudaContext& device = sgm::cuda(context);
  dispatch_float(x.dtype, "upfirdn", [&]<class T>(T) {
    if constexpr (!std::is_same_v<T, double>)
      if (resample_as<T, 2, 1, 4>(*this, device) || resample_as<T, 1, 2, 4>(*this, device) ||
          resample_as<T, 2, 1, 2>(*this, device) || resample_as<T, 1, 2, 2>(*this, device) ||
          resample_as<T, 1, 1, 4>(*this, device))
        return;
    const std::int64_t elements = n * oh * ow * c;
    launch(device, {"resample", blocks_for(elements, kThreads), kThreads, cost().bytes},
           resample_any_kernel<T>, Resampling<T>(*this), elements);
  });
}

}  // namespace sgm
