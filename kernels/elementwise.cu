// One thread computes the elements of one pack of sixteen bytes.

#include "kernels/elementwise.h"

#include "kernels/span.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;

template <class T>
constexpr int kSpan = Pack<T>::kSize;

template <class T>
unsigned span_blocks(std::int64_t n) {
  return blocks_for(n, std::int64_t{kThreads} * kSpan<T>);
}

/// First element of this thread's pack.
template <class T>
__device__ std::int64_t span_begin() {
  return (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kSpan<T>;
}

// ---- y[i] = f(a[i], b[i]) ---------------------------------------------------------------------------------

template <Activation A, class T>
struct Activated {
  __device__ T operator()(T x, T) const { return activate<A>(x); }
};

template <Activation A, class T>
struct ActivatedGrad {
  __device__ T operator()(T x, T dy) const { return dy * activate_grad<A>(x); }
};

template <class T>
struct Scaled {
  T alpha;
  __device__ T operator()(T a, T) const { return alpha * a; }
};

template <class T>
struct ScaledSum {
  T alpha, beta;
  __device__ T operator()(T a, T b) const { return alpha * a + beta * b; }
};

template <class T, class F>
__global__ void __launch_bounds__(kThreads)
    map_kernel(const T* a, const T* b, T* y, std::int64_t n, bool packed, F f) {
  const std::int64_t begin = span_begin<T>(), size = n - begin;
  if (size <= 0) return;
  Accumulator<T> u[kSpan<T>], v[kSpan<T>] = {};
  load_span(a + begin, size, packed, u);
  if (b) load_span(b + begin, size, packed, v);
  for (int k = 0; k < kSpan<T>; ++k) u[k] = f(u[k], v[k]);
  store_span(y + begin, size, packed, u);
}

template <class T, class F>
void map(Context& context, const char* name, const ConstBuffer& a, const ConstBuffer& b, const Buffer& y,
         std::int64_t n, const F& f) {
  launch(sgm::cuda(context),
         {name, span_blocks<T>(n), kThreads, bytes_of(a, n) + bytes_of(b, n) + bytes_of(y, n)},
         map_kernel<T, F>, a.as<T>(), b.as<T>(), y.as<T>(), n, packs<T>({a.data, b.data, y.data}, 0), f);
}

// ---- rows -------------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads)
    scale_rows_kernel(const T* x, const double* scale, T* y, std::int64_t n, std::int64_t cols, double factor,
                      double shift, bool packed) {
  using A = Accumulator<T>;
  const std::int64_t begin = span_begin<T>(), size = n - begin;
  if (size <= 0) return;
  std::int64_t row = quotient(begin, cols), col = begin - row * cols;
  A s = static_cast<A>(factor * (scale ? scale[row] : 1.0));
  A v[kSpan<T>];
  load_span(x + begin, size, packed, v);
  for (int k = 0; k < kSpan<T>; ++k, ++col) {
    if (!packed && col == cols && k < size) {
      col = 0, ++row;
      s = static_cast<A>(factor * (scale ? scale[row] : 1.0));
    }
    v[k] = s * v[k] + static_cast<A>(shift);
  }
  store_span(y + begin, size, packed, v);
}

template <class T>
__global__ void __launch_bounds__(kThreads) add_bias_kernel(const T* x, const Accumulator<T>* bias, T* y,
                                                            std::int64_t n, std::int64_t cols, bool packed) {
  const std::int64_t begin = span_begin<T>(), size = n - begin;
  if (size <= 0) return;
  std::int64_t col = begin - quotient(begin, cols) * cols;
  Accumulator<T> v[kSpan<T>];
  load_span(x + begin, size, packed, v);
  if (packed) {
    Accumulator<T> b[kSpan<T>];
    load_span(bias + col, kSpan<T>, true, b);
    for (int k = 0; k < kSpan<T>; ++k) v[k] += b[k];
  } else {
    for (int k = 0; k < kSpan<T>; ++k) {
      v[k] += bias[col];
      if (++col == cols) col = 0;
    }
  }
  store_span(y + begin, size, packed, v);
}

// ---- channels: elements are moved as they are, one or one pack at a time ----------------------------------

/// Calls body(T{}) with an integer of the size of a tensor's elements.
template <class Body>
void dispatch_size(DType dtype, const char* op, Body&& body) {
  switch (size_of(dtype)) {
    case 2: return body(std::uint16_t{});
    case 4: return body(std::uint32_t{});
    case 8: return body(std::uint64_t{});
    default: fail(op, ": tensors are f32, bf16 or f64, got ", dtype);
  }
}

/// Rows of two tensors side by side: so many units from the first and the second, `unit` elements each.
struct ChannelSplit {
  std::int64_t rows, first, second;
  int unit;
};

template <class T>
ChannelSplit channel_split(const ConstBuffer& a, const ConstBuffer& b, const ConstBuffer& y,
                           std::int64_t rows, std::int64_t ca, std::int64_t cb) {
  const int unit = packs<T>({a.data, b.data, y.data}, ca) && packs<T>({}, cb) ? Pack<T>::kSize : 1;
  return {rows, ca / unit, cb / unit, unit};
}

/// Where a unit of the concatenated tensor comes from: the tensor, and the element that it starts at.
struct ChannelSource {
  bool in_first;
  std::int64_t element;
};

__device__ inline ChannelSource source_of(const ChannelSplit& split, std::int64_t i) {
  const std::int64_t width = split.first + split.second, row = quotient(i, width), col = i - row * width;
  if (col < split.first) return {true, (row * split.first + col) * split.unit};
  return {false, (row * split.second + col - split.first) * split.unit};
}

template <class T>
__device__ void move(const T* from, T* to, int unit) {
  if (unit == 1)
    *to = *from;
  else
    store16(to, load16(from));
}

template <class T>
__global__ void __launch_bounds__(kThreads) concat_kernel(const T* a, const T* b, T* y, ChannelSplit split) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= split.rows * (split.first + split.second)) return;
  const ChannelSource source = source_of(split, i);
  move((source.in_first ? a : b) + source.element, y + i * split.unit, split.unit);
}

