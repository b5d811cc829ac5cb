#include <memory>

#include "kernel_checks.h"
#include "kernels/group_norm.h"
#include "kernels/upfirdn.h"
#include "naive.h"

namespace sgm {
namespace {

struct NormCase {
  Shape x;
  std::int64_t groups, c2;  // c2: channels of the second input
  std::int64_t shift_gap;   // unused elements at the end of every row of shift; -1: no shift
  Activation activation = Activation::swish;
  double dropout = 0.25;
};
// Groups across the inputs' border, one pixel, one sample, layers of real networks, and a group that no
// on-chip memory holds.
const NormCase kNorms[] = {{{1, 1, 1, 4}, 1, 0, 0},
                           {{2, 3, 5, 6}, 3, 3, 0},
                           {{3, 5, 3, 12}, 3, 5, 7, Activation::elu},
                           {{5, 1, 1, 12}, 3, 0, -1, Activation::none, 0.0},
                           {{1, 9, 9, 132}, 33, 0, 4},
                           {{3, 4, 4, 256}, 32, 0, 0, Activation::swish, 0.1},
                           {{1, 16, 16, 384}, 32, 128, 128},
                           {{2, 32, 32, 128}, 32, 0, 0, Activation::swish, 0.0},
                           {{1, 90, 85, 16}, 4, 0, 0},
                           {{2, 70, 80, 24}, 2, 4, -1}};

/// rows of c elements, `gap` times `value` after each.
std::vector<double> with_gaps(const std::vector<double>& rows, std::int64_t c, std::int64_t gap,
                              double value) {
  std::vector<double> result;
  for (auto row = rows.begin(); row != rows.end(); row += c) {
    result.insert(result.end(), row, row + c);
    result.insert(result.end(), static_cast<std::size_t>(gap), value);
  }
  return result;
}

std::vector<double> doubles(const std::vector<long double>& values) { return {values.begin(), values.end()}; }

/// Operands of a normalisation, and its statistics.
struct NormOperands {
  DType type;                     // of parameters and statistics
  std::int64_t n, hw, c, c1, ld;  // c1: channels of the first input; ld: elements from row to row of shift
  Values x, shift, gamma, beta;
  GroupNormParams params;
  naive::Moments moments;

  NormOperands(const NormCase& norm, DType dtype)
      : type(parameter_type(dtype)),
        n(norm.x[0]),
        hw(norm.x[1] * norm.x[2]),
        c(norm.x[3]),
        c1(c - norm.c2),
        ld(c + std::max<std::int64_t>(norm.shift_gap, 0)),
        x{norm.x, normals(norm.x.numel(), 1, dtype)},
        shift{{n, c}, normals(n * c, 2, type, norm.shift_gap < 0 ? 0.0 : 1.0)},
        gamma{{c}, rounded(random_values(c, 3, 1.0, 0.3), type)},
        beta{{c}, normals(c, 4, type)},
        params{
            static_cast<int>(norm.groups), 1e-6, norm.activation, norm.dropout, {3, Purpose::dropout, 1, 4}},
        moments(naive::moments(x, &shift, params.groups, params.eps)) {}

  std::vector<double> part(const std::vector<double>& all, int input) const {
    return input == 0 ? columns(all, c, 0, c1) : columns(all, c, c1, c - c1);
  }
};

/// The operands that both directions read.
struct NormInputs {
  Guarded x, x2, shift, gamma, beta;
  bool has_x2, has_shift;

