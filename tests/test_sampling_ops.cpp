// Ops of kernels/sampling.h through their tensor functions, against plain loops in double.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "devices.h"
#include "expect_error.h"
#include "sgm/tensor/math.h"
#include "sgm/tensor/replace.h"

namespace sgm {
namespace {

// One element, sizes around the four of a Philox block and the 256 of a chunk, several partial sums; a CIFAR
// image and a small one, which allow 16-byte accesses.
const std::vector<Shape> kShapes = {{1, 1},      {3, 2},         {2, 3, 5},      {5, 257},
                                    {1, 16'387}, {2, 3, 79, 83}, {2, 32, 32, 3}, {3, 4, 2, 3}};
const NoiseKey kKey{0x123456789abcdefull, Purpose::predictor, 41, 7};

std::vector<double> wave(std::int64_t n, double frequency) {
  std::vector<double> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(frequency * static_cast<double>(i) + 0.3);
  return values;
}

Tensor tensor(Context& context, const std::vector<double>& values, Shape shape, DType dtype = DType::f64) {
  return Tensor::from_host(context, std::span<const double>(values), shape, dtype);
}

/// The normal that the definition of NoiseKey gives.
double normal_at(const NoiseKey& key, std::int64_t image, std::int64_t element) {
  float z[4];
  normals_of(philox(key, static_cast<std::uint32_t>(image), static_cast<std::uint32_t>(element / 4)), z);
  return static_cast<double>(z[element % 4]);
}

void expect_near(double actual, double expected, double bound, std::int64_t i) {
  ASSERT_TRUE(std::abs(actual - expected) <= bound)
      << "element " << i << ": " << actual << " is not " << expected;
}

double epsilon(DType dtype) { return dtype == DType::f64 ? 2.3e-16 : dtype == DType::f32 ? 1.2e-7 : 7.9e-3; }

using SamplingOps = DeviceTest;
INSTANTIATE_TEST_SUITE_P(Devices, SamplingOps, testing::ValuesIn(test_devices()), device_name);

TEST_P(SamplingOps, NormalIsTheKeysNoiseBitForBit) {
  for (const Shape& shape : kShapes) {
    const std::vector<float> z = normal(context(), shape, kKey).to_host();
    const std::int64_t per_image = shape.numel() / shape[0];
    for (std::int64_t i = 0; i < shape.numel(); ++i)
      ASSERT_EQ(z[static_cast<std::size_t>(i)],
                static_cast<float>(normal_at(kKey, i / per_image, i % per_image)));
  }
}

TEST_P(SamplingOps, ReplaceWhereTakesTheMaskedElements) {
  for (const Shape& shape : kShapes) {
    const std::int64_t per_image = shape.numel() / shape[0];
    std::vector<double> mask(static_cast<std::size_t>(per_image));
    for (std::size_t e = 0; e < mask.size(); ++e) mask[e] = e % 3 == 1 ? 1.0 : 0.0;
    const std::vector<double> x = wave(shape.numel(), 0.7), from = wave(shape.numel(), 1.3);
    const std::vector<double> y =
        replace_where(tensor(context(), mask, {per_image}, DType::f32),
                      tensor(context(), x, shape, DType::f32), tensor(context(), from, shape, DType::f32))
            .to_host_f64();
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      const std::size_t e = static_cast<std::size_t>(i);
      ASSERT_EQ(y[e], static_cast<double>(static_cast<float>(i % per_image % 3 == 1 ? from[e] : x[e])));
    }
  }
  const Tensor none = Tensor::zeros(context(), {0, 2, 2, 1});
  EXPECT_EQ(replace_where(Tensor::zeros(context(), {4}), none, none).shape(), none.shape());
}

TEST_P(SamplingOps, ReplaceChannelMeanMovesColoursTogether) {
  for (const Shape& shape : kShapes) {
    const std::int64_t channels = shape[shape.rank() - 1];
    const std::vector<double> x = wave(shape.numel(), 0.7), from = wave(shape.numel(), 1.3);
    const std::vector<double> y = replace_channel_mean(tensor(context(), x, shape, DType::f32),
                                                       tensor(context(), from, shape, DType::f32))
                                      .to_host_f64();
    for (std::int64_t pixel = 0; pixel < shape.numel() / channels; ++pixel) {
      double shift = 0.0;
      for (std::int64_t c = pixel * channels; c < (pixel + 1) * channels; ++c)
        shift += (from[static_cast<std::size_t>(c)] - x[static_cast<std::size_t>(c)]) /
                 static_cast<double>(channels);
      // Sums of up to 16387 numbers below 2.
      for (std::int64_t c = pixel * channels; c < (pixel + 1) * channels; ++c)
        expect_near(y[static_cast<std::size_t>(c)], x[static_cast<std::size_t>(c)] + shift, 2e-5, c);
    }
  }
  const Tensor none = Tensor::zeros(context(), {2, 0, 3});
  EXPECT_EQ(replace_channel_mean(none, none).shape(), none.shape());
}

TEST_P(SamplingOps, PixelsFollowTheirRule) {
  for (const std::int64_t n : {1, 3, 4, 1021, 3072})
    for (const PixelRule rule : {PixelRule::truncate, PixelRule::round}) {
      std::vector<double> values = wave(n, 0.37);
      values[0] = std::nan("");
      const Tensor x = tensor(context(), values, {n}, DType::f32);
      const std::vector<std::uint8_t> bytes = to_bytes(x, 0.55, 0.5, rule);
      const std::vector<float> stored = x.to_host();
      ASSERT_EQ(bytes.size(), stored.size());
      EXPECT_EQ(bytes[0], 0);
      for (std::size_t i = 1; i < bytes.size(); ++i)
        EXPECT_EQ(bytes[i], to_byte(std::fma(0.55f, stored[i], 0.5f), rule)) << i;
    }
}

TEST_P(SamplingOps, NormalHasTheMomentsOfItsLaw) {
  const std::int64_t n = 1 << 18;
  const std::vector<double> z = normal(context(), {16, n / 16}, kKey, 3.0, DType::f64).to_host_f64();
  double mean = 0.0, square = 0.0, lag = 0.0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    mean += z[i] / static_cast<double>(n);
    square += z[i] * z[i] / static_cast<double>(n);
    if (i > 0) lag += z[i] * z[i - 1] / static_cast<double>(n);
  }
  const double error = 1.0 / std::sqrt(static_cast<double>(n));  // five standard errors each
  EXPECT_NEAR(mean, 0.0, 5 * 3 * error);
  EXPECT_NEAR(square, 9.0, 5 * 9 * std::sqrt(2.0) * error);
  EXPECT_NEAR(lag, 0.0, 5 * 9 * error);
}

TEST_P(SamplingOps, AffineStepEqualsItsFormula) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const DType score_dtype : {DType::f32, DType::f64, DType::bf16})
      for (const Shape& shape : kShapes)
        for (const int which : {0, 1, 2, 3, 4, 5}) {  // score? times noise: none, drawn, given
          SCOPED_TRACE(testing::Message() << dtype << ' ' << score_dtype << ' ' << shape << ' ' << which);
          const std::int64_t n = shape[0], per_image = shape.numel() / n;
          const Tensor x = tensor(context(), wave(shape.numel(), 0.7), shape, dtype);
          const Tensor score = tensor(context(), wave(shape.numel(), 1.1), shape, score_dtype);
          const Tensor given = tensor(context(), wave(shape.numel(), 1.9), shape, dtype);
          const std::vector<double> a = wave(n, 3.0), b = wave(n, 4.0);
          AffineTerms terms{
              .x = x, .a = tensor(context(), a, {n}), .b = tensor(context(), b, {n}), .c = -1.7};
          if (which % 2) terms.score = score;
          if (which / 2) terms.noise = Noise{kKey, which / 2 == 2 ? given : Tensor()};
          terms.want_mean = which >= 2;
          const AffineResult result = affine_step(terms);
          EXPECT_EQ(result.mean.defined(), which >= 2);
          const std::vector<double> y = result.y.to_host_f64(), xs = x.to_host_f64(),
                                    ss = score.to_host_f64(), zs = given.to_host_f64();
          const std::vector<double> means = which >= 2 ? result.mean.to_host_f64() : y;
          for (std::int64_t i = 0; i < shape.numel(); ++i) {
            const std::size_t e = static_cast<std::size_t>(i),
                              image = static_cast<std::size_t>(i / per_image);
            const double mean = a[image] * xs[e] + (which % 2 ? b[image] * ss[e] : 0.0);
            const double z = which / 2 == 0   ? 0.0
                             : which / 2 == 1 ? normal_at(kKey, i / per_image, i % per_image)
                                              : zs[e];
            // Up to five roundings of numbers no larger than 1 + 1 + 1.7 |z|.
            const double bound = 5.0 * epsilon(dtype) * (2.0 + 1.7 * std::abs(z));
            expect_near(means[e], mean, bound, i);
            expect_near(y[e], mean - 1.7 * z, bound, i);
          }
        }
}

