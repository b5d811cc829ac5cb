// Convolutions and matrix products of the CUDA backend against the CPU's.

#include <stdlib.h>

#include <filesystem>

#include "backend/cuda/create.h"
#include "backend/cuda/cuda_context.h"
#include "check.h"
#include "expect_error.h"
#include "kernels/conv.h"
#include "temp_folder.h"

namespace sgm {
namespace {

// Some numbers are smaller where processors must compute what is meant for GPUs.
#ifdef SGM_EMULATE_CUDA
constexpr std::int64_t kBatch = 1, kLongSum = 1031;
#else
constexpr std::int64_t kBatch = 4, kLongSum = 131072;
#endif

/// f32 products are not rounded to TF32 (2^-11); long sums wander by their square root. bf16 outputs are
/// rounded once, twice where a second product adds to the first, and once more for the bias.
Tolerance tolerance_of(DType dtype) {
  return dtype == DType::f32 ? Tolerance{5e-6, 5e-5} : Tolerance{0x1p-8, 3 * 0x1p-8};
}

std::string text_of(const ConvShape& s) {
  std::ostringstream text;
  text << s.n << 'x' << s.h << 'x' << s.w << 'x' << s.c - s.c2 << '+' << s.c2 << " -> " << s.k << ", filter "
       << s.r << ", stride " << s.stride << ", pad " << s.pad_begin << ", " << s.pad_end;
  return text.str();
}

ConvShape conv(std::int64_t n, std::int64_t size, std::int64_t c, std::int64_t k, std::int64_t filter,
               int stride = 1, int pad_begin = 1, int pad_end = 1, std::int64_t c2 = 0) {
  const std::int64_t h = size, w = size + 2 * (size % 2);  // odd ones are not square
  const auto out = [&](std::int64_t in) { return (in + pad_begin + pad_end - filter) / stride + 1; };
  return {n, h, w, c + c2, k, filter, filter, out(h), out(w), stride, pad_begin, pad_end, c2};
}

const std::vector<ConvShape>& convolutions() {
  static const std::vector<ConvShape> shapes = {conv(kBatch, 32, 128, 128, 3),
                                                conv(kBatch, 16, 256, 256, 3),
                                                conv(2, 33, 128, 256, 3, 2, 0, 0),
                                                conv(2, 32, 64, 64, 3, 2, 0, 1),
                                                conv(2, 31, 64, 64, 3, 1, 2, 2),
                                                conv(kBatch, 32, 3, 128, 3),
                                                conv(2, 33, 3, 128, 3, 2, 0, 0),
                                                conv(kBatch, 32, 128, 3, 3),
                                                conv(3, 7, 5, 7, 3),
                                                conv(1, 5, 20, 12, 3),
                                                conv(1, 4, 512, 256, 3),
                                                conv(kBatch, 16, 256, 768, 1, 1, 0, 0),
                                                conv(kBatch, 32, 3, 128, 1, 1, 0, 0),
                                                conv(3, 7, 5, 7, 1, 1, 0, 0),
                                                conv(kBatch, 16, 256, 256, 1, 1, 0, 0, 128),
                                                conv(3, 5, 6, 9, 1, 1, 0, 0, 10)};
  return shapes;
}

class CudaLibrary : public testing::Test {
 protected:
  void SetUp() override {
    const std::string problem = why_no_cuda();
    if (!problem.empty()) GTEST_SKIP() << problem;
    setenv("XDG_CACHE_HOME", cache_.path().c_str(), 1);  // measured anew, and nobody's choices changed
    gpu_ = create_context("cuda");
  }

  Context& gpu() { return *gpu_; }
  Context& cpu() { return *cpu_; }