  NormInputs(Context& context, const NormCase& norm, const NormOperands& o, DType dtype)
      : x(context, o.part(o.x.data, 0), dtype),
        x2(context, o.part(o.x.data, 1), dtype),
        shift(context, with_gaps(o.shift.data, o.c, o.ld - o.c, 1e30), o.type),
        gamma(context, o.gamma.data, o.type),
        beta(context, o.beta.data, o.type),
        has_x2(norm.c2 > 0),
        has_shift(norm.shift_gap >= 0) {}
  template <class Op>
  void put_into(Op& op, const NormCase& norm, const NormOperands& o) const {
    op.x = x.buffer(), op.gamma = gamma.buffer(), op.beta = beta.buffer();
    if (has_x2) op.x2 = x2.buffer();
    if (has_shift) op.shift = shift.buffer();
    op.n = o.n, op.hw = o.hw, op.c = o.c, op.c2 = norm.c2, op.groups = norm.groups, op.shift_ld = o.ld;
    op.activation = norm.activation, op.dropout = {norm.dropout, o.params.dropout_key};
  }
};

void check_group_norm(Context& context, DType dtype) {
  for (const NormCase& norm : kNorms) {
    const NormOperands o(norm, dtype);
    SCOPED_TRACE(testing::Message() << norm.x << ", " << norm.groups << " groups");
    const NormInputs in(context, norm, o, dtype);
    const Guarded y(context, norm.x.numel(), dtype), mean(context, o.n * norm.groups, o.type),
        rstd(context, o.n * norm.groups, o.type), joined(context, norm.c2 ? norm.x.numel() : 0, dtype);
    GroupNorm op{};
    in.put_into(op, norm, o);
    if (norm.c2) op.joined = joined.buffer();
    op.y = y.buffer(), op.mean = mean.buffer(), op.rstd = rstd.buffer(), op.eps = o.params.eps;
    run(op, context);
    expect_close(y.values(), naive::group_norm(o.x, o.gamma, o.beta, &o.shift, o.params).data,
                 roundings(dtype, 8));
    expect_close(mean.values(), o.moments.mean, {8 * unit_roundoff(o.type), 8 * unit_roundoff(o.type), 1.0},
                 "mean");
    expect_close(rstd.values(), o.moments.rstd, roundings(o.type, 8), "rstd");
    EXPECT_EQ(joined.values(), norm.c2 ? o.x.data : std::vector<double>());
  }
}

struct ResampledNormCase {
  Shape x;
  std::int64_t groups;
  ResampleParams params;
  Activation activation = Activation::swish;

  NormCase norm() const { return {x, groups, 0, -1, activation, 0.0}; }
};

/// Odd sizes, layers of real networks, and images that no on-chip memory holds.
std::vector<ResampledNormCase> resampled_norms() {
  const std::vector<int> fir = {1, 3, 3, 1}, mean = {1, 1};
  return {{{1, 2, 2, 4}, 1, upsample_params(mean), Activation::none},
          {{2, 5, 3, 6}, 3, upsample_params(fir)},
          {{3, 6, 4, 12}, 3, downsample_params(mean), Activation::elu},
          {{2, 16, 16, 64}, 32, upsample_params(fir)},
          {{2, 32, 32, 128}, 32, downsample_params(fir)},
          {{1, 90, 86, 16}, 4, downsample_params(fir)}};
}

/// The op of a resampling between shapes.
UpFirDn resampling_of(const ResampleParams& params, const Shape& x, const Shape& y) {
  UpFirDn op{};
  op.n = x[0], op.h = x[1], op.w = x[2], op.c = x[3], op.oh = y[1], op.ow = y[2];
  op.up = params.up, op.down = params.down, op.pad0 = params.pad0;
  op.num_taps = static_cast<int>(params.taps.size());
  std::copy(params.taps.begin(), params.taps.end(), op.taps);
  return op;
}

void check_group_norm_resample(Context& context, DType dtype) {
  for (const ResampledNormCase& each : resampled_norms()) {
    const NormOperands o(each.norm(), dtype);
    SCOPED_TRACE(testing::Message() << each.x << ", " << each.groups << " groups");
    const NormInputs in(context, each.norm(), o, dtype);
    const Values normalised = naive::group_norm(o.x, o.gamma, o.beta, nullptr, o.params);
    const Values y = naive::resample(normalised, each.params), input = naive::resample(o.x, each.params);
    const Guarded py(context, y.shape.numel(), dtype), pinput(context, y.shape.numel(), dtype),
        mean_out(context, o.n * each.groups, o.type), rstd(context, o.n * each.groups, o.type);
    GroupNormResample op{};
    in.put_into(op.norm, each.norm(), o);
    op.norm.mean = mean_out.buffer(), op.norm.rstd = rstd.buffer(), op.norm.eps = o.params.eps;
    op.resample = resampling_of(each.params, each.x, y.shape);
    op.y = py.buffer(), op.input = pinput.buffer();
    run(op, context);
    expect_close(pinput.values(), input.data, roundings(dtype, 8), "input");
    expect_close(py.values(), y.data, roundings(dtype, 16));
    expect_close(mean_out.values(), o.moments.mean,
                 {8 * unit_roundoff(o.type), 8 * unit_roundoff(o.type), 1.0}, "mean");
    expect_close(rstd.values(), o.moments.rstd, roundings(o.type, 8), "rstd");
  }
}

/// What the gradients of a normalisation are, from the formula.
struct NormGradients {
  using Sums = std::vector<long double>;  // more exact than what they judge, which may be double
  std::vector<double> dx;
  Sums dshift, dgamma, dbeta;

