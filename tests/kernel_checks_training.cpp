#include <cmath>
#include <deque>
#include <limits>
#include <numeric>
#include <string>

#include "kernel_checks.h"
#include "kernels/training.h"

namespace sgm {
namespace {

/// The noise of a batch, [n, per].
std::vector<double> drawn_noise(const NoiseKey& key, std::int64_t n, std::int64_t per) {
  std::vector<double> z;
  for (std::int64_t i = 0; i < n * per; ++i) {
    const std::int64_t e = i % per;
    float four[4];
    normals_of(philox(key, static_cast<std::uint32_t>(i / per), static_cast<std::uint32_t>(e / 4)), four);
    z.push_back(four[e % 4]);
  }
  return z;
}

void check_residual_loss(Context& context, DType dtype) {
  for (const auto& [n, per] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 13}, {2, 1021}})
    for (const auto& [mean, drawn] : {std::pair{true, false}, {false, false}, {true, true}}) {
      const NoiseKey key{7, Purpose::noise, 3, 5};
      const std::vector<double> net = normals(n * per, 1, dtype),
                                z = drawn ? drawn_noise(key, n, per) : normals(n * per, 2, dtype),
                                a = random_values(n, 3), b = random_values(n, 4),
                                weight = random_values(n, 5);
      const Guarded pn(context, net, dtype), pz(context, z, dtype), pa(context, a, DType::f64),
          pb(context, b, DType::f64), pw(context, weight, DType::f64), loss(context, n, DType::f64),
          total(context, 1, DType::f64), dnet(context, n * per, dtype);
      const NoiseOperand noise{key, drawn ? ConstBuffer{} : pz.buffer()};
      run(ResidualLoss{pn.buffer(), noise, pa.buffer(), pb.buffer(), pw.buffer(), loss.buffer(),
                       total.buffer(), dnet.buffer(), n, per, mean},
          context);
      const double reduction = mean ? 1.0 / static_cast<double>(per) : 0.5;
      std::vector<double> losses(static_cast<std::size_t>(n));
      const std::vector<double> gradient = map(net, [&](double v, std::size_t i) {
        const std::size_t image = i / static_cast<std::size_t>(per);
        const double residual = a[image] * v + b[image] * z[i];
        losses[image] += weight[image] * reduction * residual * residual;
        return 2.0 * weight[image] * reduction * residual * a[image] / static_cast<double>(n);
      });
      expect_close(loss.values(), losses, {1e-13});
      const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
      expect_close(total.values(), std::vector<double>{sum / static_cast<double>(n)}, {1e-13}, "mean");
      expect_close(dnet.values(), gradient, roundings(dtype));
    }
}

/// A tensor of the list with its optimiser state. `skip` elements before it belong to nobody: an odd number
/// takes 16-byte accesses away.
struct TestTensor {
  std::int64_t n, skip;
  DType p_type, g_type;
  bool has_gradient;
  std::vector<double> p, m, v, ema, g;
  Guarded dp, dm, dv, dema, dlow, dg;

  TestTensor(Context& context, std::int64_t size, std::int64_t offset, DType type, DType gradient_type,
             bool with_gradient, std::uint32_t stream)
      : n(size),
        skip(offset),
        p_type(type),
        g_type(gradient_type),
        has_gradient(with_gradient),
        p(normals(n + skip, stream, p_type)),
        m(normals(n + skip, stream + 1, p_type)),
        v(map(normals(n + skip, stream + 2, p_type), [](double x, auto) { return std::abs(x); })),
        ema(normals(n + skip, stream + 3, p_type)),
        g(normals(n + skip, stream + 4, g_type)),
        dp(context, p, p_type, true),
        dm(context, m, p_type, true),
        dv(context, v, p_type, true),
        dema(context, ema, p_type, true),
        dlow(context, std::vector<double>(p.size(), 0.5), DType::bf16, true),
        dg(context, g, g_type) {}

  Buffer at(const Guarded& operand) const {
    const Buffer all = operand.buffer();
    return {static_cast<std::byte*>(all.data) + static_cast<std::size_t>(skip) * size_of(all.dtype),
            all.dtype};
  }
  bool has_low() const { return p_type == DType::f32 && skip == 0; }
  ParameterList::Entry entry(double g_scale) const {
    return {at(dp),
            at(dm),
            at(dv),
            at(dema),
            has_low() ? at(dlow) : Buffer{},
            has_gradient ? ConstBuffer(at(dg)) : ConstBuffer{},
            g_scale,
            n,
            0};
  }
};

