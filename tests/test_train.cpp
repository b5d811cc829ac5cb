// Training: it learns, and it is a function of configuration and data alone, however it is interrupted.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "expect_error.h"
#include "sgm/io/safetensors.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/score_model.h"
#include "sgm/train/checkpoint.h"
#include "sgm/train/trainer.h"
#include "temp_folder.h"
#include "tiny_training.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

class Training : public testing::Test {
 protected:
  /// The loss of each of `count` steps.
  static std::vector<double> run(Trainer& trainer, int count) {
    std::vector<double> losses;
    for (int i = 0; i < count; ++i) losses.push_back(trainer.step().loss);
    return losses;
  }

  RunEnd run(const Config& config, const std::string& workdir, bool resume = false,
             std::function<bool()> should_stop = {}) const {
    RunOptions options;
    options.workdir = folder_.path() / workdir;
    options.resume = resume;
    options.should_stop = std::move(should_stop);
    testing::internal::CaptureStderr();
    RunEnd end{};
    try {
      end = train(config, images_, *context_, options);
    } catch (...) {
      testing::internal::GetCapturedStderr();
      throw;
    }
    testing::internal::GetCapturedStderr();
    return end;
  }

  /// True at its n-th call.
  static std::function<bool()> stop_after(int n) {
    return [left = n]() mutable { return --left == 0; };
  }

  fs::path checkpoint(const std::string& workdir, std::int64_t step) const {
    return checkpoint_path(folder_.path() / workdir, step);
  }

  std::vector<nlohmann::json> metrics(const std::string& workdir) const {
    std::istringstream lines(content_of(folder_.path() / workdir / "metrics.jsonl"));
    std::vector<nlohmann::json> records;
    for (std::string line; std::getline(lines, line);) records.push_back(nlohmann::json::parse(line));
    return records;
  }

  const std::unique_ptr<Context> context_ = create_context("cpu", 2);
  const BarImages images_{5};
  const TempFolder folder_;
};

// ---- learning ---------------------------------------------------------------------------------------------

TEST_F(Training, LearnsASmallSetByHeart) {
  Config config = tiny_config();
  config.data.random_flip = false;
  config.model.dropout = 0.0;
  config.training.batch_size = 20;
  config.optim.lr = 5e-3;
  const BarImages images(4);
  Trainer trainer(config, images, *context_);
  const DenoisingLoss loss(trainer.sde(), config.training);
  const Batch batch = Loader(images, {.batch_size = 64, .centered = true}).at(0);
  const Tensor x0 = Tensor::from_host(*context_, std::span<const float>(batch.images), batch.shape);
  const auto loss_now = [&] {
    const auto network = [&](const Tensor& x, const Tensor& label) {
      return trainer.network().forward(Var(x), label, {});
    };
    return loss.evaluate(network, x0, NoiseKey{99, Purpose::noise, 0}).mean.value().item();
  };
  // The last convolution starts at almost zero, and the noise has unit variance.
  EXPECT_NEAR(loss_now(), 1.0, 0.1);
  run(trainer, 40);
  EXPECT_LT(loss_now(), 0.35);
}

TEST_F(Training, EverySdeAndLossTrains) {
  struct Row {
    const char* sde;
    bool continuous, likelihood, reduce_mean;
  };
  for (const Row& row : {Row{"vesde", true, false, false}, Row{"vesde", false, false, false},
                         Row{"vpsde", false, false, true}, Row{"vpsde", true, true, true},
                         Row{"subvpsde", true, false, true}, Row{"subvpsde", true, true, false}}) {
    SCOPED_TRACE(std::string(row.sde) + (row.continuous ? " continuous" : " discrete"));
    Config config = tiny_config();
    config.sde.name = row.sde;
    config.training.continuous = row.continuous;
    config.training.likelihood_weighting = row.likelihood;
    config.training.reduce_mean = row.reduce_mean;
    config.model.scale_by_sigma = config.sde.name == "vesde";
    if (config.sde.name == "vesde" && row.continuous) config.model.embedding_type = "fourier";
    Trainer trainer(config, images_, *context_);
    const RunState before = state_of(trainer.network(), trainer.optimizer());
    for (int i = 0; i < 3; ++i) {
      const Trainer::Step step = trainer.step();
      EXPECT_TRUE(step.is_finite() && step.loss > 0 && step.grad_norm > 0) << step.loss;
    }
    // Nothing is left out of training but what is frozen.
    const RunState after = state_of(trainer.network(), trainer.optimizer());
    for (const Optimizer::Slot& slot : trainer.optimizer().slots()) {
      const std::string name = "model." + slot.parameter.name;
      EXPECT_NE(after.at(name), before.at(name)) << name;
    }
  }
}

