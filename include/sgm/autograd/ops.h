#pragma once
// Every differentiable op: Var in, Var out. Images are [N, H, W, C], weights [K, R, S, C].

#include <vector>

#include "sgm/autograd/var.h"
#include "sgm/core/activation.h"
#include "sgm/core/random.h"

namespace sgm {

// ---- elementwise ------------------------------------------------------------------------------------------

/// alpha a + beta b, same shape.
Var add(const Var& a, const Var& b, double alpha = 1.0, double beta = 1.0);
/// factor x + shift.
Var affine(const Var& x, double factor, double shift = 0.0);
/// scale[n] x[n, ...]; scale [N] f64, not differentiated.
Var scale_images(const Var& x, const Tensor& scale);
Var activate(const Var& x, Activation activation);
/// The same values in another element type; the gradient is converted back.
Var cast(const Var& x, DType dtype);

/// x [.., C] + bias [C].
Var add_bias(const Var& x, const Var& bias);

// ---- tangents ---------------------------------------------------------------------------------------------

/// v times the derivative of order 0 to 2 of the activation (none or swish) at x. v [K n, ...] may hold K
/// tangents for every entry of x [n, ...], one batch after the other.
Var derivative_product(const Var& x, const Var& v, Activation activation, int order);
/// x v, with v as above.
Var multiply(const Var& x, const Var& v);

// ---- shape ------------------------------------------------------------------------------------------------

Var reshape(const Var& x, Shape shape);
/// [.., Ca] and [.., Cb] -> [.., Ca + Cb].
Var concat_channels(const Var& a, const Var& b);

// ---- matrix products --------------------------------------------------------------------------------------

/// x [M, I] weight [O, I]^T + bias [O] -> [M, O].
Var linear(const Var& x, const Var& weight, const Var& bias);
/// x [M, O] weight [O, I] -> [M, I]: what linear does to gradients.
Var linear_transposed(const Var& x, const Var& weight);
/// Single-head attention of every pixel to every pixel: qkv [N, H, W, 3C] holds queries, keys and values;
/// softmax(q k^T / sqrt C) v -> [N, H, W, C]. Softmax in f32 whatever qkv is.
Var attention(const Var& qkv);

// ---- images -----------------------------------------------------------------------------------------------

struct Conv2dParams {
  int stride = 1;
  int pad_begin = 0;      // zeros before, along both axes
  int pad_end = 0;        // zeros after
  bool keep_f32 = false;  // bf16 input: write the f32 sums unrounded
  int dilation = 1;       // pixels from one tap of the filter to the next
  bool round = false;  // f32 input: write bf16, for which gradients of the weight see the input rounded too
};
/// scale (conv(x, weight) + bias + residual); bias [K] and residual (shape of the output) may be absent. For
/// 1x1 filters x2 may hold the last channels of the input; `joined` is then the whole of it, where another op
/// made it on its way (group_norm): one product in place of two.
Var conv2d(const Var& x, const Var& weight, const Var& bias = {}, Conv2dParams params = {},
           const Var& residual = {}, double scale = 1.0, const Var& x2 = {}, const Tensor& joined = {});

struct GroupNormParams {
  int groups = 32;
  double eps = 1e-6;
  Activation activation = Activation::none;
  double dropout = 0.0;  // rate; 0 turns it off
  NoiseKey dropout_key;  // names the mask
};
/// Numbers added to every pixel, by image and channel: columns first .. first + C - 1 of all [N, >= C], f32
/// beside bf16. Norms that share `all` use different columns of it.
struct ChannelShift {
  Var all;
  std::int64_t first = 0;
};
/// dropout(activation(gamma (x + shift - mean) rstd + beta)); the shift may be absent; x2 may hold the last
/// channels of the input, and `joined` [N, H, W, C of both] is then filled with all of them where it is
/// given.
Var group_norm(const Var& x, const Var& gamma, const Var& beta, const GroupNormParams& params,
               const ChannelShift& shift = {}, const Var& x2 = {}, Tensor joined = {});

/// Up-sampling by `up`, correlation with separable `taps`, down-sampling by `down`; pads may be negative.
struct ResampleParams {
  int up = 1;
  int down = 1;
  int pad0 = 0;
  int pad1 = 0;
  std::vector<double> taps = {1.0};
};
Var resample(const Var& x, const ResampleParams& params);

struct ResampledNorm {
  Var normalised;  // resample(group_norm(x))
  Var input;       // resample(x)
};
/// Both in one pass. The norm is without dropout.
ResampledNorm resampled_group_norm(const Var& x, const Var& gamma, const Var& beta,
                                   const GroupNormParams& norm, const ResampleParams& params);

/// The operators of StyleGAN2 for `kernel`, e.g. {1, 3, 3, 1}; {1, 1} is nearest up and 2x2 mean down.
ResampleParams upsample_params(const std::vector<int>& kernel);
ResampleParams downsample_params(const std::vector<int>& kernel);
/// The FIR before a stride-2 convolution, and after a zero-inserting one, of 3x3 weights.
ResampleParams conv_downsample_params(const std::vector<int>& kernel);
ResampleParams upsample_conv_params(const std::vector<int>& kernel);

// ---- RefineNets -------------------------------------------------------------------------------------------

/// The largest value within `radius` pixels along both axes; what lies outside the image does not count. The
/// gradient goes to the first pixel, row by row, that has it.
Var max_pool(const Var& x, int radius);
/// [N, H, W, C] -> [N, height, width, C], bilinear, first and last pixels on first and last pixels.
Var resize_bilinear(const Var& x, std::int64_t height, std::int64_t width);
/// InstanceNorm++: gamma (h + alpha m) + beta, where h is every channel of every image normalised over its
/// pixels, and m are the channels' means, normalised over the channels of the image (unbiased variance).
/// table [rows, 3 C] or [3 C] holds gamma, alpha and beta; label [N] f64 names each image's row, cut to an
/// integer and clamped to the table; absent: row 0.
Var instance_norm_plus(const Var& x, const Var& table, const Tensor& label = {}, double eps = 1e-5);

// ---- classification ---------------------------------------------------------------------------------------

/// x [N, H, W, C] with every image brought to mean 0 and standard deviation 1 over all its elements, after
/// scale x + shift channel by channel; scale and shift [C] f64, not differentiated. An image whose standard
/// deviation is below 1 / sqrt(H W C) is divided by that.
Var standardise(const Var& x, const Tensor& scale, const Tensor& shift);
/// The mean over all pixels: [N, H, W, C] -> [N, C], f32 beside bf16.
Var mean_pixels(const Var& x);

struct CrossEntropyResult {
  Var loss;        // [N] f64: -log softmax(logits)[label]
  Tensor correct;  // [N] f64: 1 where the label's logit is the largest, else 0
};
/// logits [N, K]; labels [N] f64, whole numbers in [0, K): others give NaN.
CrossEntropyResult cross_entropy(const Var& logits, const Tensor& labels);

}  // namespace sgm