constexpr double kGradScale = 0.5;

/// Tensors of every size that chunks are likely to get wrong, in one list: one without a gradient, one empty,
/// some at odd addresses and, beside bf16, gradients of both types.
struct TestModel {
  std::deque<TestTensor> tensors;
  Tensor table;
  ParameterList list{};
  std::vector<ParameterList::Entry> entries;

  /// Tensors number first to last - 1 of it.
  ParameterList part(std::int64_t first, std::int64_t last) const {
    ParameterList some{.first_chunk = entries[static_cast<std::size_t>(first)].first_chunk};
    for (std::int64_t i = first; i < last; ++i) {
      ParameterList::Entry entry = entries[static_cast<std::size_t>(i)];
      some.append(entry);
    }
    some.entries = list.entries + first;
    return some;
  }

  TestModel(Context& context, DType dtype) {
    constexpr std::int64_t kChunk = ParameterList::kChunk;
    struct Row {
      std::int64_t n, skip;
      bool has_gradient, low_gradient;
    };
    for (const Row& row :
         {Row{1, 0, true, true}, Row{13, 0, true, true}, Row{kChunk - 1, 0, true, false},
          Row{kChunk, 1, true, true}, Row{5, 0, false, true}, Row{2 * kChunk + 3, 0, true, true},
          Row{0, 0, true, true}, Row{kChunk + 1, 3, true, false}, Row{kChunk, 0, true, true},
          Row{kChunk + 8, 0, false, true}, Row{48, 0, true, true}}) {
      const DType type = parameter_type(dtype), gradient = row.low_gradient ? dtype : type;
      tensors.emplace_back(context, row.n, row.skip, type, gradient, row.has_gradient,
                           10 * static_cast<std::uint32_t>(tensors.size()));
      entries.push_back(tensors.back().entry(kGradScale));
      list.append(entries.back());
    }
    table = Tensor::table(context, std::span<const ParameterList::Entry>(entries));
    list.entries = reinterpret_cast<const ParameterList::Entry*>(table.data<double>());
  }
};

void check_gradient_norm(Context& context, DType dtype) {
  const TestModel model(context, dtype);
  const std::int64_t all = model.list.chunks;
  const Guarded y(context, 1, DType::f64), again(context, 1, DType::f64), squares(context, all, DType::f64);
  run(GradientNorm{model.list, squares.buffer(), all, y.buffer()}, context);
  double expected = 0;
  for (const TestTensor& t : model.tensors)
    for (std::size_t i = static_cast<std::size_t>(t.skip); t.has_gradient && i < t.g.size(); ++i)
      expected += kGradScale * t.g[i] * kGradScale * t.g[i];
  expect_close(y.values(), std::vector<double>{expected}, {1e-13});
  const Guarded total(context, std::vector<double>{0.5}, DType::f64, true);
  for (int i = 0; i < 2; ++i) {
    run(GradientNorm{model.list, squares.buffer(), all, again.buffer(), total.buffer()}, context);
    EXPECT_EQ(y.values(), again.values());
  }
  // The same from each tensor in a list of its own, the last first.
  const Guarded parts(context, all, DType::f64);
  for (std::int64_t i = model.list.count; i-- > 0;)
    run(GradientNorm{model.part(i, i + 1), parts.buffer(), all}, context);
  EXPECT_EQ(parts.values(), squares.values());
  run(GradientNorm{{}, parts.buffer(), all, again.buffer()}, context);
  EXPECT_EQ(y.values(), again.values());
  EXPECT_EQ(total.values()[0], 0.5 + y.values()[0] + y.values()[0]);
}

/// The norm of one tensor.
double norm_of(Context& context, const std::vector<double>& gradient, DType dtype, double g_scale = 1.0) {
  const Guarded g(context, gradient, dtype), y(context, 1, DType::f64);
  const std::int64_t chunks = ParameterList::chunks_of(std::ssize(gradient));
  const Guarded squares(context, chunks, DType::f64);
  const auto n = static_cast<std::int64_t>(gradient.size());
  ParameterList::Entry entry{{}, {}, {}, {}, {}, g.buffer(), g_scale, n, 0};
  ParameterList list{};
  list.append(entry);
  const Tensor table = Tensor::table(context, std::span<const ParameterList::Entry>(&entry, 1));
  list.entries = reinterpret_cast<const ParameterList::Entry*>(table.data<double>());
  run(GradientNorm{list, squares.buffer(), chunks, y.buffer()}, context);
  return y.values()[0];
}

