#include "kernels/direct_conv.h"

#include "kernels/device.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 16;  // threads that share the channels of a pixel
constexpr int kRun = 8;     // channels that one thread takes at a time: 16 bytes
constexpr int kPixels = 4;  // consecutive output pixels of those threads
constexpr int kGroups = kThreads / kLanes;

/// Channels [c, c + 8) of a pixel as floats; zeros from `channels` on.
template <bool kPacked>
__device__ void load_run(const bfloat16* pixel, std::int64_t c, std::int64_t channels, float (&run)[kRun]) {
  if constexpr (kPacked) {
    const Pack<bfloat16> pack = load16(pixel + c);
    for (int i = 0; i < kRun; ++i) run[i] = pack.at[i];
  } else {
    for (int i = 0; i < kRun; ++i) run[i] = c + i < channels ? static_cast<float>(pixel[c + i]) : 0.0f;
  }
}

/// Where the filter's window of one output pixel begins.
struct Window {
  const bfloat16* image = nullptr;  // null: no such pixel
  std::int64_t row = 0, col = 0;
};

__device__ Window window_of(const bfloat16* x, const ConvShape& s, std::int64_t pixel) {
  if (pixel >= s.n * s.oh * s.ow) return {};
  const std::int64_t row = pixel / s.ow, image = row / s.oh;
  return {x + image * s.h * s.w * s.c, (row - image * s.oh) * s.stride - s.pad_begin,
          (pixel - row * s.ow) * s.stride - s.pad_begin};
}

/// Sixteen threads take four pixels and kOutputs output channels: every weight that is read serves all four
/// pixels, and the sums over channels meet at the end.
template <int kOutputs, bool kPacked>
__global__ void __launch_bounds__(kThreads)
    direct_conv_kernel(const bfloat16* x, const bfloat16* weight, const float* bias, const float* residual,
                       float* y, ConvShape s, float scale) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes, group = static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t first_pixel = (std::int64_t{blockIdx.x} * kGroups + group) * kPixels;
  const std::int64_t first_output = std::int64_t{blockIdx.y} * kOutputs, filter = s.r * s.s * s.c;

  Window windows[kPixels];
  for (int p = 0; p < kPixels; ++p) windows[p] = window_of(x, s, first_pixel + p);
  float sums[kPixels][kOutputs] = {};
  for (std::int64_t tap = 0; tap < s.r * s.s; ++tap) {
    const std::int64_t r = tap / s.s, down = r * s.dilation, right = (tap - r * s.s) * s.dilation;
    const bfloat16* pixels[kPixels];
    for (int p = 0; p < kPixels; ++p) {
      const std::int64_t row = windows[p].row + down, col = windows[p].col + right;
      const bool inside = windows[p].image && row >= 0 && row < s.h && col >= 0 && col < s.w;
      pixels[p] = inside ? windows[p].image + (row * s.w + col) * s.c : nullptr;
    }
    for (std::int64_t c = lane * kRun; c < s.c; c += kLanes * kRun) {
      float weights[kOutputs][kRun] = {};
      for (int k = 0; k < kOutputs; ++k)
        if (first_output + k < s.k)
          load_run<kPacked>(weight + (first_output + k) * filter + tap * s.c, c, s.c, weights[k]);
      for (int p = 0; p < kPixels; ++p) {
        if (!pixels[p]) continue;
        float values[kRun];
        load_run<kPacked>(pixels[p], c, s.c, values);
        for (int k = 0; k < kOutputs; ++k)
          for (int i = 0; i < kRun; ++i) sums[p][k] += values[i] * weights[k][i];
      }
    }
  }

  for (int p = 0; p < kPixels; ++p) {
    for (int k = 0; k < kOutputs; ++k) {
      float sum = sums[p][k];
      for (int offset = kLanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      const std::int64_t output = first_output + k, at = (first_pixel + p) * s.k + output;
      if (lane != p * kOutputs + k || !windows[p].image || output >= s.k) continue;
      if (bias) sum += bias[output];
      if (residual) sum += residual[at];
      y[at] = scale * sum;
    }
  }
}