  NormGradients(const NormOperands& o, const std::vector<double>& dy)
      : dx(dy.size()), dshift(o.shift.data.size()), dgamma(o.gamma.data.size()), dbeta(o.gamma.data.size()) {
    const std::int64_t per_group = o.c / o.params.groups;
    const double count = static_cast<double>(o.hw * per_group);
    Sums sum_u(o.moments.mean.size()), sum_ux(sum_u.size());
    std::vector<double> xhat(dy.size()), du(dy.size());
    const auto each = [&](auto&& f) {  // f(element, channel, sample and channel, sample and group)
      for (std::size_t i = 0; i < dy.size(); ++i) {
        const auto e = static_cast<std::int64_t>(i), sample = e / (o.hw * o.c), k = e % o.c;
        f(i, static_cast<std::size_t>(k), static_cast<std::size_t>(sample * o.c + k),
          static_cast<std::size_t>(sample * o.params.groups + k / per_group));
      }
    };
    each([&](auto i, auto k, auto sk, auto g) {
      xhat[i] = (o.x.data[i] + o.shift.data[sk] - o.moments.mean[g]) * o.moments.rstd[g];
      const auto e = static_cast<std::int64_t>(i), size = o.hw * o.c;
      du[i] = naive::keep_factor(o.params.dropout, o.params.dropout_key, e / size, e % size) * dy[i] *
              naive::activate_grad(o.params.activation, o.gamma.data[k] * xhat[i] + o.beta.data[k]);
      dbeta[k] += du[i], dgamma[k] += du[i] * xhat[i];
      sum_u[g] += o.gamma.data[k] * du[i] / count, sum_ux[g] += o.gamma.data[k] * du[i] * xhat[i] / count;
    });
    each([&](auto i, auto k, auto sk, auto g) {
      dx[i] =
          static_cast<double>(o.moments.rstd[g] * (o.gamma.data[k] * du[i] - sum_u[g] - xhat[i] * sum_ux[g]));
      dshift[sk] += dx[i];
    });
  }
};

/// The gradient in one input: what it is written to, and what is added on the way.
struct NormInputGrad {
  static constexpr double kFactors[GroupNormGrad::kMaxAddends] = {1.0, -0.375, 0.6};
  std::int64_t c;
  Guarded dx, sums;
  std::vector<double> expected;
  std::vector<std::unique_ptr<Guarded>> others;

