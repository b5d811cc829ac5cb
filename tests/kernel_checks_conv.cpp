#include <sstream>

#include "kernel_checks.h"
#include "kernels/conv.h"
#include "naive.h"

namespace sgm {
namespace {

struct ConvCase {
  std::int64_t n, h, w, c, k, r, s;
  int stride, pad_begin, pad_end;
  std::int64_t c2 = 0;  // channels of the second input
  int dilation = 1;
  ConvShape shape() const {
    const auto out = [&](std::int64_t in, std::int64_t f) {
      return (in + pad_begin + pad_end - (f - 1) * dilation - 1) / stride + 1;
    };
    return {n, h, w, c, k, r, s, out(h, r), out(w, s), stride, pad_begin, pad_end, c2, dilation};
  }
};
// The last of the undilated 3x3 filters is large enough for Winograd's algorithm, and cuts its tiles at the
// border; multiples of 32 channels are unfolded in bf16; the largest of two inputs is a layer of a real
// network.
constexpr ConvCase kConvs[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0},         {2, 5, 7, 3, 5, 3, 3, 1, 1, 1},
    {1, 6, 6, 5, 7, 3, 3, 2, 0, 1},         {1, 7, 5, 16, 32, 1, 1, 1, 0, 0},
    {3, 4, 5, 32, 64, 3, 3, 1, 1, 1},       {1, 7, 7, 64, 32, 1, 1, 1, 0, 0, 32},
    {2, 15, 13, 64, 80, 3, 3, 1, 1, 1},     {1, 1, 1, 2, 3, 1, 1, 1, 0, 0, 1},
    {2, 3, 5, 24, 20, 1, 1, 1, 0, 0, 8},    {1, 7, 5, 13, 9, 1, 1, 1, 0, 0, 5},
    {1, 8, 8, 64, 48, 1, 1, 1, 0, 0, 32},   {1, 8, 8, 384, 128, 1, 1, 1, 0, 0, 128},
    {2, 7, 5, 16, 24, 3, 3, 1, 2, 2, 0, 2}, {1, 9, 6, 5, 3, 3, 3, 2, 3, 1, 0, 3}};

/// Operands of a convolution; weights representable in the type in which the op multiplies.
struct ConvOperands {
  ConvShape s;
  DType weight_type;
  std::vector<double> x, w, bias, dy;
  Tolerance tolerance;  // of a sum over weights, and over pixels