TEST_F(Training, Bf16LossIsCloseToF32) {
  Config config = tiny_config();
  Trainer single(config, images_, *context_);
  config.training.precision = "bf16";
  Trainer half(config, images_, *context_);
  const std::vector<double> expected = run(single, 6), actual = run(half, 6);
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(actual[i], expected[i], 0.03 * expected[i]) << "step " << i;
  EXPECT_NE(actual, expected);
}

TEST_F(Training, RefusesImagesOfAnotherSize) {
  const BarImages larger(5, 16), coloured(5, 8, 3);
  expect_error({"16 x 16 x 1", "8 x 8 x 1"}, [&] { Trainer(tiny_config(), larger, *context_); });
  expect_error({"8 x 8 x 3"}, [&] { Trainer(tiny_config(), coloured, *context_); });
}

// ---- bit for bit ------------------------------------------------------------------------------------------

TEST_F(Training, OneSeedIsOneRun) {
  const auto run_with = [&](std::uint64_t seed) {
    Config config = tiny_config();
    config.training.seed = seed;
    Trainer trainer(config, images_, *context_);
    run(trainer, 4);
    return state_of(trainer.network(), trainer.optimizer());
  };
  const RunState first = run_with(7);
  expect_same_bits(first, run_with(7));
  EXPECT_NE(first.at("model.conv_in.weight"), run_with(8).at("model.conv_in.weight"));
}

class TrainingIn : public Training, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    config_ = tiny_config();
    config_.training.precision = GetParam();
  }
  Config config_;
};

TEST_P(TrainingIn, ContinuesFromACheckpointBitForBit) {
  Trainer whole(config_, images_, *context_);
  const std::vector<double> expected = run(whole, 7);

  Trainer begun(config_, images_, *context_);
  run(begun, 3);
  const fs::path file = folder_.path() / "three";
  save_checkpoint(file, config_, begun.network(), begun.optimizer());
  Trainer continued(config_, images_, *context_);
  continued.load(file);
  EXPECT_EQ(continued.position(), 3);
  const std::vector<double> rest = run(continued, 4);
  EXPECT_EQ(rest, std::vector<double>(expected.begin() + 3, expected.end()));
  expect_same_bits(state_of(continued.network(), continued.optimizer()),
                   state_of(whole.network(), whole.optimizer()));
}

TEST_P(TrainingIn, AnInterruptedRunEndsAsAnUninterruptedOne) {
  EXPECT_EQ(run(config_, "whole"), RunEnd::finished);
  EXPECT_EQ(run(config_, "parts", false, stop_after(2)), RunEnd::interrupted);
  EXPECT_TRUE(fs::exists(checkpoint("parts", 2)));
  EXPECT_EQ(run(config_, "parts", true, stop_after(1)), RunEnd::interrupted);
  EXPECT_EQ(run(config_, "parts", true), RunEnd::finished);
  EXPECT_EQ(content_of(checkpoint("parts", 6)), content_of(checkpoint("whole", 6)));
  EXPECT_FALSE(content_of(checkpoint("whole", 6)).empty());
}

INSTANTIATE_TEST_SUITE_P(Precision, TrainingIn, testing::Values("f32", "bf16"),
                         [](const auto& row) { return std::string(row.param); });

TEST_F(Training, SnapshotsSeeTheAveragesAndChangeNothing) {
  Config config = tiny_config();
  config.training.snapshot_freq = 2;
  run(config, "silent");

  std::vector<std::int64_t> steps;
  Trainer trainer(config, images_, *context_);
  RunOptions options;
  options.workdir = folder_.path() / "drawn";
  options.snapshot = [&](MetricsWriter&) {
    steps.push_back(trainer.position());
    // What is drawn now is what the checkpoint draws later.
    const LoadedNetwork loaded = load_network(checkpoint("drawn", trainer.position()), *context_);
    SampleRequest request;
    request.shape = {2, 8, 8, 1};
    const auto sampler = create_sampler(trainer.sde(), config.sampling);
    const ScoreFn now = score_function(trainer.network(), trainer.sde(), true);
    const ScoreFn later = score_function(*loaded.network, trainer.sde(), true);
    EXPECT_EQ(sampler->sample(*context_, now, request).x.to_host(),
              sampler->sample(*context_, later, request).x.to_host());
  };
  testing::internal::CaptureStderr();
  EXPECT_EQ(train(trainer, options), RunEnd::finished);
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(steps, (std::vector<std::int64_t>{2, 4, 6}));
  EXPECT_EQ(content_of(checkpoint("drawn", 6)), content_of(checkpoint("silent", 6)));

  config.training.snapshot_sampling = false;
  options.workdir = folder_.path() / "off";
  options.snapshot = [](MetricsWriter&) { ADD_FAILURE() << "called"; };
  testing::internal::CaptureStderr();
  train(config, images_, *context_, options);
  testing::internal::GetCapturedStderr();
}