TEST_P(SamplingOps, AffineStepDrawsAnImagesNoiseWhateverItsBatch) {
  const Shape all{5, 3, 7}, one{1, 3, 7};
  const std::vector<double> x = wave(all.numel(), 0.7);
  const auto step = [&](std::span<const double> values, Shape shape, std::uint32_t first) {
    AffineTerms terms{.x = Tensor::from_host(context(), values, shape, DType::f32)};
    terms.a = 0.3, terms.c = 0.9;
    terms.noise = Noise{NoiseKey{9, Purpose::corrector, 3, first}, {}};
    return affine_step(terms).y.to_host();
  };
  const std::vector<float> together = step(x, all, 10);
  for (std::uint32_t image = 0; image < 5; ++image) {
    const std::vector<float> alone = step(std::span(x).subspan(21 * image, 21), one, 10 + image);
    EXPECT_EQ(0, std::memcmp(alone.data(), together.data() + 21 * image, 21 * sizeof(float))) << image;
  }
}

TEST_P(SamplingOps, NoiseAndStepsAreTheBitsOfTheCpu) {
  const auto cpu = create_context("cpu", 1);
  const auto bits = [](const Tensor& x) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(x.numel()) * size_of(x.dtype()));
    x.context().copy_to_host(bytes.data(), x.buffer().data, bytes.size());
    return bytes;
  };
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const Shape& shape : kShapes) {
      SCOPED_TRACE(testing::Message() << dtype << ' ' << shape);
      EXPECT_EQ(bits(normal(context(), shape, kKey, 1.7, dtype)),
                bits(normal(*cpu, shape, kKey, 1.7, dtype)));
      for (const DType score_dtype : {DType::f32, DType::f64, DType::bf16})
        for (const int which : {0, 1, 2, 3, 4, 5}) {  // score? times noise: none, drawn, given
          const auto step = [&](Context& device) {
            const std::vector<double> a = wave(shape[0], 3.0);
            AffineTerms terms{.x = tensor(device, wave(shape.numel(), 0.7), shape, dtype),
                              .a = tensor(device, a, {shape[0]}),
                              .b = 0.37,
                              .c = -1.7,
                              .want_mean = true};
            if (which % 2) terms.score = tensor(device, wave(shape.numel(), 1.1), shape, score_dtype);
            if (which / 2 == 1) terms.noise = Noise{kKey, {}};
            if (which / 2 == 2)
              terms.noise = Noise{{}, tensor(device, wave(shape.numel(), 1.9), shape, dtype)};
            const AffineResult result = affine_step(terms);
            return std::pair(bits(result.y), bits(result.mean));
          };
          EXPECT_EQ(step(context()), step(*cpu)) << score_dtype << ' ' << which;
        }
    }
}