  ConvOperands(const Context& context, const ConvCase& conv, DType dtype)
      : s(conv.shape()),
        weight_type(context.has_low_weights() ? dtype : parameter_type(dtype)),
        x(normals(s.n * s.h * s.w * s.c, 1, dtype)),
        w(normals(s.k * s.r * s.s * s.c, 2, dtype)),
        bias(normals(s.k, 3, parameter_type(dtype))),
        dy(normals(s.n * s.oh * s.ow * s.k, 4, dtype)),
        tolerance(roundings(dtype, dtype == DType::bf16 ? 2 : 32)) {}
  Shape x_shape() const { return {s.n, s.h, s.w, s.c}; }
  Shape w_shape() const { return {s.k, s.r, s.s, s.c}; }
  Shape y_shape() const { return {s.n, s.oh, s.ow, s.k}; }
  /// What belongs to one input, 0 or 1, of values shaped like the input.
  std::vector<double> part(const std::vector<double>& all, int input) const {
    return input == 0 ? columns(all, s.c, 0, s.c - s.c2) : columns(all, s.c, s.c - s.c2, s.c2);
  }
  template <class B>
  B second(B operand) const {
    return s.c2 ? operand : B{};
  }
};

std::string name_of_case(const ConvShape& s) {
  std::ostringstream text;
  text << s.r << 'x' << s.s << ' ' << s.c - s.c2 << '+' << s.c2 << "->" << s.k;
  return text.str();
}

void check_conv2d(Context& context, DType dtype) {
  for (const ConvCase& conv : kConvs) {
    const ConvOperands o(context, conv, dtype);
    const ConvShape& s = o.s;
    SCOPED_TRACE(name_of_case(s));
    const std::int64_t size = o.y_shape().numel();
    const Values x{o.x_shape(), o.x}, w{o.w_shape(), o.w}, b{{s.k}, o.bias}, r{o.y_shape(), o.dy};
    const Guarded px(context, o.part(o.x, 0), dtype), px2(context, o.part(o.x, 1), dtype),
        pw(context, o.w, o.weight_type), pb(context, o.bias, parameter_type(dtype)), pr(context, o.dy, dtype),
        y(context, size, dtype), z(context, size, parameter_type(dtype));
    const ConstBuffer x2 = o.second<ConstBuffer>(px2.buffer());
    const Conv2dParams params{s.stride, s.pad_begin, s.pad_end, false, s.dilation};
    run(Conv2d{px.buffer(), x2, pw.buffer(), pb.buffer(), pr.buffer(), y.buffer(), s, 0.6, 0}, context);
    expect_close(y.values(), naive::conv2d(x, w, &b, &r, params, 0.6).data, o.tolerance, "with residual");
    run(Conv2d{px.buffer(), x2, pw.buffer(), {}, {}, z.buffer(), s, 1.0, 1}, context);
    expect_close(z.values(), naive::conv2d(x, w, nullptr, nullptr, params, 1.0).data, o.tolerance, "plain");
  }
}

void check_conv2d_grad_input(Context& context, DType dtype) {
  for (const ConvCase& conv : kConvs) {
    const ConvOperands o(context, conv, dtype);
    const ConvShape& s = o.s;
    SCOPED_TRACE(name_of_case(s));
    const Values w{o.w_shape(), o.w}, dy{o.y_shape(), o.dy};
    const naive::Image filters(w), out(dy);
    const std::vector<double> gradient =
        naive::image_of(o.x_shape(), [&](auto n, auto y, auto x, auto c) {
          double sum = 0.0;
          for (std::int64_t i = 0; i < s.r; ++i)
            for (std::int64_t j = 0; j < s.s; ++j) {
              const std::int64_t oy = y + s.pad_begin - i * s.dilation, ox = x + s.pad_begin - j * s.dilation;
              if (oy % s.stride || ox % s.stride) continue;
              for (std::int64_t k = 0; k < s.k; ++k)
                sum += out.at(n, oy / s.stride, ox / s.stride, k) * filters.at(k, i, j, c);
            }
          return sum;
        }).data;
    const std::int64_t pixels = s.n * s.h * s.w;
    for (const double scale : {1.0, 0.6}) {
      const std::vector<double> expected = map(gradient, [=](double v, auto) { return scale * v; });
      // Where both are alike also with the second before the first in memory.
      for (const bool turned : {false, true}) {
        if (turned && s.c != 2 * s.c2) continue;
        const Guarded pdy(context, o.dy, dtype), pw(context, o.w, o.weight_type),
            a(context, pixels * (s.c - s.c2), dtype), b(context, pixels * s.c2, dtype);
        const Guarded &dx = turned ? b : a, &dx2 = turned ? a : b;
        run(Conv2dGradInput{pdy.buffer(), pw.buffer(), dx.buffer(), o.second(dx2.buffer()), s, scale},
            context);
        expect_close(dx.values(), o.part(expected, 0), o.tolerance, "dx");
        expect_close(dx2.values(), o.part(expected, 1), o.tolerance, "dx2");
      }
    }
  }
}

void check_conv2d_grad_weight(Context& context, DType dtype) {
  for (const ConvCase& conv : kConvs) {
    const ConvOperands o(context, conv, dtype);
    const ConvShape& s = o.s;
    SCOPED_TRACE(name_of_case(s));
    const Values x{o.x_shape(), o.x}, dy{o.y_shape(), o.dy};
    const naive::Image in(x), out(dy);
    const std::vector<double> gradient =
        naive::image_of(o.w_shape(), [&](auto k, auto i, auto j, auto c) {
          double sum = 0.0;
          for (std::int64_t n = 0; n < s.n; ++n)
            for (std::int64_t y = 0; y < s.oh; ++y)
              for (std::int64_t q = 0; q < s.ow; ++q)
                sum += out.at(n, y, q, k) * in.at(n, y * s.stride + i * s.dilation - s.pad_begin,
                                                  q * s.stride + j * s.dilation - s.pad_begin, c);
          return sum;
        }).data;
    std::vector<double> sums(static_cast<std::size_t>(s.k));
    for (std::size_t i = 0; i < o.dy.size(); ++i) sums[i % sums.size()] += o.dy[i];
    for (const bool want_bias : {true, false})
      for (const double scale : {1.0, 0.6}) {
        const Guarded px(context, o.part(o.x, 0), dtype), px2(context, o.part(o.x, 1), dtype),
            pdy(context, o.dy, dtype), dw(context, o.w_shape().numel(), dtype),
            db(context, s.k, parameter_type(dtype));
        run(Conv2dGradWeight{px.buffer(), o.second<ConstBuffer>(px2.buffer()), pdy.buffer(), dw.buffer(),
                             want_bias ? db.buffer() : Buffer{}, s, scale},
            context);
        const auto scaled = [=](double value, auto) { return scale * value; };
        expect_close(dw.values(), map(gradient, scaled), o.tolerance, "dweight");
        if (want_bias) expect_close(db.values(), map(sums, scaled), o.tolerance, "dbias");
      }
  }
}

void check_matmul(Context& context, DType dtype) {
  struct Sizes {
    std::int64_t batch, m, n, k, gap;  // gap: unused elements at the end of every row
  };
  for (const auto& [batch, m, n, k, gap] :
       {Sizes{1, 1, 1, 1, 0}, {1, 5, 7, 13, 0}, {3, 5, 7, 13, 2}, {2, 32, 32, 32, 2}})
    for (const bool trans_a : {false, true})
      for (const bool trans_b : {false, true})
        for (const bool with_bias : {false, true})
          for (const bool accumulate : {false, true}) {
            const double alpha = trans_a == accumulate ? 1.0 : 0.6;
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
            op.alpha = alpha;
            run(op, context);
            std::vector<double> expected = before;
            for (std::int64_t i = 0; i < batch * m * n; ++i) {
              const std::int64_t p = i / (m * n), row = i / n % m, col = i % n;
              double sum = 0.0;
              for (std::int64_t l = 0; l < k; ++l)
                sum += a[static_cast<std::size_t>(p * ra * lda + (trans_a ? l * lda + row : row * lda + l))] *
                       b[static_cast<std::size_t>(p * rb * ldb + (trans_b ? col * ldb + l : l * ldb + col))];
              sum = alpha * sum + (with_bias ? bias[static_cast<std::size_t>(col)] : 0.0);
              double& out = expected[static_cast<std::size_t>((p * m + row) * ldc + col)];
              out = accumulate ? out + sum : sum;
            }
            expect_close(c.values(), expected, roundings(parameter_type(dtype), 8));
          }
}

}  // namespace

std::vector<KernelRow> conv_kernels() {
  return {{"Conv2d", check_conv2d},
          {"Conv2dGradInput", check_conv2d_grad_input},
          {"Conv2dGradWeight", check_conv2d_grad_weight},
          {"Matmul", check_matmul}};
}

}  // namespace sgm