  NormInputGrad(Context& context, const NormOperands& o, const NormGradients& exact, int input, int addends,
                DType dtype)
      : c(input == 0 ? o.c1 : o.c - o.c1),
        dx(context, o.n * o.hw * c, dtype),
        sums(context, c, o.type),
        expected(o.part(exact.dx, input)) {
    for (int i = 0; i < addends; ++i) {
      const std::vector<double> values =
          normals(std::ssize(expected), static_cast<std::uint32_t>(10 + 5 * input + i), dtype);
      for (std::size_t e = 0; e < values.size(); ++e) expected[e] += kFactors[i] * values[e];
      others.push_back(std::make_unique<Guarded>(context, values, dtype));
    }
  }
  void put_into(Addend (&addends)[GroupNormGrad::kMaxAddends]) const {
    for (std::size_t i = 0; i < others.size(); ++i) addends[i] = {others[i]->buffer(), kFactors[i]};
  }
  void check(DType dtype, const Tolerance* of_sums) const {
    expect_close(dx.values(), expected, roundings(dtype, 8), "dx");
    if (!of_sums) return;
    NormGradients::Sums total(static_cast<std::size_t>(c));
    for (std::size_t i = 0; i < expected.size(); ++i) total[i % total.size()] += expected[i];
    expect_close(sums.values(), doubles(total), *of_sums, "sums of dx");
  }
};

/// With all outputs and up to three addends, or the gradient in the input alone.
void check_norm_gradients(Context& context, const NormCase& norm, const NormOperands& o, bool all,
                          DType dtype) {
  constexpr double kScale = 0.7, kUntouched = 7.0;
  const std::vector<double> dy = normals(norm.x.numel(), 5, dtype);
  const NormGradients exact(o, map(dy, [](double value, auto) { return kScale * value; }));
  const NormInputs in(context, norm, o, dtype);
  const std::vector<double> none(o.shift.data.size(), kUntouched);
  const Guarded mean(context, o.moments.mean, o.type), rstd(context, o.moments.rstd, o.type),
      pdy(context, dy, dtype), dgamma(context, o.c, o.type), dbeta(context, o.c, o.type),
      dshift(context, with_gaps(none, o.c, o.ld - o.c, kUntouched), o.type, true);
  const NormInputGrad first(context, o, exact, 0, all ? 1 + static_cast<int>(norm.groups % 3) : 0, dtype),
      second(context, o, exact, 1, all ? 1 : 0, dtype);
  GroupNormGrad op{};
  in.put_into(op, norm, o);
  op.mean = mean.buffer(), op.rstd = rstd.buffer(), op.dy = pdy.buffer(), op.dx = first.dx.buffer();
  op.dy_scale = kScale;
  first.put_into(op.addends);
  if (in.has_x2) op.dx2 = second.dx.buffer(), second.put_into(op.addends2);
  if (all) {
    op.dshift = dshift.buffer(), op.dgamma = dgamma.buffer(), op.dbeta = dbeta.buffer();
    op.dx_sums = first.sums.buffer();
    if (in.has_x2) op.dx2_sums = second.sums.buffer();
  }
  run(op, context);
  const Tolerance sums = {16 * unit_roundoff(o.type), 32 * unit_roundoff(o.type), 1.0};
  first.check(dtype, all ? &sums : nullptr);
  if (in.has_x2) second.check(dtype, all ? &sums : nullptr);
  if (!all) return;
  expect_close(dshift.values(), with_gaps(doubles(exact.dshift), o.c, o.ld - o.c, kUntouched), sums,
               "dshift");
  expect_close(dgamma.values(), doubles(exact.dgamma), sums, "dgamma");
  expect_close(dbeta.values(), doubles(exact.dbeta), sums, "dbeta");
}

void check_group_norm_grad(Context& context, DType dtype) {
  for (const NormCase& norm : kNorms) {
    const NormOperands o(norm, dtype);
    for (const bool all : {true, false}) {
      SCOPED_TRACE(testing::Message() << norm.x << ", " << norm.groups << " groups, all " << all);
      check_norm_gradients(context, norm, o, all, dtype);
    }
  }
}

/// The parameters of a resampling's adjoint, from y back to x.
ResampleParams adjoint_of(const ResampleParams& p, const Shape& x, const Shape& y) {
  const auto taps = static_cast<int>(p.taps.size());
  const auto pad1 = static_cast<int>(x[1] * p.up - y[1] * p.down) + p.pad0 - p.up + 1;
  return {p.down, p.up, taps - p.pad0 - 1, pad1, {p.taps.rbegin(), p.taps.rend()}};
}

void check_group_norm_resample_grad(Context& context, DType dtype) {
  constexpr double kScale = 0.7, kInputScale = -0.4;
  for (const ResampledNormCase& each : resampled_norms()) {
    SCOPED_TRACE(testing::Message() << each.x << ", " << each.groups << " groups");
    const NormOperands o(each.norm(), dtype);
    const Shape resampled = naive::resample(o.x, each.params).shape;
    const ResampleParams back = adjoint_of(each.params, each.x, resampled);
    const Values dy{resampled, normals(resampled.numel(), 5, dtype)},
        dinput{resampled, normals(resampled.numel(), 6, dtype)};
    const NormGradients exact(
        o, map(naive::resample(dy, back).data, [](double value, auto) { return kScale * value; }));
    const NormInputs in(context, each.norm(), o, dtype);
    const Guarded mean(context, o.moments.mean, o.type), rstd(context, o.moments.rstd, o.type),
        pdy(context, dy.data, dtype), pdinput(context, dinput.data, dtype), dgamma(context, o.c, o.type),
        dbeta(context, o.c, o.type);
    NormInputGrad first(context, o, exact, 0, static_cast<int>(each.groups % 3), dtype);
    const std::vector<double> by_input = naive::resample(dinput, back).data;
    for (std::size_t i = 0; i < by_input.size(); ++i) first.expected[i] += kInputScale * by_input[i];
    GroupNormResampleGrad op{};
    in.put_into(op.norm, each.norm(), o);
    op.norm.mean = mean.buffer(), op.norm.rstd = rstd.buffer(), op.norm.dx = first.dx.buffer();
    op.norm.dx_sums = first.sums.buffer(), op.norm.dgamma = dgamma.buffer(), op.norm.dbeta = dbeta.buffer();
    op.norm.dy_scale = kScale;
    first.put_into(op.norm.addends);
    op.dy = pdy.buffer(), op.dinput = pdinput.buffer(), op.dinput_scale = kInputScale;
    op.back = resampling_of(back, resampled, each.x);
    run(op, context);
    // What is resampled is rounded before it is summed.
    const Tolerance sums = {16 * unit_roundoff(dtype), 32 * unit_roundoff(dtype), 1.0};
    first.check(dtype, &sums);
    expect_close(dgamma.values(), doubles(exact.dgamma), sums, "dgamma");
    expect_close(dbeta.values(), doubles(exact.dbeta), sums, "dbeta");
  }
}

struct ResampleCase {
  Shape x;
  ResampleParams params;
  double scale = 1.0;
};

/// What networks use, its adjoints, and what they do not use.
std::vector<ResampleCase> resample_cases() {
  const std::vector<int> fir = {1, 3, 3, 1}, box = {1, 1}, odd = {1, 2, 3};
  const std::vector<double> four = {0.5, -0.25, 1.25, 0.75}, two = {0.5, -1.5};
  std::vector<ResampleCase> cases;
  for (const Shape& x : {Shape{1, 1, 1, 1}, Shape{2, 5, 7, 3}, Shape{2, 6, 9, 8}, Shape{1, 11, 6, 24},
                         Shape{1, 16, 16, 128}, Shape{1, 32, 32, 3}})
    for (const std::vector<int>& kernel : {fir, box}) {
      cases.push_back({x, upsample_params(kernel), 0.75});
      cases.push_back({x, conv_downsample_params(kernel)});
      if (x[1] < 2) continue;
      cases.push_back({x, downsample_params(kernel), 0.75});
      cases.push_back({x, upsample_conv_params(kernel)});
    }
  // Taps that are not symmetric, every remainder of the padding, cropping.
  for (int pad = -2; pad < 5; ++pad)
    for (const std::vector<double>& taps : {four, two}) {
      cases.push_back({{1, 5, 6, 8}, {2, 1, pad, 3 - pad, taps}, -0.5});
      cases.push_back({{2, 6, 5, 3}, {1, 2, pad, 2 - pad, taps}, -0.5});
      cases.push_back({{2, 6, 5, 16}, {1, 2, pad, 3 - pad, taps}, -0.5});
      cases.push_back({{1, 6, 7, 8}, {1, 1, pad, 3 - pad, taps}, -0.5});
    }
  cases.push_back({{2, 5, 5, 3}, downsample_params(odd)});
  cases.push_back({{2, 5, 5, 3}, {3, 2, -1, 2, {0.5, -0.25}}});
  cases.push_back({{1, 4, 5, 8}, {3, 2, 4, 5, std::vector<double>(16, 0.125)}, 2.0});
  return cases;
}

void check_up_fir_dn(Context& context, DType dtype) {
  for (const auto& [shape, params, scale] : resample_cases()) {
    SCOPED_TRACE(testing::Message() << shape << " up " << params.up << " down " << params.down << " pad "
                                    << params.pad0 << ' ' << params.pad1 << ' ' << params.taps.size()
                                    << " taps");
    const Values x{shape, normals(shape.numel(), 1, dtype)};
    Values expected = naive::resample(x, params);
    for (double& value : expected.data) value *= scale;
    const Guarded in(context, x.data, dtype), y(context, expected.shape.numel(), dtype);
    UpFirDn op = resampling_of(params, shape, expected.shape);
    op.x = in.buffer(), op.y = y.buffer(), op.scale = scale;
    run(op, context);
    expect_close(y.values(), expected.data, roundings(dtype));
  }
}

}  // namespace

std::vector<KernelRow> image_kernels() {
  return {{"GroupNorm", check_group_norm},
          {"GroupNormResample", check_group_norm_resample},
          {"GroupNormGrad", check_group_norm_grad},
          {"GroupNormResampleGrad", check_group_norm_resample_grad},
          {"UpFirDn", check_up_fir_dn}};
}

}  // namespace sgm