  /// The same numbers on both devices, representable in `dtype`: in that type on the GPU, in f32 on the CPU.
  struct Pair {
    Tensor gpu, cpu;
  };
  Pair values(const Shape& shape, DType dtype, double std = 1.0) {
    const std::vector<double> host = rounded(random_values(shape.numel(), ++stream_, 0.0, std), dtype);
    return {tensor_of(gpu(), host, shape, dtype), tensor_of(cpu(), host, shape, DType::f32)};
  }
  Pair outputs(const Shape& shape, DType dtype) {
    return {Tensor::full(gpu(), shape, std::nan(""), dtype),
            Tensor::full(cpu(), shape, std::nan(""), DType::f32)};
  }
  static void expect_equal(const Pair& pair, const Tolerance& tolerance, const std::string& what) {
    expect_close(pair.gpu.to_host_f64(), pair.cpu.to_host_f64(), tolerance, what);
  }

  TempFolder cache_;

 private:
  std::unique_ptr<Context> gpu_, cpu_ = create_context("cpu");
  std::uint32_t stream_ = 0;
};

ConstBuffer read(const Tensor& tensor) { return tensor.buffer(); }

TEST_F(CudaLibrary, ForwardConvolutions) {
  struct Epilogue {
    bool bias, residual;
    double scale;
    bool scaled_bias = false;  // given by the caller
  };
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const ConvShape& s : convolutions()) {
      const Pair x = values({s.n, s.h, s.w, s.c - s.c2}, dtype), x2 = values({s.n, s.h, s.w, s.c2}, dtype),
                 w = values({s.k, s.r, s.s, s.c}, dtype,
                            1.0 / std::sqrt(static_cast<double>(s.c * s.r * s.s))),
                 b = values({s.k}, DType::f32), r = values({s.n, s.oh, s.ow, s.k}, dtype);
      for (const Epilogue e :
           {Epilogue{false, false, 1.0}, Epilogue{false, false, 0.7}, Epilogue{true, false, 1.0},
            Epilogue{true, true, 0.7}, Epilogue{true, false, 0.7}, Epilogue{false, true, 0.7},
            Epilogue{true, true, 0.7, true}}) {
        const Pair y = outputs({s.n, s.oh, s.ow, s.k}, dtype);
        std::vector<double> scaled = b.cpu.to_host_f64();
        for (double& value : scaled) value *= e.scale;
        const Tensor low_bias = tensor_of(gpu(), scaled, {s.k}, DType::bf16);
        const auto on = [&](Tensor Pair::*device, Context& context) {
          Tensor out = y.*device;
          Conv2d op{read(x.*device),
                    s.c2 ? read(x2.*device) : ConstBuffer{},
                    read(w.*device),
                    e.bias ? read(b.*device) : ConstBuffer{},
                    e.residual ? read(r.*device) : ConstBuffer{},
                    out.buffer(),
                    s,
                    e.scale,
                    0};
          if (e.scaled_bias && !context.is_cpu()) op.scaled_bias = low_bias.buffer();
          run(op, context);
        };
        on(&Pair::gpu, gpu());
        on(&Pair::cpu, cpu());
        std::ostringstream what;
        what << text_of(s) << " in " << dtype << (e.bias ? ", bias" : "") << (e.residual ? ", residual" : "")
             << ", scale " << e.scale;
        expect_equal(y, tolerance_of(dtype), what.str());
      }
    }
}

TEST_F(CudaLibrary, GradientsOfConvolutions) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const ConvShape& s : convolutions())
      for (const double scale : {1.0, 0.7}) {
        const Shape first{s.n, s.h, s.w, s.c - s.c2}, second{s.n, s.h, s.w, s.c2}, filter{s.k, s.r, s.s, s.c};
        const Pair x = values(first, dtype), x2 = values(second, dtype), w = values(filter, dtype),
                   dy = values({s.n, s.oh, s.ow, s.k}, dtype);
        const Pair dx = outputs(first, dtype), dx2 = outputs(second, dtype), dw = outputs(filter, dtype),
                   db = outputs({s.k}, DType::f32);
        const auto on = [&](Tensor Pair::*device, Context& context) {
          Tensor a = dx.*device, a2 = dx2.*device, c = dw.*device, d = db.*device;
          run(Conv2dGradInput{read(dy.*device), read(w.*device), a.buffer(), s.c2 ? a2.buffer() : Buffer{}, s,
                              scale},
              context);
          run(Conv2dGradWeight{read(x.*device), s.c2 ? read(x2.*device) : ConstBuffer{}, read(dy.*device),
                               c.buffer(), d.buffer(), s, scale},
              context);
        };
        on(&Pair::gpu, gpu());
        on(&Pair::cpu, cpu());
        const std::string what = text_of(s) + " in " + std::string(name_of(dtype)) + ", gradient in ";
        expect_equal(dx, tolerance_of(dtype), what + "x");
        if (s.c2) expect_equal(dx2, tolerance_of(dtype), what + "x2");
        expect_equal(dw, tolerance_of(dtype), what + "weight");
        expect_equal(db, {1e-5, 1e-4}, what + "bias");
      }
}

