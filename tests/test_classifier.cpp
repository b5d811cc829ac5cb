// Noise-conditional classifiers: the network against golden numbers and difference quotients, guidance
// against a posterior in closed form, training that can be interrupted.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "check.h"
#include "closed_form.h"
#include "expect_error.h"
#include "sgm/autograd/ops.h"
#include "sgm/nn/classifier.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/guidance.h"
#include "sgm/train/checkpoint.h"
#include "sgm/train/classifier_trainer.h"
#include "sgm/train/run.h"
#include "temp_folder.h"
#include "tiny_training.h"

namespace sgm {
namespace {

// ---- the network ------------------------------------------------------------------------------------------

struct Golden {
  nlohmann::json file = golden_file("classifier.json");
  Config config;
  Values x{{2, 16, 16, 3}, std::vector<double>(2 * 16 * 16 * 3)};
  std::vector<double> sigma = {0.3, 12.0}, labels = {1.0, 7.0};

  Golden() {
    config.data.image_size = 16;
    config.classifier.base_width = 8;
    config.classifier.widen_factor = 2;
    config.classifier.blocks = 2;
    config.classifier.embedding = 16;
    config.classifier.num_classes = 10;
    for (std::size_t i = 0; i < x.data.size(); ++i)
      x.data[at(i)] = rounded(0.5 + 0.4 * std::sin(0.05 * static_cast<double>(i) + 0.2), DType::f32);
  }

  /// Where element i of the file's [N, C, H, W] lies in ours.
  static std::size_t at(std::size_t i) {
    const std::size_t n = i / 768, c = i / 256 % 3, pixel = i % 256;
    return (n * 256 + pixel) * 3 + c;
  }