TEST_F(Training, SamplesDoNotDependOnTheBatch) {
  Trainer trainer(tiny_config(), images_, *context_);
  run(trainer, 30);
  const ScoreFn score = score_function(trainer.network(), trainer.sde(), true);
  constexpr std::int64_t kCount = 4;
  constexpr double kTolerance = 1e-3;  // of the ODE's solver
  const auto draw = [&](const std::string& method, double tolerance, std::int64_t batch) {
    SamplingConfig sampling = tiny_config().sampling;
    sampling.method = method;
    sampling.corrector = "langevin";
    sampling.rtol = sampling.atol = tolerance;
    const auto sampler = create_sampler(trainer.sde(), sampling);
    std::vector<float> all;
    for (std::int64_t first = 0; first < kCount; first += batch) {
      SampleRequest request;
      request.shape = {std::min<std::int64_t>(batch, kCount - first), 8, 8, 1};
      request.seed = 3;
      request.first_sample = static_cast<std::uint32_t>(first);
      const std::vector<float> some = sampler->sample(*context_, score, request).x.to_host();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  };
  const auto difference = [](const std::vector<float>& a, const std::vector<float>& b) {
    double squares = 0.0, error_squares = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      squares += std::pow(static_cast<double>(a[i]), 2);
      error_squares += std::pow(static_cast<double>(b.at(i)) - static_cast<double>(a[i]), 2);
    }
    return std::sqrt(error_squares / squares);
  };
  const std::vector<float> chains = draw("pc", kTolerance, kCount);
  for (const std::int64_t batch : {1, 3})
    EXPECT_LT(difference(chains, draw("pc", kTolerance, batch)), 1e-4) << batch;

  // Rounding may tip the balance between a step and a smaller one, so solutions differ by their errors.
  const std::vector<float> solved = draw("ode", kTolerance, kCount);
  const double error = difference(draw("ode", kTolerance / 10, kCount), solved);
  EXPECT_LT(error, 3e-2);
  EXPECT_LT(difference(solved, draw("ode", kTolerance, 3)), 2 * error);
}

// ---- the files of a run -----------------------------------------------------------------------------------

TEST_F(Training, MetricsReadAsIfNeverInterrupted) {
  Config config = tiny_config();
  config.training.n_iters = 9;
  config.training.snapshot_freq = 3;
  EXPECT_EQ(run(config, "run", false, stop_after(7)), RunEnd::interrupted);
  ASSERT_EQ(metrics("run").size(), 3u);
  fs::remove(checkpoint("run", 7));  // as if it had been killed: the checkpoint of step 6 is the last
  EXPECT_EQ(run(config, "run", true), RunEnd::finished);

  std::vector<std::int64_t> steps;
  for (const nlohmann::json& record : metrics("run")) {
    steps.push_back(record.at("step"));
    for (const char* key : {"loss", "grad_norm", "img_per_s", "time"})
      EXPECT_GT(record.at(key).get<double>(), 0.0) << key << " in " << record;
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{2, 4, 6, 8, 9}));
  EXPECT_DOUBLE_EQ(metrics("run")[0].at("lr").get<double>(),
                   1e-3);  // that of the second step, of two warm-up steps

  // The recorded loss is the mean since the record before.
  run(config, "whole");
  Trainer trainer(config, images_, *context_);
  const std::vector<double> losses = run(trainer, 9);
  const std::vector<nlohmann::json> whole = metrics("whole"), resumed = metrics("run");
  ASSERT_EQ(whole.size(), 5u);
  for (std::size_t i = 0; i < 4; ++i) {
    const double expected = (losses[2 * i] + losses[2 * i + 1]) / 2;
    EXPECT_DOUBLE_EQ(whole[i].at("loss").get<double>(), expected);
    EXPECT_DOUBLE_EQ(resumed[i].at("loss").get<double>(), expected);
  }
}

TEST_F(Training, AFolderHoldsOneRun) {
  Config config = tiny_config();
  run(config, "run");
  EXPECT_EQ(files_in(folder_.path() / "run" / "checkpoints"),
            std::vector<std::string>{"checkpoint_00000006.safetensors"});
  EXPECT_EQ(to_text(load_config(folder_.path() / "run" / "config.toml")), to_text(config));
  const std::string before = content_of(checkpoint("run", 6));
  expect_error({"run", "--resume"}, [&] { run(config, "run"); });
  EXPECT_EQ(content_of(checkpoint("run", 6)), before);

  // A finished run is not trained further, nor written again.
  EXPECT_EQ(run(config, "run", true), RunEnd::finished);
  EXPECT_EQ(content_of(checkpoint("run", 6)), before);
  // --resume in an empty folder starts a run.
  EXPECT_EQ(run(config, "new", true), RunEnd::finished);
  EXPECT_EQ(content_of(checkpoint("new", 6)), before);
}