template <class T>
__global__ void __launch_bounds__(kThreads) split_kernel(const T* y, T* a, T* b, ChannelSplit split) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= split.rows * (split.first + split.second)) return;
  const ChannelSource source = source_of(split, i);
  T* to = source.in_first ? a : b;
  if (to) move(y + i * split.unit, to + source.element, split.unit);
}

}  // namespace

void Activate::cuda(Context& context) const {
  dispatch_storage(x.dtype, "activate", [&]<class T>(T) {
    dispatch_activation(activation, [&]<Activation A>() {
      map<T>(context, "activate", x, {}, y, n, Activated<A, Accumulator<T>>{});
    });
  });
}

void ActivateGrad::cuda(Context& context) const {
  dispatch_storage(x.dtype, "activate", [&]<class T>(T) {
    dispatch_activation(activation, [&]<Activation A>() {
      map<T>(context, "activate_grad", x, dy, dx, n, ActivatedGrad<A, Accumulator<T>>{});
    });
  });
}

void AddScaled::cuda(Context& context) const {
  dispatch_float(y.dtype, "add", [&]<class T>(T) {
    using A = Accumulator<T>;
    if (b)
      map<T>(context, "add_scaled", a, b, y, n, ScaledSum<A>{static_cast<A>(alpha), static_cast<A>(beta)});
    else
      map<T>(context, "scale", a, {}, y, n, Scaled<A>{static_cast<A>(alpha)});
  });
}

void ScaleRows::cuda(Context& context) const {
  dispatch_float(x.dtype, "scale_rows", [&]<class T>(T) {
    const std::int64_t n = rows * cols;
    launch(sgm::cuda(context), {"scale_rows", span_blocks<T>(n), kThreads, cost().bytes},
           scale_rows_kernel<T>, x.as<T>(), scale.as<double>(), y.as<T>(), n, cols, factor, shift,
           packs<T>({x.data, y.data}, cols));
  });
}

void AddBias::cuda(Context& context) const {
  dispatch_float(x.dtype, "add_bias", [&]<class T>(T) {
    const std::int64_t n = rows * cols;
    launch(sgm::cuda(context), {"add_bias", span_blocks<T>(n), kThreads, cost().bytes}, add_bias_kernel<T>,
           x.as<T>(), bias.as<Accumulator<T>>(), y.as<T>(), n, cols,
           packs<T>({x.data, bias.data, y.data}, cols));
  });
}

void ConcatChannels::cuda(Context& context) const {
  dispatch_size(y.dtype, "concat_channels", [&]<class T>(T) {
    const ChannelSplit split = channel_split<T>(a, b, y, rows, ca, cb);
    launch(sgm::cuda(context),
           {"concat_channels", blocks_for(rows * (split.first + split.second), kThreads), kThreads,
            cost().bytes},
           concat_kernel<T>, a.as<T>(), b.as<T>(), y.as<T>(), split);
  });
}

void SplitChannels::cuda(Context& context) const {
  dispatch_size(y.dtype, "split_channels", [&]<class T>(T) {
    const ChannelSplit split = channel_split<T>(a, b, y, rows, ca, cb);
    launch(
        sgm::cuda(context),
        {"split_channels", blocks_for(rows * (split.first + split.second), kThreads), kThreads, cost().bytes},
        split_kernel<T>, y.as<T>(), a.as<T>(), b.as<T>(), split);
  });
}

}  // namespace sgm