  /// The file's weights: waves whose phase is the parameter's place in its list, which is our order.
  std::unique_ptr<Classifier> build(Context& context, DType dtype) const {
    auto classifier = create_classifier(config, context, dtype);
    const auto& list = file.at("params");
    std::size_t place = 0;
    for (Parameter& parameter : classifier->parameters()) {
      const ReferencePart& part = parameter.reference.at(0);
      const std::string name = list.at(place).at(0), last = name.substr(name.rfind('.') + 1);
      const Shape shape = reference_shape(parameter.var->value(), part);
      EXPECT_EQ(part.name.substr(part.name.rfind('.') + 1), last) << part.name << ", " << name;
      EXPECT_EQ(nlohmann::json(std::vector<std::int64_t>(shape.begin(), shape.end())), list.at(place).at(1));
      std::vector<double> values;
      const double fan = static_cast<double>(shape.numel() / shape[0]);
      const double amplitude = name == "W" ? 0.8 : shape.rank() >= 2 ? 1.5 / std::sqrt(fan) : 0.1;
      for (std::int64_t n = 0; n < shape.numel(); ++n) {
        const double phase = 0.1 + 0.3 * static_cast<double>(place);
        const double wave = amplitude * std::sin(0.7 * static_cast<double>(n) + phase);
        const bool gamma = shape.rank() == 1 && last == "weight";
        values.push_back(rounded(gamma ? 1.0 + wave : wave, DType::f32));
      }
      from_reference(parameter.var->value(), part, values);
      ++place;
    }
    EXPECT_EQ(place, list.size());
    return classifier;
  }
};

Var log_probability(Classifier& classifier, const Var& x, const std::vector<double>& sigma,
                    const std::vector<double>& labels, const ForwardMode& mode, Var* logits = nullptr) {
  Context& context = x.value().context();
  const auto column = [&](const std::vector<double>& v) {
    return tensor_of(context, v, {std::ssize(v)}, DType::f64);
  };
  const Var output = classifier.forward(x, column(sigma), mode);
  if (logits) *logits = output;
  return affine(cross_entropy(output, column(labels)).loss, -1.0);
}

void expect_golden(const Golden& golden, DType weights, DType compute, const Tolerance& values,
                   const Tolerance& gradient) {
  const auto context = create_context("cpu", 1);
  const auto classifier = golden.build(*context, weights);
  const Var x(tensor_of(*context, golden.x.data, golden.x.shape, weights), true);
  Var logits;
  const Var log_p =
      log_probability(*classifier, x, golden.sigma, golden.labels, {compute, false, {}}, &logits);
  expect_close(logits.value().to_host_f64(), golden.file.at("logits").get<std::vector<double>>(), values,
               "logits");
  expect_close(log_p.value().to_host_f64(), golden.file.at("logprob").get<std::vector<double>>(), values,
               "log p");
  log_p.backward(Tensor::full(*context, {2}, 1.0, DType::f64));
  const auto published = golden.file.at("grad").get<std::vector<double>>();
  std::vector<double> expected(published.size());
  for (std::size_t i = 0; i < published.size(); ++i) expected[Golden::at(i)] = published[i];
  expect_close(x.grad().to_host_f64(), expected, gradient, "gradient");
}

TEST(Classifier, HasTheGoldenNumbers) {
  const Golden golden;
  expect_golden(golden, DType::f64, DType::f64, {1e-5}, {1e-5});
  expect_golden(golden, DType::f32, DType::f32, {1e-5}, {1e-4});
  expect_golden(golden, DType::f32, DType::bf16, {3e-2}, {0.2});
}

TEST(Classifier, HasThePublishedSize) {
  Config config;
  config.classifier.num_classes = 10;
  const auto context = create_context("cpu", 1);
  const auto classifier = create_classifier(config, *context, DType::f32, false);
  std::int64_t trained = 0, fixed = 0;
  for (const Parameter& p : classifier->parameters())
    (p.trainable ? trained : fixed) += p.var->value().numel();
  EXPECT_EQ(trained, 38'913'114);
  EXPECT_EQ(fixed, 128);
}

Config small_config(int image_size, int channels) {
  Config config;
  config.data.image_size = image_size;
  config.data.num_channels = channels;
  config.classifier.base_width = 8;
  config.classifier.widen_factor = 1;
  config.classifier.blocks = 1;
  config.classifier.embedding = 4;
  config.classifier.fourier_scale = 1.0;
  config.classifier.num_classes = 3;
  return config;
}

/// Sizes that stay whole when halved twice, and sizes that do not: 7 -> 4 -> 2, 5 -> 3 -> 2.
TEST(Classifier, IsDifferentiableAtEverySize) {
  const auto context = create_context("cpu", 1);
  for (const auto& [size, channels] : {std::pair{8, 3}, {7, 1}, {5, 3}, {1, 1}}) {
    SCOPED_TRACE(size);
    const auto classifier = create_classifier(small_config(size, channels), *context, DType::f64);
    const Shape shape{2, size, size, channels};
    const Function log_p = [&](std::span<const Var> v) {
      return log_probability(*classifier, v[0], {0.1, 3.0}, {2.0, 0.0}, {DType::f64, false, {}});
    };
    expect_gradients(*context, log_p, {{shape, random_values(shape.numel(), 1, 0.5, 0.3)}});
  }
}

TEST(Classifier, NamesWhatCannotBe) {
  const auto context = create_context("cpu", 1);
  Config config = small_config(8, 1);
  config.classifier.num_classes = 1;
  expect_error({"classifier.num_classes", "1"}, [&] { create_classifier(config, *context); });
  config.classifier.num_classes = 3;
  config.classifier.base_width = 6;
  expect_error({"classifier.base_width"}, [&] { create_classifier(config, *context); });
}

// ---- guidance ---------------------------------------------------------------------------------------------

// Two classes of one number each: N(-0.5, 0.1^2) and N(0.5, 0.1^2), of which the first is three times as
// frequent.
constexpr double kCenters[] = {-0.5, 0.5}, kShares[] = {0.75, 0.25}, kSpread = 0.1;

/// log of share_k N(x; mean_coeff center_k, variance), and its derivative.
struct Component {
  double log_density, slope;
  Component(int k, double x, const SDE& sde, double t) {
    const double m = sde.mean_coeff(t), s = sde.marginal_std(t), variance = m * m * kSpread * kSpread + s * s;
    const double away = x - m * kCenters[k];
    log_density = std::log(kShares[k]) - 0.5 * away * away / variance;  // the variance is common to both
    slope = -away / variance;
  }
};

/// p_t(k | x).
double posterior(int k, double x, const SDE& sde, double t) {
  const Component own(k, x, sde, t), other(1 - k, x, sde, t);
  return 1.0 / (1.0 + std::exp(other.log_density - own.log_density));
}

double mixture_score(double x, const SDE& sde, double t) {
  const double p = posterior(0, x, sde, t);
  return p * Component(0, x, sde, t).slope + (1.0 - p) * Component(1, x, sde, t).slope;
}

TEST(Guidance, TheExactClassifierSamplesItsClass) {
  const auto context = create_context("cpu", 1);
  for (const char* name : {"vesde", "vpsde", "subvpsde"})
    for (const char* method : {"pc", "ode"}) {
      SCOPED_TRACE(std::string(name) + ' ' + method);
      const auto sde = make_sde(name, 300);
      const ScoreFn score =
          elementwise_score([&](double x, const ImageTime& at) { return mixture_score(x, *sde, at.t); });
      // grad log p_t(k | x) for image i of class i mod 2.
      const ScoreFn gradient = elementwise_score([&](double x, const ImageTime& at) {
        return Component(at.image % 2, x, *sde, at.t).slope - mixture_score(x, *sde, at.t);
      });
      SamplingConfig config;
      config.method = method;
      config.corrector = "none";
      config.rtol = config.atol = 1e-3;
      SampleRequest request;
      request.shape = {400, 1, 1, 1};
      const std::vector<float> x = create_sampler(*sde, config)
                                       ->sample(*context, guided_score(score, gradient, 1.0), request)
                                       .x.to_host();
      for (const std::size_t k : {0u, 1u}) {
        double mean = 0.0, square = 0.0;
        for (std::size_t i = k; i < x.size(); i += 2) mean += x[i] / 200.0, square += x[i] * x[i] / 200.0;
        // Five standard errors of 200 draws, and the error of 300 steps.
        EXPECT_NEAR(mean, kCenters[k], 5 * kSpread / std::sqrt(200.0) + 0.01);
        EXPECT_NEAR(std::sqrt(square - mean * mean), kSpread, 0.03);
      }
    }
}

TEST(Guidance, IsTheGradientOfTheLogProbability) {
  const auto context = create_context("cpu", 1);
  const auto classifier = create_classifier(small_config(5, 1), *context, DType::f64);
  const std::vector<int> classes = {2, 0};
  const Values x{{2, 5, 5, 1}, random_values(50, 1, 0.0, 0.7)};
  for (const bool centered : {false, true})
    for (const char* name : {"vesde", "vpsde", "subvpsde"}) {
      const auto sde = make_sde(name, 100);
      const std::vector<ImageTime> times = {{{0.3}, 0}, {{0.7}, 1}};
      ClassRequest request;
      request.classes = classes;
      request.centered = centered;
      request.compute = DType::f64;
      const ScoreFn gradient = class_gradient(*classifier, *sde, request);
      const std::vector<double> actual =
          gradient(tensor_of(*context, x.data, x.shape, DType::f64), times).to_host_f64();
      // log p of x / mean_coeff, brought to [0, 1], at the noise that it then has.
      const auto log_p = [&](const std::vector<double>& at) {
        std::vector<double> image = at, sigma;
        for (std::size_t i = 0; i < image.size(); ++i) {
          const double full = image[i] / sde->mean_coeff(times[i / 25].t);
          image[i] = centered ? 0.5 * full + 0.5 : full;
        }
        for (const ImageTime& time : times) sigma.push_back(image_noise(*sde, time.t, centered));
        const Var y = log_probability(*classifier, Var(tensor_of(*context, image, x.shape, DType::f64)),
                                      sigma, {2.0, 0.0}, {DType::f64, false, {}});
        const std::vector<double> both = y.value().to_host_f64();
        return both[0] + both[1];
      };
      for (const std::size_t i : {0u, 24u, 25u, 37u}) {
        std::vector<double> above = x.data, below = x.data;
        above[i] += 1e-5, below[i] -= 1e-5;
        EXPECT_NEAR(actual[i], (log_p(above) - log_p(below)) / 2e-5, 1e-6) << name << ' ' << i;
      }
    }
}

TEST(Guidance, AnImageDoesNotDependOnItsBatch) {
  const auto context = create_context("cpu", 1);
  const auto classifier = create_classifier(small_config(6, 1), *context);
  const auto sde = make_sde("vpsde", 30);
  const ScoreFn score = elementwise_score([](double x, const ImageTime&) { return -x; });
  for (const char* method : {"pc", "ode"}) {
    SamplingConfig config;
    config.method = method;
    config.rtol = config.atol = 1e-2;
    const auto sampler = create_sampler(*sde, config);
    const auto sample = [&](std::uint32_t first, std::vector<int> classes) {
      SampleRequest request;
      request.shape = {std::ssize(classes), 6, 6, 1};
      request.first_sample = first;
      ClassRequest wanted;
      wanted.classes = std::move(classes);
      return sampler
          ->sample(*context, guided_score(score, class_gradient(*classifier, *sde, wanted), 3.0), request)
          .x.to_host();
    };
    const std::vector<float> together = sample(0, {0, 2, 1}), alone = sample(1, {2});
    ASSERT_EQ(alone.size(), 36u);
    for (std::size_t i = 0; i < alone.size(); ++i)  // but for the order in which products are summed
      EXPECT_NEAR(together[36 + i], alone[i], 1e-4) << method << ' ' << i;
    EXPECT_NE(sample(1, {0}), alone) << method << " must see the class";
  }
}

TEST(Guidance, NamesUnknownClasses) {
  const auto context = create_context("cpu", 1);
  const auto classifier = create_classifier(small_config(6, 1), *context);
  const auto sde = make_sde("vpsde", 30);
  const Tensor x = Tensor::zeros(*context, {1, 6, 6, 1});
  ClassRequest request;
  request.classes = {3};
  expect_error({"class 3", "3 of the classifier"},
               [&] { score_at(class_gradient(*classifier, *sde, request), x, {0.5}); });
  request.classes = {};
  expect_error({"image 0 has no class"},
               [&] { score_at(class_gradient(*classifier, *sde, request), x, {0.5}); });
}

// ---- training ---------------------------------------------------------------------------------------------

/// Bars of three places, which are their classes.
class LabelledBars : public BarImages {
 public:
  using BarImages::BarImages;
  int label(std::int64_t i) const override { return static_cast<int>(i % 3); }
  int num_classes() const override { return 3; }
  void read(std::int64_t i, std::span<std::uint8_t> out) const override { BarImages::read(i % 3, out); }
};

class ClassifierTraining : public testing::Test {
 protected:
  ClassifierTraining() {
    config_ = tiny_config();
    config_.data.random_flip = false;  // a mirrored bar is of another class
    config_.classifier = small_config(8, 1).classifier;
    config_.classifier.num_classes = 0;
    config_.classifier.crop_padding = 1;
    config_.training.n_iters = 6;
    config_.training.batch_size = 8;
    config_.training.snapshot_freq = 3;
    config_.training.keep_checkpoints = 0;
  }

