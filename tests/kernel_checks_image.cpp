#include "kernel_checks.h"
#include "kernels/conv.h"
#include "kernels/group_norm.h"
#include "kernels/upfirdn.h"
#include "naive.h"

namespace sgm {
namespace {

struct ConvCase {
  std::int64_t n, h, w, c, k, r, s;
  int stride, pad_begin, pad_end;
  ConvShape shape() const {
    const auto out = [&](std::int64_t in, std::int64_t f) {
      return (in + pad_begin + pad_end - f) / stride + 1;
    };
    return {n, h, w, c, k, r, s, out(h, r), out(w, s), stride, pad_begin, pad_end};
  }
};
// The last is large enough for Winograd's algorithm in f32, and cuts its tiles at the border.
constexpr ConvCase kConvs[] = {{1, 1, 1, 1, 1, 1, 1, 1, 0, 0},
                               {2, 5, 7, 3, 5, 3, 3, 1, 1, 1},
                               {1, 6, 6, 5, 7, 3, 3, 2, 0, 1},
                               {1, 7, 5, 16, 32, 1, 1, 1, 0, 0},
                               {2, 15, 13, 64, 80, 3, 3, 1, 1, 1}};

/// Operands of a convolution; weights representable in the type in which the op multiplies.
struct ConvOperands {
  ConvShape s;
  std::vector<double> x, w, bias, dy;
  Tolerance tolerance;  // of a sum over weights, and over pixels