template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    scaled_bias_kernel(const From* bias, To* y, std::int64_t n, float factor) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) y[i] = rounded_to<To>(factor * static_cast<float>(bias[i]));
}

template <class T, class B>
__global__ void __launch_bounds__(kThreads)
    epilogue_kernel(const B* bias, const T* residual, T* y, std::int64_t n, std::int64_t cols,
                    std::int64_t ld, float scale) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  const std::int64_t row = i / cols, col = i - row * cols;
  float term = 0.0f;
  if (bias) term += static_cast<float>(bias[col]);
  if (residual) term += static_cast<float>(residual[i]);
  T& value = y[row * ld + col];
  value = rounded_to<T>(static_cast<float>(value) + scale * term);
}

}  // namespace

void convolve_directly(const Conv2d& op, CudaContext& device) {
  const ConvShape& s = op.shape;
  check(op.x.dtype == DType::bf16 && op.weight.dtype == DType::bf16 && op.y.dtype == DType::f32,
        "conv2d: ", op.x.dtype, " to ", op.y.dtype,
        " is not among the pairs bf16 to bf16, bf16 to f32 and f32 to f32");
  const ReadyBias bias(op.bias, s.k, 1.0, DType::f32, device);
  const std::int64_t pixels = s.n * s.oh * s.ow, outputs = pixels * s.k;
  const OpCost cost = op.cost();
  const bool packed = packs<bfloat16>({op.x.data, op.weight.data}, s.c);
  const auto start = [&]<int kOutputs, bool kPacked>() {
    const dim3 blocks(outputs ? blocks_for(pixels, kGroups * kPixels) : 0, blocks_for(s.k, kOutputs));
    launch(device, {"direct conv", blocks, kThreads, cost.bytes, 0, cost.flop},
           direct_conv_kernel<kOutputs, kPacked>, op.x.as<bfloat16>(), op.weight.as<bfloat16>(),
           bias.buffer().as<float>(), op.residual.as<float>(), op.y.as<float>(), s,
           static_cast<float>(op.scale));
  };
  if (s.k == 3) return packed ? start.operator()<3, true>() : start.operator()<3, false>();
  packed ? start.operator()<4, true>() : start.operator()<4, false>();
}

ReadyBias::ReadyBias(ConstBuffer bias, std::int64_t n, double factor, DType wanted, CudaContext& device)
    : device_(device), ready_(bias) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(bias.data) % 16 == 0;
  if (!bias || (bias.dtype == wanted && factor == 1.0 && aligned)) return;
  bytes_ = static_cast<std::size_t>(n) * size_of(wanted);
  const Buffer copy{device.allocate(bytes_), wanted};
  ready_ = copy;
  dispatch_storage(bias.dtype, "bias", [&]<class From>(From) {
    dispatch_storage(wanted, "bias", [&]<class To>(To) {
      launch(device,
             {"scaled bias", blocks_for(n, kThreads), kThreads, bytes_of(bias, n) + bytes_of(copy, n)},
             scaled_bias_kernel<From, To>, bias.as<From>(), copy.as<To>(), n, static_cast<float>(factor));
    });
  });
}

ReadyBias::~ReadyBias() {
  if (bytes_) device_.release(const_cast<void*>(ready_.data), bytes_);
}

void add_epilogue(const EpilogueTerms& terms, CudaContext& device) {
  const std::int64_t n = terms.rows * terms.cols;
  const std::int64_t bytes = 2 * bytes_of(terms.y, n) + bytes_of(terms.residual, n);
  dispatch_storage(terms.y.dtype, "convolution", [&]<class T>(T) {
    dispatch_storage(terms.bias.dtype, "convolution", [&]<class B>(B) {
      launch(device, {"add bias and residual", blocks_for(n, kThreads), kThreads, bytes},
             epilogue_kernel<T, B>, terms.bias.as<B>(), terms.residual.as<T>(), terms.y.as<T>(), n,
             terms.cols, terms.ld, static_cast<float>(terms.scale));
    });
  });
}

}  // namespace sgm
