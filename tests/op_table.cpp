#include "op_table.h"

#include "naive.h"

namespace sgm {
namespace {

// Rank 1 to 4, one element, primes, channels that are no multiple of 4, and a shape of the networks.
const std::vector<Shape> kPlainShapes = {{1}, {7}, {5, 13}, {1, 1, 1, 1}, {2, 3, 5, 7}, {2, 16, 16, 128}};

// One operation and one rounding per element: 2^-24 in f32, 2^-9 in bf16.
constexpr Tolerance kOneRounding = {1.2e-7, 4e-7};
constexpr Tolerance kThreeRoundings = {8e-3, 1.2e-2};  // of bf16

template <class F>
Values mapped(const Values& x, F&& f) {
  Values y = x;
  for (double& value : y.data) value = f(value);
  return y;
}

/// x[.., C] with f(value, c) applied.
template <class F>
Values map_channels(const Values& x, F&& f) {
  Values y = x;
  const auto channels = static_cast<std::size_t>(x.shape[-1]);
  for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] = f(x.data[i], i % channels);
  return y;
}

void add_elementwise(std::vector<OpRow>& rows, const Shape& s) {
  for (const auto& [alpha, beta] : {std::pair{1.0, 1.0}, {std::sqrt(0.5), std::sqrt(0.5)}, {0.3, -1.7}})
    rows.push_back({.name = text_of("add ", alpha, " a + ", beta, " b ", s),
                    .op = "add",
                    .inputs = {{s}, {s}},
                    .build = [=](Vars v) { return add(v[0], v[1], alpha, beta); },
                    .naive =
                        [=](const Inputs& v) {
                          Values y = v[0];
                          for (std::size_t i = 0; i < y.data.size(); ++i)
                            y.data[i] = alpha * v[0].data[i] + beta * v[1].data[i];
                          return y;
                        },
                    .f32 = kOneRounding});
  for (const auto& [factor, shift] : {std::pair{2.0, -1.0}, {-0.7, 0.0}})
    rows.push_back(
        {.name = text_of("affine ", factor, " x + ", shift, ' ', s),
         .op = "affine",
         .inputs = {{s}},
         .build = [=](Vars v) { return affine(v[0], factor, shift); },
         .naive = [=](const Inputs& v) { return mapped(v[0], [=](double x) { return factor * x + shift; }); },
         .f32 = kOneRounding});
  const std::vector<double> scale = random_values(s[0], 7, 1.0);
  rows.push_back({.name = text_of("scale_images ", s),
                  .op = "scale_images",
                  .inputs = {{s}},
                  .build =
                      [=](Vars v) {
                        const std::int64_t n = v[0].shape()[0];
                        const std::vector<double> first(scale.begin(), scale.begin() + n);
                        return scale_images(v[0], tensor_of(v[0].value().context(), first, {n}, DType::f64));
                      },
                  .naive =
                      [=](const Inputs& v) {
                        Values y = v[0];
                        const std::size_t per_image = y.data.size() / scale.size();
                        for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] *= scale[i / per_image];
                        return y;
                      },
                  .f32 = kOneRounding});
  rows.push_back({.name = text_of("cast ", s),
                  .op = "cast",
                  .inputs = {{s}},
                  .build =
                      [](Vars v) {
                        const DType type = v[0].value().dtype();
                        return cast(cast(v[0], type == DType::f32 ? DType::f64 : DType::f32), type);
                      },
                  .naive = [](const Inputs& v) { return v[0]; },
                  .f32 = kOneRounding});
  rows.push_back({.name = text_of("reshape ", s),
                  .op = "reshape",
                  .inputs = {{s}},
                  .build =
                      [](Vars v) {
                        return reshape(v[0], {1, v[0].value().numel()});
                      },
                  .naive =
                      [](const Inputs& v) {
                        return Values{{1, v[0].shape.numel()}, v[0].data};
                      },
                  .f32 = kOneRounding});
}