TEST_F(CudaLibrary, ConvolutionsOfBf16ThatKeepF32) {
  for (const ConvShape& s :
       {conv(kBatch, 32, 128, 3, 3), conv(2, 64, 256, 3, 3), conv(kBatch, 16, 64, 3, 1, 1, 0, 0)}) {
    const Pair x = values({s.n, s.h, s.w, s.c}, DType::bf16), w = values({s.k, s.r, s.s, s.c}, DType::bf16),
               b = values({s.k}, DType::f32), y = outputs({s.n, s.oh, s.ow, s.k}, DType::f32);
    const auto on = [&](Tensor Pair::*device, Context& context) {
      Tensor out = y.*device;
      run(Conv2d{read(x.*device), {}, read(w.*device), read(b.*device), {}, out.buffer(), s, 1.0, 0},
          context);
    };
    on(&Pair::gpu, gpu());
    on(&Pair::cpu, cpu());
    expect_equal(y, {5e-6, 5e-5}, text_of(s));
  }
}

TEST_F(CudaLibrary, RepeatsToTheLastBitAndInCapturedGraphs) {
  for (const ConvShape& s : {conv(kBatch, 16, 256, 256, 3), conv(kBatch, 16, 256, 256, 1, 1, 0, 0)}) {
    const Pair x = values({s.n, s.h, s.w, s.c}, DType::bf16),
               dy = values({s.n, s.oh, s.ow, s.k}, DType::bf16);
    Tensor dw = Tensor::empty(gpu(), {s.k, s.r, s.s, s.c}, DType::bf16);
    const auto once = [&] {
      run(Conv2dGradWeight{read(x.gpu), {}, read(dy.gpu), dw.buffer(), {}, s, 1.0}, gpu());
    };
    once();
    const std::vector<double> first = dw.to_host_f64();
    std::string why_not;
    const auto replay = gpu().capture(once, &why_not);
    ASSERT_TRUE(replay) << why_not;
    for (int i = 0; i < 5; ++i) {
      dw.fill(std::nan(""));
      i % 2 ? once() : replay->launch();
      EXPECT_EQ(dw.to_host_f64(), first);
    }
  }
}

TEST_F(CudaLibrary, ShapesMayBeNewWhileAGraphIsCaptured) {
  const ConvShape s = conv(2, 9, 48, 40, 3);
  const Pair x = values({s.n, s.h, s.w, s.c}, DType::bf16),
             w = values({s.k, s.r, s.s, s.c}, DType::bf16, 0.05),
             y = outputs({s.n, s.oh, s.ow, s.k}, DType::bf16);
  const auto on = [&](Tensor Pair::*device, Context& context) {
    Tensor out = y.*device;
    run(Conv2d{read(x.*device), {}, read(w.*device), {}, {}, out.buffer(), s, 1.0, 0}, context);
  };
  {
    const ConvShape other = conv(1, 8, 8, 8, 3);  // the library itself must have been used before
    const Pair a = values({1, 8, 8, 8}, DType::bf16), b = values({8, 3, 3, 8}, DType::bf16);
    Tensor out = Tensor::empty(gpu(), {1, 8, 8, 8}, DType::bf16);
    run(Conv2d{read(a.gpu), {}, read(b.gpu), {}, {}, out.buffer(), other, 1.0, 0}, gpu());
  }
  std::string why_not;
  const auto replay = gpu().capture([&] { on(&Pair::gpu, gpu()); }, &why_not);
  ASSERT_TRUE(replay) << why_not;
  replay->launch();
  on(&Pair::cpu, cpu());
  expect_equal(y, tolerance_of(DType::bf16), text_of(s));
  on(&Pair::gpu, gpu());  // now it can be measured
  expect_equal(y, tolerance_of(DType::bf16), text_of(s));
}