TEST_P(SamplingOps, StepNumbersInDeviceMemoryAreAdded) {
  const std::uint32_t steps[2] = {40, 1};
  Tensor memory = Tensor::empty(context(), {1}, DType::f64);
  context().copy_from_host(memory.data<double>(), steps, sizeof steps);
  NoiseKey key = kKey;
  key.step = 1;
  key.step_from = reinterpret_cast<const std::uint32_t*>(memory.data<double>());
  const Shape shape{3, 7};
  EXPECT_EQ(normal(context(), shape, key).to_host(), normal(context(), shape, kKey).to_host());
  const Tensor like = Tensor::zeros(context(), shape);
  EXPECT_EQ(squared_norms(Noise{key, {}}, like).to_host_f64(),
            squared_norms(Noise{kKey, {}}, like).to_host_f64());
  key.step_from += 1;
  EXPECT_NE(normal(context(), shape, key).to_host(), normal(context(), shape, kKey).to_host());
}

TEST_P(SamplingOps, SquaredNormsEqualPlainSumsAndDoNotDependOnTheBatch) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const Shape& shape : kShapes) {
      SCOPED_TRACE(testing::Message() << dtype << ' ' << shape);
      const Tensor x = tensor(context(), wave(shape.numel(), 0.7), shape, dtype);
      const std::vector<double> values = x.to_host_f64(), of_x = squared_norms(x).to_host_f64();
      const std::vector<double> of_noise = squared_norms(Noise{kKey, {}}, x).to_host_f64();
      const std::vector<double> of_given = squared_norms(Noise{kKey, x}, x).to_host_f64();
      EXPECT_EQ(of_given, of_x);
      const std::int64_t per_image = shape.numel() / shape[0];
      for (std::int64_t n = 0; n < shape[0]; ++n) {
        double sum = 0.0, noise = 0.0;
        for (std::int64_t e = 0; e < per_image; ++e) {
          sum += std::pow(values[static_cast<std::size_t>(n * per_image + e)], 2);
          noise += std::pow(normal_at(kKey, n, e), 2);
        }
        const double bound = 2.3e-16 * static_cast<double>(per_image);
        expect_near(of_x[static_cast<std::size_t>(n)], sum, bound * sum, n);
        expect_near(of_noise[static_cast<std::size_t>(n)], noise, bound * noise, n);
        const auto first = values.begin() + n * per_image;
        const Tensor alone = tensor(context(), {first, first + per_image}, {1, per_image}, dtype);
        EXPECT_EQ(squared_norms(alone).item(), of_x[static_cast<std::size_t>(n)]);
      }
    }
}

