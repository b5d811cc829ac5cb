// The convolutions of a U-Net, as this program runs them, beside oneDNN's own direct convolution in the
// layouts it likes best: forward, gradient in the input, gradient in the weights.
//   bench_conv CONFIG.toml --batch N --precision f32|bf16 [--json FILE]

#include <CLI/CLI.hpp>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.hpp>

#include "backend/cpu/onednn_compat.h"
#include "bench/timing.h"
#include "core/settle_process.h"
#include "kernels/conv.h"
#include "sgm/core/config.h"
#include "sgm/tensor/math.h"

namespace sgm::bench {
namespace {

struct Shape4 {
  int c, k, hw, filter;
  auto operator<=>(const Shape4&) const = default;
};

/// The network's 3x3 and 1x1 convolutions of more than a handful of channels, with how often each occurs.
std::map<Shape4, int> convolutions_of(const Config& config) {
  std::map<Shape4, int> counts;
  const ModelConfig& m = config.model;
  const auto attends = [&](int hw) {
    return std::find(m.attn_resolutions.begin(), m.attn_resolutions.end(), hw) != m.attn_resolutions.end();
  };
  const auto block = [&](int c, int k, int hw, bool resampled) {
    ++counts[{c, k, hw, 3}];
    ++counts[{k, k, hw, 3}];
    if (c != k || resampled) ++counts[{c, k, hw, 1}];
  };
  const auto attention = [&](int c, int hw) {
    ++counts[{c, 3 * c, hw, 1}];
    ++counts[{c, c, hw, 1}];
  };
  std::vector<int> skips = {m.nf};
  int c = m.nf;
  const int levels = static_cast<int>(m.ch_mult.size());
  for (int l = 0; l < levels; ++l) {
    const int hw = config.data.image_size >> l, k = m.nf * m.ch_mult[static_cast<std::size_t>(l)];
    for (int i = 0; i < m.num_res_blocks; ++i) {
      block(c, k, hw, false);
      if (attends(hw)) attention(k, hw);
      skips.push_back(c = k);
    }
    if (l + 1 < levels) {
      block(c, c, hw / 2, true);
      skips.push_back(c);
    }
  }
  const int lowest = config.data.image_size >> (levels - 1);
  block(c, c, lowest, false);
  attention(c, lowest);
  block(c, c, lowest, false);
  for (int l = levels - 1; l >= 0; --l) {
    const int hw = config.data.image_size >> l, k = m.nf * m.ch_mult[static_cast<std::size_t>(l)];
    for (int i = 0; i <= m.num_res_blocks; ++i) {
      block(c + skips.back(), k, hw, false);
      skips.pop_back();
      c = k;
    }
    if (attends(hw)) attention(c, hw);
    if (l > 0) block(c, c, hw * 2, true);
  }
  return counts;
}

using Times = std::map<std::string, double>;  // "forward", "grad_input", "grad_weight" -> seconds

Times time_ours(const Shape4& s, int n, DType type, Context& context) {
  const ConvShape shape{n,        s.hw, s.hw, s.c, s.k,          s.filter,
                        s.filter, s.hw, s.hw, 1,   s.filter / 2, s.filter / 2};
  const auto draw = [&](Shape sizes, DType dtype) {
    return normal(context, sizes, NoiseKey{}, 1.0).to(dtype);
  };
  Tensor x = draw({n, s.hw, s.hw, s.c}, type), w = draw({s.k, s.filter, s.filter, s.c}, DType::f32);
  Tensor y = draw({n, s.hw, s.hw, s.k}, type), b = draw({s.k}, DType::f32);
  const auto time = [](auto&& f) { return best(seconds_of(2, 5, f)); };
  Times times;
  times["forward"] = time([&] {
    run(Conv2d{x.buffer(), {}, w.buffer(), b.buffer(), {}, y.buffer(), shape, 1.0, 0}, context);
  });
  times["forward, weights kept"] = time([&] {
    run(Conv2d{x.buffer(), {}, w.buffer(), b.buffer(), {}, y.buffer(), shape, 1.0, 1}, context);
  });
  times["grad_input"] = time([&] {
    run(Conv2dGradInput{y.buffer(), w.buffer(), x.buffer(), {}, shape, 1.0}, context);
  });
  times["grad_weight"] = time([&] {
    run(Conv2dGradWeight{x.buffer(), {}, y.buffer(), w.buffer(), b.buffer(), shape, 1.0}, context);
  });
  return times;
}

/// oneDNN alone: weights in its own layout already, nothing around the call.
Times time_onednn(const Shape4& s, int n, DType type) {
  using Tag = dnnl::memory::format_tag;
  using Type = dnnl::memory::data_type;
  const Type t = type == DType::bf16 ? Type::bf16 : Type::f32;
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const onednn::Desc x({n, s.c, s.hw, s.hw}, t, Tag::nhwc), y({n, s.k, s.hw, s.hw}, t, Tag::nhwc);
  const onednn::Desc w({s.k, s.c, s.filter, s.filter}, t, Tag::any), b({s.k}, Type::f32, Tag::a);
  const onednn::Desc dw({s.k, s.c, s.filter, s.filter}, Type::f32, Tag::any);
  const int pad = s.filter / 2;
  const onednn::Geometry g{{1, 1}, {0, 0}, {pad, pad}, {pad, pad}};
  const auto forward = onednn::forward_desc(engine, x, w, b, y, g, {});
  const auto data = onednn::backward_data_desc(engine, x, w, y, g, forward, {});
  const auto weights = onednn::backward_weights_desc(engine, x, dw, b, y, g, forward, {});
  const auto memory = [&](const onednn::Desc& desc) { return dnnl::memory(desc, engine); };
  const auto time = [&](const dnnl::primitive& primitive, const std::unordered_map<int, dnnl::memory>& args) {
    return best(seconds_of(2, 5, [&] {
      primitive.execute(stream, args);
      stream.wait();
    }));
  };
  Times times;
  times["forward"] =
      time(dnnl::convolution_forward(forward), {{DNNL_ARG_SRC, memory(forward.src_desc())},
                                                {DNNL_ARG_WEIGHTS, memory(forward.weights_desc())},
                                                {DNNL_ARG_BIAS, memory(forward.bias_desc())},
                                                {DNNL_ARG_DST, memory(forward.dst_desc())}});
  times["forward, weights kept"] = times["forward"];
  times["grad_input"] =
      time(dnnl::convolution_backward_data(data), {{DNNL_ARG_DIFF_SRC, memory(data.diff_src_desc())},
                                                   {DNNL_ARG_WEIGHTS, memory(data.weights_desc())},
                                                   {DNNL_ARG_DIFF_DST, memory(data.diff_dst_desc())}});
  times["grad_weight"] = time(dnnl::convolution_backward_weights(weights),
                              {{DNNL_ARG_SRC, memory(weights.src_desc())},
                               {DNNL_ARG_DIFF_WEIGHTS, memory(weights.diff_weights_desc())},
                               {DNNL_ARG_DIFF_BIAS, memory(weights.diff_bias_desc())},
                               {DNNL_ARG_DIFF_DST, memory(weights.diff_dst_desc())}});
  return times;
}

int run_bench(int argc, char** argv) {
  std::string file, precision = "f32", json;
  int batch = 4;
  CLI::App app{"Convolutions of a network against oneDNN alone"};
  app.add_option("config", file)->required();
  app.add_option("--batch", batch);
  app.add_option("--precision", precision)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--json", json);
  CLI11_PARSE(app, argc, argv);

  const auto context = create_context("cpu");
  const DType type = precision == "bf16" ? DType::bf16 : DType::f32;
  std::printf("%-22s %6s  %-22s %10s %10s %7s\n", "convolution", "count", "pass", "ours GF/s", "oneDNN",
              "ratio");
  Times ours_total, onednn_total;
  double flops = 0;
  for (const auto& [s, count] : convolutions_of(load_config(file))) {
    const Times ours = time_ours(s, batch, type, *context), alone = time_onednn(s, batch, type);
    const double work = 2.0 * batch * s.hw * s.hw * s.c * s.k * s.filter * s.filter;
    flops += count * work;
    const std::string name = std::to_string(s.c) + "->" + std::to_string(s.k) + " " +
                             std::to_string(s.filter) + "x" + std::to_string(s.filter) + " @" +
                             std::to_string(s.hw);
    for (const auto& [pass, seconds] : ours) {
      ours_total[pass] += count * seconds;
      onednn_total[pass] += count * alone.at(pass);
      std::printf("%-22s %6d  %-22s %10.0f %10.0f %7.2f\n", name.c_str(), count, pass.c_str(),
                  work / seconds / 1e9, work / alone.at(pass) / 1e9, alone.at(pass) / seconds);
    }
  }
  nlohmann::json result = {
      {"config", file}, {"batch", batch}, {"precision", precision}, {"device", context->describe()}};
  for (const auto& [pass, seconds] : ours_total) {
    const double ours = flops / seconds / 1e9, alone = flops / onednn_total[pass] / 1e9;
    result["passes"][pass] = {
        {"gflops", ours}, {"onednn_gflops", alone}, {"ratio", ours / alone}, {"seconds", seconds}};
    std::printf("%-29s  %-22s %10.0f %10.0f %7.2f\n", "all", pass.c_str(), ours, alone, ours / alone);
  }
  if (!json.empty()) std::ofstream(json) << result.dump(2) << '\n';
  return 0;
}

}  // namespace
}  // namespace sgm::bench

int main(int argc, char** argv) {
  sgm::settle_process(argv);
  try {
    return sgm::bench::run_bench(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "bench_conv: error: " << error.what() << '\n';
    return 2;
  }
}