void add_activations(std::vector<OpRow>& rows, const Shape& s) {
  for (const char* name : {"none", "swish", "elu", "relu", "lrelu"}) {
    const Activation activation = activation_from(name);
    rows.push_back({.name = text_of("activate ", name, ' ', s),
                    .op = "activate",
                    .inputs = {{.shape = s, .std = 3.0}},
                    .build = [=](Vars v) { return activate(v[0], activation); },
                    .naive =
                        [=](const Inputs& v) {
                          return mapped(v[0], [=](double x) { return naive::activate(activation, x); });
                        },
                    .affine = false,
                    // An exponential to 2 ulp, then two or three more roundings.
                    .f32 = {3e-7, 6e-7}});
  }
}

/// a and b side by side.
Values joined(const Values& a, const Values& b) {
  const std::int64_t ca = a.shape[3], cb = b.shape[3];
  const naive::Image first(a), second(b);
  return naive::image_of({a.shape[0], a.shape[1], a.shape[2], ca + cb}, [&](auto n, auto y, auto x, auto c) {
    return c < ca ? first.at(n, y, x, c) : second.at(n, y, x, c - ca);
  });
}

void add_channel_ops(std::vector<OpRow>& rows) {
  for (const Shape& s : {Shape{1, 1}, {5, 13}, {2, 3, 5, 7}, {2, 16, 16, 128}})
    rows.push_back({.name = text_of("add_bias ", s),
                    .op = "add_bias",
                    .inputs = {{s}, {.shape = {s[-1]}, .role = Role::parameter}},
                    .build = [](Vars v) { return add_bias(v[0], v[1]); },
                    .naive =
                        [](const Inputs& v) {
                          return map_channels(v[0],
                                              [&](double x, std::size_t c) { return x + v[1].data[c]; });
                        }});
  for (const auto& [a, channels] :
       {std::pair{Shape{1, 1, 1, 1}, 1}, {Shape{2, 3, 5, 5}, 7}, {Shape{2, 16, 16, 128}, 256}}) {
    const Shape b{a[0], a[1], a[2], channels};
    rows.push_back({.name = text_of("concat_channels ", a, " and ", channels),
                    .op = "concat_channels",
                    .inputs = {{a}, {b}},
                    .build = [](Vars v) { return concat_channels(v[0], v[1]); },
                    .naive = [](const Inputs& v) { return joined(v[0], v[1]); },
                    .f32 = kOneRounding});
  }
}

void add_products(std::vector<OpRow>& rows) {
  struct Sizes {
    std::int64_t m, in, out;
  };
  for (const auto& [m, in, out] : {Sizes{1, 1, 1}, {5, 7, 13}, {1, 17, 3}, {3, 128, 512}})
    for (const bool with_bias : {true, false}) {
      std::vector<OpInput> inputs = {{{m, in}}, {.shape = {out, in}, .role = Role::parameter}};
      if (with_bias) inputs.push_back({.shape = {out}, .role = Role::parameter});
      rows.push_back({.name = text_of("linear ", m, " x ", in, " -> ", out, with_bias ? " + bias" : ""),
                      .op = "linear",
                      .inputs = inputs,
                      .build = [=](Vars v) { return linear(v[0], v[1], with_bias ? v[2] : Var()); },
                      .naive =
                          [=](const Inputs& v) {
                            return naive::matmul(v[0], false, v[1], true, with_bias ? &v[2] : nullptr);
                          },
                      .bf16 = false});
    }
  // Channels as they come, and multiples of 16, which GPUs take in one pass in bf16; one tile and several.
  for (const Shape& s :
       {Shape{1, 1, 1, 3}, {2, 3, 5, 21}, {1, 13, 1, 15}, {2, 3, 5, 48}, {1, 9, 9, 144}, {2, 16, 16, 96}})
    rows.push_back({.name = text_of("attention ", s),
                    .op = "attention",
                    .inputs = {{s}},
                    .build = [](Vars v) { return attention(v[0]); },
                    .naive = [](const Inputs& v) { return naive::attention(v[0]); },
                    .affine = false,
                    .f32 = {1.5e-6},
                    // Probabilities and their gradients are rounded as well, and differences of them taken.
                    .bf16_value = {5e-3},
                    .bf16_gradient = {1e-2}});
}