  RunEnd run(const std::string& name, bool resume = false, std::int64_t stop_at = -1) {
    ClassifierTrainer trainer(config_, images_, *context_);
    RunOptions options;
    options.workdir = folder_.path() / name;
    options.resume = resume;
    options.should_stop = [&] { return trainer.position() == stop_at; };
    testing::internal::CaptureStderr();
    const RunEnd end = train(trainer, options);
    shown_ = testing::internal::GetCapturedStderr();
    return end;
  }
  std::string content(const std::string& name, std::int64_t step) const {
    std::ifstream file(checkpoint_path(folder_.path() / name, step), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TempFolder folder_;
  LabelledBars images_{30};
  Config config_;
  std::unique_ptr<Context> context_ = create_context("cpu", 1);
  std::string shown_;
};

TEST_F(ClassifierTraining, ResumesBitForBit) {
  EXPECT_EQ(run("whole"), RunEnd::finished);
  EXPECT_EQ(run("broken", false, 4), RunEnd::interrupted);
  EXPECT_EQ(run("broken", true), RunEnd::finished);
  ASSERT_FALSE(content("whole", 6).empty());
  EXPECT_EQ(content("whole", 6), content("broken", 6));
  EXPECT_NE(shown_.find("% right"), std::string::npos) << shown_;
  std::ifstream metrics(folder_.path() / "whole" / "metrics.jsonl");
  std::string line;
  std::getline(metrics, line);
  const auto record = nlohmann::json::parse(line);
  EXPECT_GE(record.at("accuracy").get<double>(), 0.0);
  EXPECT_LE(record.at("accuracy").get<double>(), 1.0);
}

TEST_F(ClassifierTraining, LearnsItsClasses) {
  config_.training.n_iters = 150;
  config_.training.snapshot_freq = 1000;
  config_.classifier.crop_padding = 0;
  config_.optim.lr = 1e-2;
  config_.optim.warmup = 10;
  run("learned");
  const LoadedClassifier loaded =
      load_classifier(checkpoint_path(folder_.path() / "learned", 150), *context_, false);
  EXPECT_EQ(loaded.info.config.classifier.num_classes, 3);
  const std::vector<NoiseAccuracy> parts =
      accuracy_by_noise(*loaded.classifier, loaded.info.config, images_, *context_, 0, 30, 4);
  EXPECT_GE(parts.front().accuracy, 0.95);
  EXPECT_LE(parts.back().accuracy, 0.8) << "of pure noise nobody knows the class";
  for (std::size_t i = 1; i < parts.size(); ++i) EXPECT_EQ(parts[i].sigma0, parts[i - 1].sigma1);
}

TEST_F(ClassifierTraining, CheckpointsSayWhatTheyHold) {
  run("mine");
  const auto file = checkpoint_path(folder_.path() / "mine", 6);
  expect_error({file.string(), "holds a classifier, not a score model"},
               [&] { load_network(file, *context_); });
  const auto network = create_network(config_, *context_);
  Optimizer optimizer(*network, config_.optim, 0.9);
  const auto score = folder_.path() / "score.safetensors";
  save_checkpoint(score, config_, *network, optimizer);
  expect_error({score.string(), "holds a score model, not a classifier"},
               [&] { load_classifier(score, *context_); });
}

TEST_F(ClassifierTraining, WantsLabels) {
  config_.data.path = "somewhere";
  const BarImages plain(30);
  expect_error({"somewhere", "no classes", "labelled"},
               [&] { ClassifierTrainer(config_, plain, *context_); });
  config_.classifier.num_classes = 2;
  expect_error({"classifier.num_classes is 2", "3 classes"},
               [&] { ClassifierTrainer(config_, images_, *context_); });
}

TEST(Loader, MovesImagesByUpToThePadding) {
  const BarImages bars(1, 8);
  LoaderOptions options{.batch_size = 200, .crop_padding = 2};
  const Batch batch = Loader(bars, options).at(0);
  std::vector<std::uint8_t> image(64);
  bars.read(0, image);
  int seen[5][5] = {};
  for (std::size_t n = 0; n < 200; ++n) {
    int matches = 0;
    for (int dy = -2; dy <= 2; ++dy)
      for (int dx = -2; dx <= 2; ++dx) {
        bool same = true;
        for (int y = 0; y < 8; ++y)
          for (int x = 0; x < 8; ++x) {
            const bool inside = y - dy >= 0 && y - dy < 8 && x - dx >= 0 && x - dx < 8;
            const float expected = inside ? static_cast<float>(image[(y - dy) * 8 + x - dx]) / 255.0f : 0.0f;
            same = same && batch.images[n * 64 + y * 8 + x] == expected;
          }
        if (same) ++matches, ++seen[dy + 2][dx + 2];
      }
    EXPECT_EQ(matches, 1) << "image " << n;
  }
  for (const auto& row : seen)
    for (const int count : row) EXPECT_GE(count, 1);
}

}  // namespace
}  // namespace sgm