TEST_P(SamplingOps, LangevinStepFollowsTheFormulaPerImageAndPerBatch) {
  const Tensor score = tensor(context(), {4.0, 25.0, 0.0}, {3}),
               noise = tensor(context(), {9.0, 1.0, 4.0}, {3});
  const LangevinStep own = langevin_step(score, noise, 0.9, 0.2, false);
  const std::vector<double> b = own.b.to_host_f64(), c = own.c.to_host_f64();
  EXPECT_DOUBLE_EQ(b[0], 1.8 * std::pow(0.2 * 3.0 / 2.0, 2));
  EXPECT_DOUBLE_EQ(b[1], 1.8 * std::pow(0.2 * 1.0 / 5.0, 2));
  EXPECT_EQ(b[2], 0.0) << "no step where the score vanishes";
  for (int i = 0; i < 3; ++i) EXPECT_DOUBLE_EQ(c[i], std::sqrt(2.0 * b[i]));
  const std::vector<double> shared = langevin_step(score, noise, 0.9, 0.2, true).b.to_host_f64();
  for (const double value : shared)
    EXPECT_DOUBLE_EQ(value, 1.8 * std::pow(0.2 * (6.0 / 3.0) / (7.0 / 3.0), 2));
  const Tensor nan = tensor(context(), {1.0, NAN, 1.0}, {3});
  EXPECT_TRUE(std::isnan(langevin_step(nan, noise, 1.0, 0.2, false).b.to_host_f64()[1]));
}