struct ConvRow {
  const char* name;
  Shape x;               // [N, H, W, C]
  std::int64_t k, r, s;  // filters, their height and width
  Conv2dParams params = {};
  bool bias = true, residual = false;
  double scale = 1.0;
  bool winograd = false;  // large enough for Winograd's algorithm, in f32 and bf16
};

const ConvRow kConvolutions[] = {
    {"1x1 of one element", {1, 1, 1, 1}, 1, 1, 1},
    {"1x1", {2, 5, 7, 13}, 11, 1, 1},
    {"3x3 of one pixel", {1, 1, 1, 1}, 1, 3, 3, {1, 1, 1}},
    {"3x3", {2, 5, 7, 3}, 5, 3, 3, {1, 1, 1}},
    {"3x3 with residual", {1, 7, 7, 16}, 13, 3, 3, {1, 1, 1}, true, true, std::sqrt(0.5)},
    {"1x1 with residual", {2, 5, 3, 7}, 9, 1, 1, {}, true, true, std::sqrt(0.5)},
    {"3x3 with residual, unscaled", {1, 5, 5, 8}, 8, 3, 3, {1, 1, 1}, true, true},
    {"3x3 with residual, no bias", {1, 5, 5, 2}, 3, 3, 3, {1, 1, 1}, false, true},
    {"3x3 scaled, no residual", {3, 5, 5, 4}, 6, 3, 3, {1, 1, 1}, true, false, -0.3},
    {"stride 2, padded after", {2, 6, 6, 5}, 7, 3, 3, {2, 0, 1}},
    {"stride 2, no padding", {1, 7, 7, 6}, 3, 3, 3, {2, 0, 0}},
    {"stride 2 of an even image", {1, 6, 8, 6}, 3, 3, 3, {2, 1, 1}},
    {"1x1, stride 2", {1, 5, 7, 3}, 4, 1, 1, {2, 0, 0}},
    {"stride 3, padded before", {1, 8, 5, 3}, 4, 2, 2, {3, 2, 0}},
    {"full correlation, no bias", {1, 5, 5, 4}, 3, 3, 3, {1, 2, 2}, false},
    {"oblong filter", {2, 7, 5, 3}, 4, 3, 2, {1, 0, 1}},
    {"dilated", {2, 7, 9, 5}, 7, 3, 3, {1, 2, 2, false, 2}},
    {"dilated beyond the image", {1, 3, 5, 4}, 3, 3, 3, {1, 4, 4, false, 4}, false},
    {"dilated, oblong, stride 2", {1, 9, 8, 3}, 4, 3, 2, {2, 1, 2, false, 3}, true},
    {"dilated, with residual", {1, 6, 5, 16}, 16, 3, 3, {1, 2, 2, false, 2}, true, true, 0.7},
    {"dilated, with residual, small", {2, 4, 2, 16}, 16, 3, 3, {1, 2, 1, false, 2}, false, true, 0.7},
    {"dilated f32 sums of bf16", {1, 6, 7, 8}, 3, 3, 3, {1, 2, 2, true, 2}},
    {"dilated within a network", {1, 16, 16, 64}, 64, 3, 3, {1, 4, 4, false, 4}, false},
    {"f32 sums of bf16", {2, 5, 5, 12}, 3, 3, 3, {1, 1, 1, true}},
    {"first of a network", {1, 16, 16, 3}, 128, 3, 3, {1, 1, 1}},
    {"last of a network", {1, 16, 16, 128}, 3, 3, 3, {1, 1, 1, true}},
    {"within a network", {2, 16, 16, 128}, 128, 3, 3, {1, 1, 1}, true, true, std::sqrt(0.5), true},
    {"tiles cut by the border", {3, 15, 13, 192}, 176, 3, 3, {1, 1, 1}, true, false, 1.0, true},
    {"full correlation in tiles", {2, 14, 15, 192}, 192, 3, 3, {1, 2, 2}, false, true, -1.5, true},
    {"unpadded tiles", {2, 18, 19, 160}, 176, 3, 3, {1, 0, 0, true}, true, false, 1.0, true},
    {"unevenly padded tiles", {3, 15, 16, 160}, 192, 3, 3, {1, 0, 1}, true, false, 1.0, true},
};