void check_gradient_norm_extremes(Context& context, DType dtype) {
  std::vector<double> x = normals(100'003, 1, dtype);
  x[0] = rounded(1e4, dtype);  // must not swallow the others
  EXPECT_NEAR(norm_of(context, x, dtype), dot(x, x), 1e-12 * dot(x, x));
  // Squares beyond the range of f32, on both sides.
  EXPECT_EQ(norm_of(context, {0x1p80, 0x1p80}, dtype), 0x1p161);
  EXPECT_EQ(norm_of(context, {0x1p-80, 0x1p-80}, dtype, 0.5), 0x1p-161);
  EXPECT_EQ(norm_of(context, {}, dtype), 0.0);
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(norm_of(context, {1.0, -infinity}, dtype), infinity);
  x[70'000] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(norm_of(context, x, dtype)));
}

struct AdamCase {
  double squared_norm, grad_clip, weight_decay;
};

void check_adam_case(Context& context, DType dtype, const AdamCase& c) {
  const TestModel model(context, dtype);
  const AdamSchedule now{1e-2, 0.19, 0.0199, 0.999};
  const Tensor schedule = Tensor::table(context, std::span(&now, 1));
  const Guarded norm(context, std::vector<double>{c.squared_norm}, DType::f64);
  constexpr std::int64_t kCut = 6;
  for (const ParameterList& part : {model.part(0, kCut), model.part(kCut, model.list.count)})
    run(AdamUpdate{part, reinterpret_cast<const AdamSchedule*>(schedule.data<double>()), norm.buffer(),
                   c.grad_clip, 0.9, 0.99, 1e-8, c.weight_decay},
        context);
  const double clip = c.grad_clip < 0 ? 1.0 : std::min(1.0, c.grad_clip / (std::sqrt(c.squared_norm) + 1e-6));
  for (const TestTensor& t : model.tensors) {
    SCOPED_TRACE(std::to_string(t.n) + " elements");
    if (!t.has_gradient || !std::isfinite(c.squared_norm)) {
      EXPECT_EQ(t.dp.values(), t.p);
      EXPECT_EQ(t.dm.values(), t.m);
      EXPECT_EQ(t.dv.values(), t.v);
      EXPECT_EQ(t.dema.values(), t.ema);
      EXPECT_EQ(t.dlow.values(), std::vector<double>(t.p.size(), 0.5));
      continue;
    }
    std::vector<double> p = t.p, m = t.m, v = t.v, ema = t.ema;
    for (std::size_t i = static_cast<std::size_t>(t.skip); i < p.size(); ++i) {
      const double grad = clip * kGradScale * t.g[i] + c.weight_decay * p[i];
      m[i] = 0.9 * m[i] + 0.1 * grad;
      v[i] = 0.99 * v[i] + 0.01 * grad * grad;
      p[i] -= 1e-2 * (m[i] / 0.19) / (std::sqrt(v[i] / 0.0199) + 1e-8);
      ema[i] -= 0.001 * (ema[i] - p[i]);
    }
    expect_close(t.dm.values(), m, roundings(t.p_type), "m");
    expect_close(t.dv.values(), v, roundings(t.p_type), "v");
    expect_close(t.dp.values(), p, roundings(t.p_type), "p");
    expect_close(t.dema.values(), ema, roundings(t.p_type), "ema");
    EXPECT_EQ(t.dlow.values(),
              t.has_low() ? rounded(t.dp.values(), DType::bf16) : std::vector<double>(t.p.size(), 0.5));
  }
}

void check_adam_update(Context& context, DType dtype) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const AdamCase& c :
       {AdamCase{49.0, 1.0, 0.1}, AdamCase{0.25, 1.0, 0.0}, AdamCase{49.0, -1.0, 0.0},
        AdamCase{49.0, 0.0, 0.0}, AdamCase{infinity, 1.0, 0.1}, AdamCase{std::nan(""), -1.0, 0.1}}) {
    SCOPED_TRACE(std::to_string(c.squared_norm) + " clipped to " + std::to_string(c.grad_clip));
    check_adam_case(context, dtype, c);
  }
}

}  // namespace

std::vector<KernelRow> training_kernels() {
  return {{"ResidualLoss", check_residual_loss},
          {"GradientNorm",
           [](Context& context, DType dtype) {
             check_gradient_norm(context, dtype);
             check_gradient_norm_extremes(context, dtype);
           }},
          {"AdamUpdate", check_adam_update}};
}

}  // namespace sgm