TEST_F(CudaLibrary, ChoicesAreKeptInAFile) {
  const ConvShape s = conv(kBatch, 16, 64, 64, 3);
  const Pair x = values({s.n, s.h, s.w, s.c}, DType::bf16), w = values({s.k, s.r, s.s, s.c}, DType::bf16);
  const auto result_of = [&](Context& context) {
    Tensor in = tensor_of(context, x.cpu.to_host_f64(), x.cpu.shape(), DType::bf16);
    Tensor filter = tensor_of(context, w.cpu.to_host_f64(), w.cpu.shape(), DType::bf16);
    Tensor out = Tensor::empty(context, {s.n, s.oh, s.ow, s.k}, DType::bf16);
    run(Conv2d{read(in), {}, read(filter), {}, {}, out.buffer(), s, 1.0, 0}, context);
    return out.to_host_f64();
  };
  const std::vector<double> first = result_of(gpu());
  const std::filesystem::path file = cache_.path() / "sgm" / "convolutions.txt";
  ASSERT_TRUE(std::filesystem::exists(file));
  const auto written = std::filesystem::last_write_time(file);
  const auto other = create_context("cuda");
  EXPECT_EQ(result_of(*other), first);
  EXPECT_EQ(std::filesystem::last_write_time(file), written) << "measured again";
}

TEST_F(CudaLibrary, Tf32OnlyWhereItIsAllowed) {
  const ConvShape s = conv(kBatch, 16, 128, 128, 3);
  CudaContext reduced({.allow_tf32 = true});
  const Pair x = values({s.n, s.h, s.w, s.c}, DType::f32), w = values({s.k, s.r, s.s, s.c}, DType::f32);
  Tensor in = tensor_of(reduced, x.cpu.to_host_f64(), x.cpu.shape(), DType::f32),
         filter = tensor_of(reduced, w.cpu.to_host_f64(), w.cpu.shape(), DType::f32),
         y = Tensor::empty(reduced, {s.n, s.oh, s.ow, s.k}, DType::f32);
  Tensor exact = Tensor::empty(cpu(), y.shape(), DType::f32);
  run(Conv2d{read(in), {}, read(filter), {}, {}, y.buffer(), s, 1.0, 0}, reduced);
  run(Conv2d{read(x.cpu), {}, read(w.cpu), {}, {}, exact.buffer(), s, 1.0, 0}, cpu());
  expect_close(y.to_host_f64(), exact.to_host_f64(), {0x1p-10, 0x1p-8});
}

struct MatmulCase {
  std::int64_t batch, m, n, k;
  bool trans_a, trans_b, bias, accumulate;
  double alpha;
  std::int64_t extra;  // elements between the rows of a, b and c
  std::int64_t shift;  // elements from aligned addresses
};