void add_convolutions(std::vector<OpRow>& rows) {
  for (const ConvRow& conv : kConvolutions) {
    const Shape s = conv.x;
    const double fan = static_cast<double>(conv.r * conv.s * s[3]);
    std::vector<OpInput> inputs = {
        {s}, {.shape = {conv.k, conv.r, conv.s, s[3]}, .role = Role::filter, .std = 1.0 / std::sqrt(fan)}};
    if (conv.bias) inputs.push_back({.shape = {conv.k}, .role = Role::parameter});
    const auto length = [&](std::int64_t in, std::int64_t filter) {
      const std::int64_t reach = (filter - 1) * conv.params.dilation + 1;
      return (in + conv.params.pad_begin + conv.params.pad_end - reach) / conv.params.stride + 1;
    };
    if (conv.residual) inputs.push_back({{s[0], length(s[1], conv.r), length(s[2], conv.s), conv.k}});
    rows.push_back({.name = text_of("conv2d ", conv.name, ' ', s, " -> ", conv.k),
                    .op = "conv2d",
                    .inputs = inputs,
                    .build =
                        [conv](Vars v) {
                          return conv2d(v[0], v[1], conv.bias ? v[2] : Var(), conv.params,
                                        conv.residual ? v.back() : Var(), conv.scale);
                        },
                    .naive =
                        [conv](const Inputs& v) {
                          return naive::conv2d(v[0], v[1], conv.bias ? &v[2] : nullptr,
                                               conv.residual ? &v.back() : nullptr, conv.params, conv.scale);
                        },
                    .costly = conv.winograd,
                    // Rounding errors of a sum of n terms grow like sqrt(n).
                    .f32 = {std::max(1e-6, std::sqrt(fan * static_cast<double>(std::max(conv.k, s[3])) /
                                                     static_cast<double>(s[3])) *
                                               unit_roundoff(DType::f32))}});
  }
}

struct NormRow {
  Shape x;
  int groups;
  Activation activation = Activation::none;
  bool shift = false;
  double dropout = 0.0;
  double mean = 0.0;  // of x
  Tolerance f32 = {1e-6};
};

std::vector<NormRow> normalisations() {
  std::vector<NormRow> rows = {
      {{1, 1, 1, 6}, 2},                              // three numbers a group
      {{2, 7, 13, 5}, 1},                             // one group
      {{1, 5, 5, 13}, 13},                            // one channel a group, dropout blocks cut by rows
      {{2, 3, 5, 132}, 33, Activation::swish, true},  // the last share of groups is narrower
      {{1, 9, 9, 8}, 2, Activation::swish},           // more than 64 pixels
      {{2, 5, 5, 130}, 13, Activation::elu, true, 0.4},
      {{2, 16, 16, 128}, 32, Activation::swish, true, 0.1},
      // Far from zero: the f32 rounding of x itself, 2^-24 30, is 2e-6 of the standard deviation.
      {{2, 5, 7, 12}, 3, Activation::none, true, 0.0, 30.0, {4e-6}},
  };
  for (const Activation activation :
       {Activation::none, Activation::swish, Activation::elu, Activation::relu, Activation::lrelu})
    for (const bool shift : {false, true})
      for (const double dropout : {0.0, 0.3}) rows.push_back({{2, 3, 5, 6}, 3, activation, shift, dropout});
  return rows;
}