  ConvOperands(const ConvCase& conv, DType dtype)
      : s(conv.shape()),
        x(normals(s.n * s.h * s.w * s.c, 1, dtype)),
        w(normals(s.k * s.r * s.s * s.c, 2, dtype)),
        bias(normals(s.k, 3, parameter_type(dtype))),
        dy(normals(s.n * s.oh * s.ow * s.k, 4, dtype)),
        tolerance(roundings(dtype, dtype == DType::bf16 ? 2 : 32)) {}
  Shape x_shape() const { return {s.n, s.h, s.w, s.c}; }
  Shape w_shape() const { return {s.k, s.r, s.s, s.c}; }
  Shape y_shape() const { return {s.n, s.oh, s.ow, s.k}; }
};

void check_conv2d(Context& context, DType dtype) {
  for (const ConvCase& conv : kConvs) {
    const ConvOperands o(conv, dtype);
    const ConvShape& s = o.s;
    const std::int64_t size = o.y_shape().numel();
    const Values x{o.x_shape(), o.x}, w{o.w_shape(), o.w}, b{{s.k}, o.bias}, r{o.y_shape(), o.dy};
    const Guarded px(context, o.x, dtype), pw(context, o.w, parameter_type(dtype)),
        pb(context, o.bias, parameter_type(dtype)), pr(context, o.dy, dtype), y(context, size, dtype),
        z(context, size, parameter_type(dtype));
    const Conv2dParams params{s.stride, s.pad_begin, s.pad_end};
    run(Conv2d{px.buffer(), {}, pw.buffer(), pb.buffer(), pr.buffer(), y.buffer(), s, 0.6, 0}, context);
    expect_close(y.values(), naive::conv2d(x, w, &b, &r, params, 0.6).data, o.tolerance, "with residual");
    run(Conv2d{px.buffer(), {}, pw.buffer(), {}, {}, z.buffer(), s, 1.0, 1}, context);
    expect_close(z.values(), naive::conv2d(x, w, nullptr, nullptr, params, 1.0).data, o.tolerance, "plain");
  }
}

void check_conv2d_grad_input(Context& context, DType dtype) {
  for (const ConvCase& conv : kConvs) {
    const ConvOperands o(conv, dtype);
    const ConvShape& s = o.s;
    const Guarded pdy(context, o.dy, dtype), pw(context, o.w, parameter_type(dtype)),
        dx(context, o.x_shape().numel(), dtype);
    run(Conv2dGradInput{pdy.buffer(), pw.buffer(), dx.buffer(), {}, s, 1.0}, context);
    const Values w{o.w_shape(), o.w}, dy{o.y_shape(), o.dy};
    const naive::Image filters(w), out(dy);
    const Values expected = naive::image_of(o.x_shape(), [&](auto n, auto y, auto x, auto c) {
      double sum = 0.0;
      for (std::int64_t i = 0; i < s.r; ++i)
        for (std::int64_t j = 0; j < s.s; ++j) {
          const std::int64_t oy = y + s.pad_begin - i, ox = x + s.pad_begin - j;
          if (oy % s.stride || ox % s.stride) continue;
          for (std::int64_t k = 0; k < s.k; ++k)
            sum += out.at(n, oy / s.stride, ox / s.stride, k) * filters.at(k, i, j, c);
        }
      return sum;
    });
    expect_close(dx.values(), expected.data, o.tolerance);
  }
}

void check_conv2d_grad_weight(Context& context, DType dtype) {
  for (const ConvCase& conv : kConvs)
    for (const bool want_bias : {true, false}) {
      const ConvOperands o(conv, dtype);
      const ConvShape& s = o.s;
      const Guarded px(context, o.x, dtype), pdy(context, o.dy, dtype),
          dw(context, o.w_shape().numel(), parameter_type(dtype)), db(context, s.k, parameter_type(dtype));
      run(
          Conv2dGradWeight{
              px.buffer(), {}, pdy.buffer(), dw.buffer(), want_bias ? db.buffer() : Buffer{}, s, 1.0},
          context);
      const Values x{o.x_shape(), o.x}, dy{o.y_shape(), o.dy};
      const naive::Image in(x), out(dy);
      const Values expected = naive::image_of(o.w_shape(), [&](auto k, auto i, auto j, auto c) {
        double sum = 0.0;
        for (std::int64_t n = 0; n < s.n; ++n)
          for (std::int64_t y = 0; y < s.oh; ++y)
            for (std::int64_t q = 0; q < s.ow; ++q)
              sum += out.at(n, y, q, k) *
                     in.at(n, y * s.stride + i - s.pad_begin, q * s.stride + j - s.pad_begin, c);
        return sum;
      });
      expect_close(dw.values(), expected.data, o.tolerance);
      if (!want_bias) continue;
      std::vector<double> sums(static_cast<std::size_t>(s.k));
      for (std::size_t i = 0; i < o.dy.size(); ++i) sums[i % sums.size()] += o.dy[i];
      expect_close(db.values(), sums, o.tolerance);
    }
}

void check_matmul(Context& context, DType dtype) {
  struct Sizes {
    std::int64_t batch, m, n, k, gap;  // gap: unused elements at the end of every row
  };
  for (const auto& [batch, m, n, k, gap] : {Sizes{1, 1, 1, 1, 0}, {1, 5, 7, 13, 0}, {3, 5, 7, 13, 2}})
    for (const bool trans_a : {false, true})
      for (const bool trans_b : {false, true})
        for (const bool with_bias : {false, true})
          for (const bool accumulate : {false, true}) {
            const std::int64_t ra = trans_a ? k : m, ca = trans_a ? m : k, rb = trans_b ? n : k,
                               cb = trans_b ? k : n;
            const std::int64_t lda = ca + gap, ldb = cb + gap, ldc = n + gap;
            const std::vector<double> a = normals(batch * ra * lda, 1, dtype),
                                      b = normals(batch * rb * ldb, 2, dtype),
                                      bias = normals(n, 3, parameter_type(dtype)),
                                      before = normals(batch * m * ldc, 4, parameter_type(dtype));
            const Guarded pa(context, a, dtype), pb(context, b, dtype),
                pbias(context, bias, parameter_type(dtype)), c(context, before, parameter_type(dtype), true);
            Matmul op{pa.buffer(), pb.buffer(), with_bias ? pbias.buffer() : ConstBuffer{},
                      c.buffer(),  batch,       m,
                      n,           k,           lda,
                      ldb,         ldc,         ra * lda,
                      rb * ldb,    m * ldc,     trans_a,
                      trans_b};
            op.accumulate = accumulate;
            run(op, context);
            std::vector<double> expected = before;
            for (std::int64_t i = 0; i < batch * m * n; ++i) {
              const std::int64_t p = i / (m * n), row = i / n % m, col = i % n;
              double sum = with_bias ? bias[static_cast<std::size_t>(col)] : 0.0;
              for (std::int64_t l = 0; l < k; ++l)
                sum += a[static_cast<std::size_t>(p * ra * lda + (trans_a ? l * lda + row : row * lda + l))] *
                       b[static_cast<std::size_t>(p * rb * ldb + (trans_b ? col * ldb + l : l * ldb + col))];
              double& out = expected[static_cast<std::size_t>((p * m + row) * ldc + col)];
              out = accumulate ? out + sum : sum;
            }
            expect_close(c.values(), expected, roundings(parameter_type(dtype), 8));
          }
}

struct NormCase {
  Shape x;
  std::int64_t groups;
};
const NormCase kNorms[] = {{{1, 1, 1, 4}, 1}, {{2, 3, 5, 6}, 3}, {{1, 9, 9, 132}, 33}};

/// Operands of a normalisation, mean and rstd as its first half leaves them.
struct NormOperands {
  Values x, shift, gamma, beta;
  GroupNormParams params;