TEST_F(CudaLibrary, MatrixProducts) {
  const MatmulCase cases[] = {
      {kBatch, 256, 256, 256, false, true, false, false, 1.0, 512, 0},   // attention: slices of [t, 3c]
      {kBatch, 256, 256, 256, true, false, false, false, 0.0625, 0, 0},  //
      {1, 128, 512, 256, false, true, true, false, 1.0, 0, 0},           // a linear layer
      {1, 512, 256, 128, true, false, false, true, 1.0, 0, 0},           // its gradient
      {2, 16, 16, 256, false, true, true, true, -0.5, 8, 0},             //
      {1, 7, 5, 3, false, false, true, false, 2.0, 0, 0},                // odd
      {3, 5, 9, 11, true, true, false, true, 1.0, 3, 1},                 // and misaligned
      {1, 1, 1, 1, false, false, true, true, 1.0, 0, 1},
      {1, 128, 256, kLongSum, true, false, false, false, 1.0, 0, 0},  // a long sum
  };
  for (const auto& [in, out] : {std::pair{DType::f32, DType::f32}, std::pair{DType::bf16, DType::bf16},
                                std::pair{DType::bf16, DType::f32}})
    for (const MatmulCase& t : cases) {
      const auto matrix = [&](std::int64_t rows, std::int64_t cols) {
        return Shape{t.shift + t.batch * rows * (cols + t.extra)};
      };
      const std::int64_t a_rows = t.trans_a ? t.k : t.m, a_cols = t.trans_a ? t.m : t.k,
                         b_rows = t.trans_b ? t.n : t.k, b_cols = t.trans_b ? t.k : t.n;
      const Pair a = values(matrix(a_rows, a_cols), in),
                 b = values(matrix(b_rows, b_cols), in, 1.0 / std::sqrt(static_cast<double>(t.k))),
                 c = values(matrix(t.m, t.n), out), bias = values({t.n}, DType::f32);
      const auto at = [&](auto buffer) {
        if constexpr (std::is_same_v<decltype(buffer), Buffer>)
          buffer.data = buffer.template as<char>() + t.shift * size_of(buffer.dtype);
        else
          buffer.data = buffer.template as<char>() + t.shift * size_of(buffer.dtype);
        return buffer;
      };
      const auto on = [&](Tensor Pair::*device, Context& context) {
        Tensor result = c.*device;
        Matmul op{};
        op.a = at(read(a.*device)), op.b = at(read(b.*device)), op.c = at(result.buffer());
        if (t.bias) op.bias = read(bias.*device);
        op.batch = t.batch, op.m = t.m, op.n = t.n, op.k = t.k;
        op.lda = a_cols + t.extra, op.ldb = b_cols + t.extra, op.ldc = t.n + t.extra;
        op.stride_a = a_rows * op.lda, op.stride_b = b_rows * op.ldb, op.stride_c = t.m * op.ldc;
        op.trans_a = t.trans_a, op.trans_b = t.trans_b, op.accumulate = t.accumulate, op.alpha = t.alpha;
        run(op, context);
      };
      on(&Pair::gpu, gpu());
      on(&Pair::cpu, cpu());
      std::ostringstream what;
      what << t.batch << " x " << t.m << 'x' << t.n << 'x' << t.k << ", " << in << " to " << out;
      // Elements between rows, and the first ones, keep what they were: compared as well.
      Tolerance tolerance = tolerance_of(out);
      if (out == DType::f32 && t.k > 10000) tolerance = {5e-5, 5e-4};
      // Tensor cores cut their sums off, sixteen products at a time.
      if (in == DType::bf16 && out == DType::f32) {
        tolerance.l2 += static_cast<double>(t.k) / 16 * 0x1p-24;
        tolerance.element = 10 * tolerance.l2;
      }
      expect_equal(c, tolerance, what.str());
    }
}

// ---- without a device
// --------------------------------------------------------------------------------------

/// Launches of an op in a dry run, by kernel.
template <class Op>
std::map<std::string, std::int64_t> launches_of(const Op& op) {
  const auto context = create_context("cuda-dry");
  run(op, *context);
  std::map<std::string, std::int64_t> result;
  for (const LaunchCount& count : context->take_launch_counts()) result[count.kernel] = count.launches;
  return result;
}

template <class B = ConstBuffer>
B pretended(DType dtype) {
  return {reinterpret_cast<void*>(std::uintptr_t{1} << 30), dtype};
}

Conv2d pretended_conv(const ConvShape& shape, DType dtype, double scale) {
  return {.x = pretended(dtype),
          .x2 = shape.c2 ? pretended(dtype) : ConstBuffer{},
          .weight = pretended(dtype),
          .bias = {},
          .residual = {},
          .y = pretended<Buffer>(dtype),
          .shape = shape,
          .scale = scale,
          .weight_version = 0,
          .scaled_bias = {}};
}

using Launches = std::map<std::string, std::int64_t>;