TEST_F(Training, ResumesOnlyWhatItWas) {
  const Config config = tiny_config();
  run(config, "run");
  const std::string text = content_of(folder_.path() / "run" / "config.toml");
  const auto refused = [&](const std::vector<std::string>& parts, auto change) {
    Config other = config;
    change(other);
    expect_error(parts, [&] { run(other, "run", true); });
    EXPECT_EQ(content_of(folder_.path() / "run" / "config.toml"), text);
  };
  refused({"checkpoint_00000006", "[optim]", "lr", "0.5"}, [](Config& c) { c.optim.lr = 0.5; });
  refused({"[sde]", "name", "subvpsde"}, [](Config& c) { c.sde.name = "subvpsde"; });
  refused({"[model]", "nf"}, [](Config& c) { c.model.nf = 8; });
  refused({"[training]", "batch_size"}, [](Config& c) { c.training.batch_size = 2; });
  refused({"[training]", "seed"}, [](Config& c) { c.training.seed = 8; });
  refused({"[data]", "centered"}, [](Config& c) { c.data.centered = false; });

  Config longer = config;
  longer.training.n_iters = 8;
  longer.training.log_freq = 1;
  longer.training.snapshot_freq = 4;
  longer.sampling.steps = 10;
  longer.data.path = "elsewhere";
  EXPECT_EQ(run(longer, "run", true), RunEnd::finished);
  EXPECT_TRUE(fs::exists(checkpoint("run", 8)));
}

TEST_F(Training, KeepsTheNewestCheckpoints) {
  Config config = tiny_config();
  config.training.n_iters = 5;
  config.training.snapshot_freq = 1;
  for (const int keep : {1, 2, 0}) {
    config.training.keep_checkpoints = keep;
    const std::string workdir = "keep" + std::to_string(keep);
    run(config, workdir);
    const int expected = keep == 0 ? 5 : keep;
    EXPECT_EQ(std::ssize(files_in(folder_.path() / workdir / "checkpoints")), expected);
    for (int i = 0; i < expected; ++i)
      EXPECT_TRUE(fs::exists(checkpoint(workdir, 5 - i))) << keep << ' ' << i;
  }
}

// ---- ends in failure --------------------------------------------------------------------------------------

TEST_F(Training, StopsWhenTheLossIsNotFinite) {
  Config config = tiny_config();
  config.training.n_iters = 20;
  config.training.snapshot_freq = 1;
  config.training.keep_checkpoints = 0;
  config.optim.lr = 1e30;
  config.optim.warmup = 1;  // the first step moves nothing, the second ruins everything
  expect_error({"not finite", "optim.lr", "step"}, [&] { run(config, "run"); });
  for (const std::string& name : files_in(folder_.path() / "run" / "checkpoints"))
    EXPECT_TRUE(name.starts_with("checkpoint_")) << name;
  const auto last = latest_checkpoint(folder_.path() / "run");
  ASSERT_TRUE(last.has_value());
  EXPECT_LT(read_checkpoint_info(*last).step, 5);
  load_network(*last, *context_);

  // The run had a good state, and it is there.
  Trainer fresh(config, images_, *context_);
  fresh.step();
  const RunState expected = state_of(fresh.network(), fresh.optimizer());
  fresh.step();
  fresh.load(checkpoint("run", 1));
  expect_same_bits(state_of(fresh.network(), fresh.optimizer()), expected);
}

/// Fails to give image 3, as a damaged file does, from some read on.
class FailingImages final : public BarImages {
 public:
  using BarImages::BarImages;
  void read(std::int64_t i, std::span<std::uint8_t> out) const override {
    check(i != 3, "image_3.png: is damaged");
    BarImages::read(i, out);
  }
};

TEST_F(Training, AFailingDataSetEndsTheRun) {
  const FailingImages failing(5);
  RunOptions options;
  options.workdir = folder_.path() / "run";
  testing::internal::CaptureStderr();
  expect_error({"image_3.png"}, [&] { train(tiny_config(), failing, *context_, options); });
  testing::internal::GetCapturedStderr();
}

TEST_F(Training, NamesAWorkingDirectoryThatCannotBe) {
  folder_.write("file", "text");
  expect_error({"file"}, [&] { run(tiny_config(), "file"); });
  expect_error({"file/below"}, [&] { run(tiny_config(), "file/below"); });
  EXPECT_EQ(content_of(folder_.path() / "file"), "text");
}

}  // namespace
}  // namespace sgm