void add_normalisations(std::vector<OpRow>& rows) {
  for (const NormRow& norm : normalisations()) {
    const Shape s = norm.x;
    const GroupNormParams params{norm.groups, 1e-6, norm.activation, norm.dropout,
                                 NoiseKey{11, Purpose::dropout, 5, 2}};
    std::vector<OpInput> inputs = {{.shape = s, .mean = norm.mean},
                                   {.shape = {s[3]}, .role = Role::parameter, .mean = 1.0, .std = 0.3},
                                   {.shape = {s[3]}, .role = Role::parameter}};
    if (norm.shift) inputs.push_back({{s[0], s[3]}, Role::shift});
    rows.push_back(
        {.name = text_of("group_norm ", s, ", ", norm.groups, " groups, activation ",
                         static_cast<int>(norm.activation), norm.shift ? ", shift" : "", ", dropout ",
                         norm.dropout, ", mean ", norm.mean),
         .op = "group_norm",
         .inputs = inputs,
         .build = [=](Vars v) { return group_norm(v[0], v[1], v[2], params, {norm.shift ? v[3] : Var()}); },
         .naive =
             [=](const Inputs& v) {
               return naive::group_norm(v[0], v[1], v[2], norm.shift ? &v[3] : nullptr, params);
             },
         .affine = false,
         .f32 = norm.f32});
  }
}