TEST(CudaLaunches, OfConvolutions) {
  const ConvShape wide = conv(8, 16, 64, 64, 3), narrow = conv(8, 16, 64, 64, 1, 1, 0, 0),
                  two = conv(8, 16, 64, 64, 1, 1, 0, 0, 32);
  Conv2d op = pretended_conv(wide, DType::bf16, 0.5);
  EXPECT_EQ(launches_of(op), (Launches{{"conv forward", 1}}));
  op.bias = pretended(DType::f32), op.residual = pretended(DType::bf16);
  EXPECT_EQ(launches_of(op), (Launches{{"scaled bias", 1}, {"conv forward", 1}}));
  op.scaled_bias = pretended(DType::bf16);
  EXPECT_EQ(launches_of(op), (Launches{{"conv forward", 1}}));
  op.scaled_bias = {};
  op.scale = 1.0, op.bias = pretended(DType::bf16);
  EXPECT_EQ(launches_of(op), (Launches{{"conv forward", 1}}));
  op.residual = {};
  EXPECT_EQ(launches_of(op), (Launches{{"conv forward", 1}}));
  op.scale = 0.5, op.bias = pretended(DType::f32);  // no engine scales a bias without a residual
  EXPECT_EQ(launches_of(op), (Launches{{"conv forward", 1}, {"add bias and residual", 1}}));
  op = pretended_conv(wide, DType::f32, 1.0);
  op.bias = pretended(DType::f32);
  EXPECT_EQ(launches_of(op), (Launches{{"conv forward", 1}}));
  op = pretended_conv(wide, DType::bf16, 1.0);
  op.y.dtype = DType::f32;
  EXPECT_EQ(launches_of(op), (Launches{{"direct conv", 1}}));
  EXPECT_EQ(launches_of(pretended_conv(narrow, DType::bf16, 0.5)), (Launches{{"conv 1x1 forward", 1}}));
  EXPECT_EQ(launches_of(pretended_conv(two, DType::bf16, 0.5)), (Launches{{"conv 1x1 forward", 2}}));
  EXPECT_EQ(launches_of(pretended_conv(conv(0, 16, 64, 64, 3), DType::bf16, 1.0)), Launches{});
}

TEST(CudaLaunches, CountTheBytesOfEveryOperandOnce) {
  const ConvShape s = conv(8, 16, 64, 32, 3);
  const auto context = create_context("cuda-dry");
  Conv2d op = pretended_conv(s, DType::bf16, 0.5);
  op.bias = pretended(DType::bf16), op.residual = pretended(DType::bf16);
  run(op, *context);
  std::int64_t bytes = 0;
  for (const LaunchCount& count : context->take_launch_counts())
    if (count.kernel == "conv forward") bytes = count.bytes;
  EXPECT_EQ(bytes, 2 * (8 * 256 * 64 + 32 * 9 * 64 + 32 + 2 * 8 * 256 * 32));
}

TEST(CudaErrors, NameTypesThatAGpuDoesNotTake) {
  const auto context = create_context("cuda-dry");
  const ConvShape s = conv(2, 8, 16, 16, 3);
  expect_error({"conv2d", "f64", "--device cpu"}, [&] { run(pretended_conv(s, DType::f64, 1.0), *context); });
  Conv2d op = pretended_conv(s, DType::bf16, 1.0);
  op.weight.dtype = DType::f32;
  expect_error({"conv2d", "f32 beside bf16"}, [&] { run(op, *context); });
  op = pretended_conv(s, DType::bf16, 1.0);
  op.x2 = pretended(DType::bf16);
  expect_error({"conv2d", "1x1"}, [&] { run(op, *context); });
  Matmul product{};
  product.a = product.b = pretended(DType::f64), product.c = pretended<Buffer>(DType::f64);
  expect_error({"matmul", "f64", "--device cpu"}, [&] { run(product, *context); });
  product.a = product.b = pretended(DType::f32), product.c = pretended<Buffer>(DType::bf16);
  expect_error({"matmul", "f32 x f32 to bf16"}, [&] { run(product, *context); });
}

TEST(CudaErrors, VersionsOfTheLibrariesAreKnown) {
  const std::string text = cuda_library_versions();
  for (const char* name : {"cuDNN 9.", "cuBLASLt ", "CUDA runtime "})
    EXPECT_NE(text.find(name), std::string::npos) << text;
}

}  // namespace
}  // namespace sgm
