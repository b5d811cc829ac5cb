// Memory of training: what a plan predicts is what a run takes; recomputation changes no bit, micro-batches
// only roundings.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "expect_error.h"
#include "sgm/score/score_model.h"
#include "sgm/train/classifier_trainer.h"
#include "sgm/train/memory_plan.h"
#include "sgm/train/trainer.h"
#include "tiny_training.h"

namespace sgm {
namespace {

constexpr int kThreads = 2;

class LabelledBars final : public BarImages {
 public:
  using BarImages::BarImages;
  int label(std::int64_t i) const override { return static_cast<int>(i % 2); }
  int num_classes() const override { return 2; }
};

/// Every kind of network and of loss, batches of four.
std::vector<Config> trainings() {
  Config ddpm = tiny_config();
  ddpm.training.batch_size = 4;
  ddpm.model.init_scale = 1.0;  // no layer is dumb at the start
  Config ncsnpp = ddpm;
  ncsnpp.sde.name = "vesde";
  ncsnpp.model.fir = true;
  ncsnpp.model.progressive = "output_skip";
  ncsnpp.model.progressive_input = "residual";
  ncsnpp.model.embedding_type = "fourier";
  ncsnpp.model.scale_by_sigma = true;
  ddpm.model.resblock_type = "ddpm";
  Config refine = ddpm;
  refine.sde.name = "vesde";
  refine.sde.num_scales = 10;
  refine.model.name = "ncsn";
  refine.training.continuous = false;
  Config differences = ncsnpp;
  differences.training.loss = "fd_ssm";
  Config points = ddpm;
  points.data.image_size = 1;
  points.data.num_channels = 2;
  points.model.name = "mlp";
  points.model.hidden = {16, 16};
  points.training.loss = "ssm";
  return {ddpm, ncsnpp, refine, differences, points};
}

std::string name_of(const Config& config) {
  return config.model.name + ", " + config.sde.name + ", " + config.training.loss + ", " +
         config.training.precision;
}

MakeTrainee score_training(const Dataset& images) {
  return
      [&images](const Config& c, Context& context) { return std::make_unique<Trainer>(c, images, context); };
}

RunState state_after(const Config& config, int steps) {
  const auto context = create_context("cpu", kThreads);
  const BarImages images(7, config.data.image_size, config.data.num_channels);
  Trainer trainer(config, images, *context);
  for (int i = 0; i < steps; ++i) trainer.launch();
  EXPECT_TRUE(trainer.read().is_finite());
  return state_of(trainer.network(), trainer.optimizer());
}

/// |a - b| / |b| over all tensors whose names begin so.
double distance(const RunState& a, const RunState& b, const std::string& prefix) {
  double error = 0.0, square = 0.0;
  for (const auto& [name, values] : b) {
    if (!name.starts_with(prefix)) continue;
    for (std::size_t i = 0; i < values.size(); ++i) {
      error += std::pow(a.at(name)[i] - values[i], 2);
      square += std::pow(values[i], 2);
    }
  }
  return std::sqrt(error / square);
}

void expect_as_planned(const Config& config, const MakeTrainee& make) {
  const MemoryPlan plan = plan_memory(config, "cpu", kThreads, make);
  const auto context = create_context("cpu", kThreads);
  const auto trainee = make(config, *context);
  trainee->launch(), trainee->launch();
  const std::size_t settled = context->memory().reserved;
  for (int i = 0; i < 3; ++i) trainee->launch(), trainee->read();
  const MemoryStats stats = context->memory();
  EXPECT_EQ(stats.reserved, settled) << "a later step took memory from the system";
  EXPECT_EQ(plan.peak, stats.peak);
  EXPECT_EQ(plan.held, stats.reserved);
  EXPECT_EQ(plan.state, stats.in_use);
  EXPECT_EQ(plan.activations, trainee->activation_bytes());
  EXPECT_LT(plan.state + plan.activations, plan.peak);
}

TEST(MemoryPlan, IsWhatTrainingTakes) {
  for (Config config : trainings()) {
    const BarImages images(7, config.data.image_size, config.data.num_channels);
    SCOPED_TRACE(name_of(config));
    expect_as_planned(config, score_training(images));
    config.training.precision = "bf16";
    config.training.recompute = true;
    config.training.micro_batch = 2;
    expect_as_planned(config, score_training(images));
    config.training.micro_batch = 0;
    config.training.late_gradients = true;
    expect_as_planned(config, score_training(images));
  }
}

TEST(MemoryPlan, IsWhatTrainingAClassifierTakes) {
  Config config = trainings().front();
  config.classifier.base_width = 8;
  config.classifier.widen_factor = 2;
  config.classifier.blocks = 1;
  config.classifier.embedding = 8;
  const LabelledBars images(7);
  for (const int micro : {0, 1}) {
    config.training.micro_batch = micro;
    expect_as_planned(config, [&](const Config& c, Context& context) {
      return std::make_unique<ClassifierTrainer>(c, images, context);
    });
  }
}

/// Calls body(config) with every training in every precision that this processor is fast in.
template <class Body>
void for_each_training(Body&& body) {
  for (Config config : trainings())
    for (const char* precision : {"f32", "bf16"}) {
      config.training.precision = precision;
      SCOPED_TRACE(name_of(config));
      body(config);
    }
}

TEST(Recomputation, ChangesNoBit) {
  for_each_training([](Config config) {
    const RunState kept = state_after(config, 3);
    config.training.recompute = true;
    expect_same_bits(state_after(config, 3), kept);
  });
}

TEST(LateGradients, ChangeNoBit) {
  int smaller = 0;
  for_each_training([&](Config config) {
    const RunState kept = state_after(config, 3);
    const BarImages images(7, config.data.image_size, config.data.num_channels);
    const auto peak = [&] { return plan_memory(config, "cpu", kThreads, score_training(images)).peak; };
    const std::size_t before = peak();
    config.training.late_gradients = true;
    expect_same_bits(state_after(config, 3), kept);
    EXPECT_LE(peak(), before);
    smaller += peak() < before;
    config.training.recompute = true;  // makes outputs of 3x3 filters again, too
    expect_same_bits(state_after(config, 3), kept);
  });
  EXPECT_GT(smaller, 0) << "no gradient was late";
}

TEST(LateGradients, LeaveHalfOfTheRoomOfGradientsInThePapersNetwork) {
  Config config = load_config(SGM_SOURCE_DIR "/configs/ve_cifar10_ncsnpp_continuous.toml");
  config.training.batch_size = 4;
  config.training.recompute = true;
  const auto images = random_dataset(config.data.image_size, config.data.num_channels);
  for (const char* precision : {"f32", "bf16"}) {
    config.training.precision = precision;
    const auto beside_state = [&](bool late) {
      config.training.late_gradients = late;
      const MemoryPlan plan = plan_memory(config, "cpu", kThreads, score_training(*images));
      EXPECT_LE(100 * plan.held, 103 * plan.peak) << precision;
      return plan.peak - plan.state;
    };
    EXPECT_LE(100 * beside_state(true), 52 * beside_state(false)) << precision;
  }
}

TEST(Recomputation, HalvesTheActivationsOfThePapersNetwork) {
  Config config = load_config(SGM_SOURCE_DIR "/configs/ve_cifar10_ncsnpp_continuous.toml");
  config.training.batch_size = 4;
  const auto images = random_dataset(config.data.image_size, config.data.num_channels);
  for (const char* precision : {"f32", "bf16"}) {
    config.training.precision = precision;
    const auto activations = [&](bool recompute) {
      config.training.recompute = recompute;
      return plan_memory(config, "cpu", kThreads, score_training(*images)).activations;
    };
    EXPECT_LE(2 * activations(true), activations(false)) << precision;
  }
}

TEST(MemoryPlan, HoldsLittleMoreThanIsInUse) {
  Config config = load_config(SGM_SOURCE_DIR "/configs/ve_cifar10_ncsnpp_continuous.toml");
  config.training.batch_size = 4;
  const auto images = random_dataset(config.data.image_size, config.data.num_channels);
  for (const char* precision : {"f32", "bf16"})
    for (const bool recompute : {false, true}) {
      config.training.precision = precision;
      config.training.recompute = recompute;
      const MemoryPlan plan = plan_memory(config, "cpu", kThreads, score_training(*images));
      EXPECT_LE(100 * plan.held, 103 * plan.peak) << precision << (recompute ? ", recomputed" : "");
    }
}

TEST(MemoryPlan, PackedWeightsOfSamplesGoWithTheNextStep) {
  const Config config = trainings().front();
  const BarImages images(7);
  const auto context = create_context("cpu", kThreads);
  Trainer trainer(config, images, *context);
  trainer.launch(), trainer.launch();
  const MemoryStats before = context->memory();
  {
    const ScoreFn score = score_function(trainer.network(), trainer.sde(), config.training.continuous);
    score_at(score, Tensor::zeros(*context, {4, 8, 8, 1}), {.t = 0.5, .k = 1, .num_scales = 1000});
    trainer.network().set_requires_grad(true);
  }
  EXPECT_GT(context->memory().in_use, before.in_use) << "no weights were packed";
  trainer.launch();
  EXPECT_EQ(context->memory().in_use, before.in_use);
}

TEST(MicroBatches, ChangeOnlyRoundings) {
  for (Config config : trainings()) {
    SCOPED_TRACE(name_of(config));
    config.optim.warmup = 0;
    const RunState whole = state_after(config, 1);
    for (const int micro : {1, 2, 4}) {
      config.training.micro_batch = micro;
      const RunState parts = state_after(config, 1);
      if (micro == 4) {
        expect_same_bits(parts, whole);
        continue;
      }
      // After one step the first moments are the gradient, up to a factor: roundings of f32 sums.
      EXPECT_LT(distance(parts, whole, "adam.m."), 1e-5) << "micro-batches of " << micro;
      EXPECT_FALSE(differing(parts, whole).empty()) << "nothing was split";
    }
  }
}

TEST(MicroBatches, SumBf16GradientsInF32) {
  const auto context = create_context("cpu", 1);
  const Var leaf(Tensor::zeros(*context, {1}), true);
  const auto contribute = [&](double gradient) {
    record("half", Tensor::zeros(*context, {1}), {leaf},
           [&, gradient](const Gradient&, InputGradients& into) {
             into.add(0, {Tensor::full(*context, {1}, gradient, DType::bf16)});
           })
        .backward(Tensor::full(*context, {1}, 1.0));
  };
  contribute(1.0);
  for (int i = 0; i < 64; ++i) contribute(1.0 / 1024);  // bf16 has 8 bits: 1 + 1/1024 is 1 there
  EXPECT_EQ(leaf.grad().item(), 1.0625);
}

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

/// A plan that needs 100 MiB an image, half of that with recomputation, and for the rest 50, or 30 with late
/// gradients.
MemoryPlan invented(const Config& config) {
  const int micro = config.training.images_at_once();
  const bool recompute = config.training.recompute;
  return {.micro_batch = micro,
          .recompute = recompute,
          .late_gradients = config.training.late_gradients,
          .held = kMebibyte * ((config.training.late_gradients ? 30 : 50) +
                               static_cast<std::size_t>(micro) * (recompute ? 50 : 100))};
}

TEST(MemoryFit, TakesTheCheapestThatFits) {
  Config config;
  config.training.batch_size = 12;
  struct Row {
    std::size_t limit;
    int micro;
    bool recompute, late;
  };
  for (const Row& row : {Row{0, 12, false, false}, Row{1250, 12, false, false}, Row{1249, 12, true, false},
                         Row{650, 12, true, false}, Row{649, 12, true, true}, Row{630, 12, true, true},
                         Row{629, 6, true, false}, Row{250, 3, true, false}, Row{150, 1, false, false},
                         Row{100, 1, true, false}}) {
    const MemoryPlan plan = fit_memory(config, row.limit * kMebibyte, invented);
    EXPECT_EQ(plan.micro_batch, row.micro) << row.limit;
    EXPECT_EQ(plan.recompute, row.recompute) << row.limit;
    EXPECT_EQ(plan.late_gradients, row.late) << row.limit;
    EXPECT_EQ(plan.apply(config).training.late_gradients, row.late) << row.limit;
    EXPECT_EQ(plan.apply(config).training.micro_batch, row.micro == 12 ? 0 : row.micro);
  }
  config.training.recompute = config.training.late_gradients = true;  // the user's word stands
  EXPECT_TRUE(fit_memory(config, 0, invented).recompute);
  EXPECT_TRUE(fit_memory(config, 0, invented).late_gradients);
  config.training.late_gradients = false;
  expect_error({"99", "micro-batches of 1", "recomputation", "100"},
               [&] { fit_memory(config, 99 * kMebibyte, invented); });
}

TEST(MemoryFit, TakesLateGradientsAloneWhereTheyAreEnough) {
  const auto small_images = [](const Config& config) {  // most of the memory is gradients
    const TrainingConfig& given = config.training;
    return MemoryPlan{
        .micro_batch = given.batch_size,
        .recompute = given.recompute,
        .late_gradients = given.late_gradients,
        .held = kMebibyte * (400 - (given.recompute ? 20 : 0) - (given.late_gradients ? 50 : 0))};
  };
  Config config;
  config.training.batch_size = 12;
  for (const auto& [limit, recompute, late] :
       {std::tuple{400, false, false}, {380, true, false}, {350, false, true}, {330, true, true}}) {
    const MemoryPlan plan = fit_memory(config, static_cast<std::size_t>(limit) * kMebibyte, small_images);
    EXPECT_EQ(plan.recompute, recompute) << limit;
    EXPECT_EQ(plan.late_gradients, late) << limit;
  }
}

TEST(MemoryLimit, HoldsOnTheCpu) {
  const auto context = create_context("cpu", kThreads, std::size_t{1} << 20);
  const Tensor most = Tensor::empty(*context, {200000});
  expect_error({"memory", "--max-memory"}, [&] { Tensor::empty(*context, {100000}); });
  EXPECT_EQ(Tensor::full(*context, {10000}, 2.0).to_host()[9999], 2.0f);
  EXPECT_LE(context->memory().reserved, std::size_t{1} << 20);
}

TEST(DryCpu, TouchesNoMemory) {
  const auto context = create_context("cpu-dry", kThreads);
  Tensor huge = Tensor::full(*context, {std::int64_t{1} << 40}, 1.0, DType::f64);
  EXPECT_GE(context->memory().in_use, std::size_t{1} << 43);
  Tensor small = Tensor::full(*context, {3}, 1.0);
  small.add(small);
  EXPECT_EQ(small.to_host(), (std::vector<float>{0, 0, 0}));
}

}  // namespace
}  // namespace sgm