  NormOperands(const NormCase& norm, DType dtype)
      : x{norm.x, normals(norm.x.numel(), 1, dtype)},
        shift{{norm.x[0], norm.x[3]}, normals(norm.x[0] * norm.x[3], 2, parameter_type(dtype))},
        gamma{{norm.x[3]}, rounded(random_values(norm.x[3], 3, 1.0, 0.3), parameter_type(dtype))},
        beta{{norm.x[3]}, normals(norm.x[3], 4, parameter_type(dtype))},
        params{static_cast<int>(norm.groups), 1e-6, Activation::swish, 0.25, {3, Purpose::dropout, 1, 4}} {}
  DropoutMask mask() const { return {params.dropout, params.dropout_key}; }
  std::int64_t hw() const { return x.shape[1] * x.shape[2]; }
};

void check_group_norm(Context& context, DType dtype) {
  for (const NormCase& norm : kNorms) {
    const NormOperands o(norm, dtype);
    const DType type = parameter_type(dtype);
    const std::int64_t n = norm.x[0], c = norm.x[3];
    const Guarded x(context, o.x.data, dtype), shift(context, o.shift.data, type),
        gamma(context, o.gamma.data, type), beta(context, o.beta.data, type),
        y(context, norm.x.numel(), dtype), mean(context, n * norm.groups, type),
        rstd(context, n * norm.groups, type);
    run(GroupNorm{x.buffer(), shift.buffer(), gamma.buffer(), beta.buffer(), y.buffer(), mean.buffer(),
                  rstd.buffer(), n, o.hw(), c, norm.groups, o.params.eps, o.params.activation, o.mask()},
        context);
    expect_close(y.values(), naive::group_norm(o.x, o.gamma, o.beta, &o.shift, o.params).data,
                 roundings(dtype, 8));
    const naive::Moments m = naive::moments(o.x, &o.shift, o.params.groups, o.params.eps);
    expect_close(mean.values(), m.mean, {8 * unit_roundoff(type), 8 * unit_roundoff(type), 1.0}, "mean");
    expect_close(rstd.values(), m.rstd, roundings(type, 8), "rstd");
  }
}

void check_group_norm_grad(Context& context, DType dtype) {
  for (const NormCase& norm : kNorms)
    for (const bool all : {true, false}) {
      const NormOperands o(norm, dtype);
      const DType type = parameter_type(dtype);
      const std::int64_t n = norm.x[0], c = norm.x[3];
      const naive::Moments m = naive::moments(o.x, &o.shift, o.params.groups, o.params.eps);
      const std::vector<double> dy = normals(norm.x.numel(), 5, dtype);
      const Guarded x(context, o.x.data, dtype), shift(context, o.shift.data, type),
          gamma(context, o.gamma.data, type), beta(context, o.beta.data, type), mean(context, m.mean, type),
          rstd(context, m.rstd, type), pdy(context, dy, dtype), dx(context, norm.x.numel(), dtype),
          dshift(context, n * c, type), dgamma(context, c, type), dbeta(context, c, type);
      const auto wanted = [all](const Guarded& output) { return all ? output.buffer() : Buffer{}; };
      run(GroupNormGrad{x.buffer(), shift.buffer(), gamma.buffer(), beta.buffer(), mean.buffer(),
                        rstd.buffer(), pdy.buffer(), dx.buffer(), wanted(dshift), wanted(dgamma),
                        wanted(dbeta), n, o.hw(), c, norm.groups, o.params.activation, o.mask()},
          context);
      // du = dL/d(gamma xhat + beta), element by element; then sums of it.
      const naive::Image in(o.x), out(Values{norm.x, dy});
      const std::int64_t per_group = c / norm.groups;
      const double count = static_cast<double>(o.hw() * per_group);
      std::vector<double> sum_u(m.mean.size()), sum_ux(m.mean.size()), beta_grad(static_cast<std::size_t>(c)),
          gamma_grad(static_cast<std::size_t>(c)), shift_grad(static_cast<std::size_t>(n * c));
      const auto each = [&](auto&& f) {
        return naive::image_of(norm.x, [&](auto i, auto y, auto w, auto k) {
          const auto g = static_cast<std::size_t>(i * norm.groups + k / per_group),
                     channel = static_cast<std::size_t>(k);
          const auto sc = static_cast<std::size_t>(i * c + k);
          const double xhat = (in.at(i, y, w, k) + o.shift.data[sc] - m.mean[g]) * m.rstd[g];
          const double keep =
              naive::keep_factor(o.params.dropout, o.params.dropout_key, i, (y * norm.x[2] + w) * c + k);
          const double du =
              keep * dy[static_cast<std::size_t>(((i * norm.x[1] + y) * norm.x[2] + w) * c + k)] *
              naive::activate_grad(o.params.activation, o.gamma.data[channel] * xhat + o.beta.data[channel]);
          return f(g, channel, sc, xhat, du);
        });
      };
      each([&](auto g, auto channel, auto, double xhat, double du) {
        beta_grad[channel] += du, gamma_grad[channel] += du * xhat;
        sum_u[g] += o.gamma.data[channel] * du / count,
            sum_ux[g] += o.gamma.data[channel] * du * xhat / count;
        return 0.0;
      });
      const Values expected = each([&](auto g, auto channel, auto sc, double xhat, double du) {
        const double d = m.rstd[g] * (o.gamma.data[channel] * du - sum_u[g] - xhat * sum_ux[g]);
        shift_grad[sc] += d;
        return d;
      });
      const Tolerance sums = {16 * unit_roundoff(type), 32 * unit_roundoff(type), 1.0};
      expect_close(dx.values(), expected.data, roundings(dtype, 8), "dx");
      if (!all) continue;
      expect_close(dshift.values(), shift_grad, sums, "dshift");
      expect_close(dgamma.values(), gamma_grad, sums, "dgamma");
      expect_close(dbeta.values(), beta_grad, sums, "dbeta");
    }
}

void check_up_fir_dn(Context& context, DType dtype) {
  for (const ResampleParams& params : {upsample_params({1, 3, 3, 1}), downsample_params({1, 2, 3}),
                                       ResampleParams{3, 2, -1, 2, {0.5, -0.25}}}) {
    const Values x{{2, 5, 5, 3}, normals(2 * 5 * 5 * 3, 1, dtype)};
    const Values expected = naive::resample(x, params);
    const Guarded in(context, x.data, dtype), y(context, expected.shape.numel(), dtype);
    UpFirDn op{in.buffer(),
               y.buffer(),
               2,
               5,
               5,
               3,
               expected.shape[1],
               expected.shape[2],
               params.up,
               params.down,
               params.pad0,
               static_cast<int>(params.taps.size()),
               {}};
    std::copy(params.taps.begin(), params.taps.end(), op.taps);
    run(op, context);
    expect_close(y.values(), expected.data, roundings(dtype));
  }
}

}  // namespace

std::vector<KernelRow> image_kernels() {
  return {{"Conv2d", check_conv2d},
          {"Conv2dGradInput", check_conv2d_grad_input},
          {"Conv2dGradWeight", check_conv2d_grad_weight},
          {"Matmul", check_matmul},
          {"GroupNorm", check_group_norm},
          {"GroupNormGrad", check_group_norm_grad},
          {"UpFirDn", check_up_fir_dn}};
}

}  // namespace sgm