/// What a decoder block begins with: the norm and the shortcut of two inputs, which the norm may join.
void add_two_inputs(std::vector<OpRow>& rows) {
  const GroupNormParams norm{4, 1e-6, Activation::swish, 0.0, {}};
  for (const std::int64_t c2 : {8, 4})
    for (const bool join : {true, false}) {
      const std::int64_t c = 8 + c2;
      rows.push_back({.name = text_of("norm and 1x1 of 8 + ", c2, " channels, joined ", join),
                      .op = "conv2d",
                      .inputs = {{.shape = {2, 3, 5, 8}},
                                 {.shape = {2, 3, 5, c2}},
                                 {.shape = {c}, .role = Role::parameter, .mean = 1.0, .std = 0.3},
                                 {.shape = {c}, .role = Role::parameter},
                                 {.shape = {c, 1, 1, c}, .role = Role::filter, .std = 0.3}},
                      .build =
                          [=](Vars v) {
                            const Tensor& x = v[0].value();
                            Tensor both;
                            if (join) both = Tensor::empty(x.context(), {x.shape()[0], 3, 5, c}, x.dtype());
                            const Var h = group_norm(v[0], v[2], v[3], norm, {}, v[1], both);
                            return add(h, conv2d(v[0], v[4], {}, {}, {}, 1.0, v[1], both));
                          },
                      .naive =
                          [=](const Inputs& v) {
                            const Values x = joined(v[0], v[1]);
                            Values sum = naive::conv2d(x, v[4], nullptr, nullptr, {}, 1.0);
                            const Values h = naive::group_norm(x, v[2], v[3], nullptr, norm);
                            for (std::size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += h.data[i];
                            return sum;
                          },
                      .affine = false,
                      .bf16_value = kThreeRoundings,
                      .bf16_gradient = kThreeRoundings});
    }
}

void add_resampled_norms(std::vector<OpRow>& rows) {
  for (const bool up : {true, false}) {
    const ResampleParams params = up ? upsample_params({1, 3, 3, 1}) : downsample_params({1, 3, 3, 1});
    const GroupNormParams norm{3, 1e-6, Activation::swish, 0.0, {}};
    rows.push_back({.name = text_of("resampled_group_norm ", up ? "up" : "down"),
                    .op = "group_norm",
                    .inputs = {{.shape = {2, 4, 6, 12}},
                               {.shape = {12}, .role = Role::parameter, .mean = 1.0, .std = 0.3},
                               {.shape = {12}, .role = Role::parameter}},
                    .build =
                        [=](Vars v) {
                          // Not of a leaf, where both ways back are one op.
                          const Var x = reshape(v[0], v[0].shape());
                          const ResampledNorm both = resampled_group_norm(x, v[1], v[2], norm, params);
                          return add(both.normalised, both.input, 1.0, 0.5);
                        },
                    .naive =
                        [=](const Inputs& v) {
                          Values sum =
                              naive::resample(naive::group_norm(v[0], v[1], v[2], nullptr, norm), params);
                          const Values input = naive::resample(v[0], params);
                          for (std::size_t i = 0; i < sum.data.size(); ++i)
                            sum.data[i] += 0.5 * input.data[i];
                          return sum;
                        },
                    .affine = false,
                    .bf16_value = kThreeRoundings,
                    .bf16_gradient = kThreeRoundings});
  }
}

void add_resampling(std::vector<OpRow>& rows, const std::string& name, const ResampleParams& params,
                    std::initializer_list<Shape> shapes) {
  for (const Shape& s : shapes)
    rows.push_back({.name = text_of("resample ", name, ' ', s),
                    .op = "resample",
                    .inputs = {{s}},
                    .build = [params](Vars v) { return resample(v[0], params); },
                    .naive = [params](const Inputs& v) { return naive::resample(v[0], params); },
                    .f32 = {3e-7}});
}

void add_resampling(std::vector<OpRow>& rows) {
  for (const std::vector<int>& kernel :
       std::vector<std::vector<int>>{{1, 3, 3, 1}, {1, 1}, {1, 2, 1}, {1, 2, 3, 5}, {4, 1, 2}}) {
    std::string taps;
    for (const int tap : kernel) taps += ' ' + std::to_string(tap);
    add_resampling(rows, "up" + taps, upsample_params(kernel), {{1, 1, 1, 1}, {2, 5, 5, 3}});
    add_resampling(rows, "down" + taps, downsample_params(kernel),
                   {{1, 2, 2, 1}, {2, 6, 6, 5}, {1, 7, 7, 3}});
    add_resampling(rows, "before a convolution" + taps, conv_downsample_params(kernel),
                   {{1, 1, 1, 1}, {2, 6, 6, 5}});
    add_resampling(rows, "after a convolution" + taps, upsample_conv_params(kernel), {{1, 9, 9, 3}});
  }
  const std::vector<int> paper = {1, 3, 3, 1};
  add_resampling(rows, "up within a network", upsample_params(paper), {{1, 16, 16, 128}});
  add_resampling(rows, "down within a network", downsample_params(paper), {{1, 32, 32, 128}});
  add_resampling(rows, "zero insertion", {2, 1, 0, -1, {1.0}}, {{1, 1, 1, 1}, {2, 5, 5, 7}});
  add_resampling(rows, "3/2 with a crop", {3, 2, 2, -1, {0.2, 0.5, -0.3}}, {{1, 5, 5, 3}});
  add_resampling(rows, "oblong image", {2, 1, 1, 1, {0.5, 1.0, 0.5}}, {{2, 3, 7, 5}});
  add_resampling(rows, "5x5 means", {1, 1, 2, 2, std::vector<double>(5, 0.2)}, {{1, 1, 1, 1}, {2, 7, 3, 5}});
  add_resampling(rows, "16 taps", {1, 1, 8, 7, std::vector<double>(16, 1.0 / 16)}, {{1, 5, 5, 2}});
}

}  // namespace

std::vector<OpRow> op_table() {
  std::vector<OpRow> rows;
  for (const Shape& shape : kPlainShapes) add_elementwise(rows, shape);
  for (const Shape& shape : kPlainShapes) add_activations(rows, shape);
  add_channel_ops(rows);
  add_products(rows);
  add_tangent_ops(rows);
  add_convolutions(rows);
  add_normalisations(rows);
  add_two_inputs(rows);
  add_resampled_norms(rows);
  add_resampling(rows);
  add_classifier_ops(rows);
  add_refine_ops(rows);
  return rows;
}

}  // namespace sgm