TEST_P(SamplingOps, StateAlgebraEqualsPlainLoops) {
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(testing::Message() << shape);
    const std::int64_t n = shape[0], per_image = shape.numel() / n;
    std::vector<std::vector<double>> values;
    std::vector<Tensor> stages;
    std::vector<Term> terms;
    for (int j = 0; j < 7; ++j) {
      values.push_back(wave(shape.numel(), 0.3 + j));
      stages.push_back(tensor(context(), values.back(), shape));
    }
    for (int j = 0; j < 7; ++j)
      terms.push_back({j == 1 ? 0.0 : 0.5 - 0.3 * j, &stages[static_cast<std::size_t>(j)]});
    const std::vector<double> y = wave(shape.numel(), 2.2), other = wave(shape.numel(), 2.9),
                              h = wave(n, 5.0);
    const Tensor y_tensor = tensor(context(), y, shape), other_tensor = tensor(context(), other, shape);
    const std::vector<double> combined =
        linear_combination(y_tensor, tensor(context(), h, {n}), terms).to_host_f64();
    const std::vector<double> norms =
        scaled_squared_norms(terms, y_tensor, other_tensor, 0.01, 0.02).to_host_f64();
    std::vector<double> expected_norms(static_cast<std::size_t>(n), 0.0);
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      const std::size_t e = static_cast<std::size_t>(i), image = static_cast<std::size_t>(i / per_image);
      double sum = 0.0;
      for (int j = 0; j < 7; ++j)
        sum += terms[static_cast<std::size_t>(j)].coefficient * values[static_cast<std::size_t>(j)][e];
      expect_near(combined[e], y[e] + h[image] * sum, 1e-14, i);
      expected_norms[image] +=
          std::pow(sum / (0.02 + 0.01 * std::max(std::abs(y[e]), std::abs(other[e]))), 2);
    }
    for (std::int64_t i = 0; i < n; ++i)
      expect_near(norms[static_cast<std::size_t>(i)] / expected_norms[static_cast<std::size_t>(i)], 1.0,
                  1e-11, i);
  }
}

TEST_P(SamplingOps, GatherImagesPicksRowsOfBothBatches) {
  std::vector<double> values(15);
  std::iota(values.begin(), values.end(), 0.0);
  const Tensor first = tensor(context(), {values.begin(), values.begin() + 9}, {3, 1, 3});
  const Tensor second = tensor(context(), {values.begin() + 9, values.end()}, {2, 1, 3});
  const std::vector<std::int64_t> rows = {4, 0, 2, 3, 0};
  const Tensor y = gather_images(first, second, rows);
  EXPECT_EQ(y.shape(), (Shape{5, 1, 3}));
  const std::vector<double> gathered = y.to_host_f64();
  for (std::size_t i = 0; i < gathered.size(); ++i)
    EXPECT_EQ(gathered[i], values[static_cast<std::size_t>(rows[i / 3] * 3) + i % 3]);
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{5}})
    expect_error({"row"}, [&] { gather_images(first, second, std::vector{bad}); });
  expect_error({"differ in size"}, [&] { gather_images(first, second.reshape({2, 3}), rows); });
}

TEST_P(SamplingOps, RefuseOperandsThatDoNotFit) {
  const Tensor x = Tensor::zeros(context(), {2, 3}), wide = Tensor::zeros(context(), {2, 4});
  const Tensor f64 = x.to(DType::f64);
  expect_error({"score must have shape [2, 3]"}, [&] { affine_step({.x = x, .score = wide}); });
  expect_error({"noise"}, [&] { affine_step({.x = x, .noise = Noise{{}, wide}}); });
  expect_error({"noise"}, [&] { affine_step({.x = x, .noise = Noise{{}, f64}}); });
  expect_error({"coefficient"},
               [&] { affine_step({.x = x, .a = Tensor::zeros(context(), {3}, DType::f64)}); });
  expect_error({"coefficient"}, [&] { affine_step({.x = x, .a = Tensor::zeros(context(), {2})}); });
  expect_error({"batch"}, [&] { affine_step({.x = Tensor()}); });
  expect_error({"noise norms"}, [&] { langevin_step(squared_norms(x), f64, 1.0, 0.1, false); });
  const Tensor h = Tensor::zeros(context(), {2}, DType::f64);
  const std::vector<Term> eight(8, Term{1.0, &f64}), other{{1.0, &h}};
  expect_error({"more than 7"}, [&] { linear_combination(f64, h, eight); });
  expect_error({"linear_combination"}, [&] { linear_combination(f64, h, other); });
  expect_error({"linear_combination"}, [&] { linear_combination(f64, f64, {}); });
  expect_error({"f64"}, [&] { linear_combination(x, h, {}); });
}

TEST_P(SamplingOps, EmptyBatchesAreFine) {
  const Tensor x = Tensor::zeros(context(), {0, 3});
  EXPECT_EQ(normal(context(), {0, 3}, kKey).numel(), 0);
  EXPECT_EQ(affine_step({.x = x, .noise = Noise{kKey, {}}, .c = 1.0}).y.numel(), 0);
  EXPECT_EQ(squared_norms(x).numel(), 0);
}

}  // namespace
}  // namespace sgm
