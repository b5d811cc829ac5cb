// What a training step launches on a GPU, counted without one.

#include <gtest/gtest.h>

#include "cost_check.h"
#include "sgm/data/dataset.h"
#include "sgm/train/trainer.h"

namespace sgm {
namespace {

struct StepCount {
  std::int64_t launches = 0;
  double memory_bytes = 0, product_bytes = 0;
  std::int64_t parameters = 0;
};

StepCount count_step(const std::string& config_name, int batch_size) {
  Config config = load_config(std::string(SGM_SOURCE_DIR "/configs/") + config_name);
  config.training.batch_size = batch_size;
  config.training.precision = "bf16";
  const auto context = create_context("cuda-dry");
  const auto dataset = random_dataset(config.data.image_size, config.data.num_channels);
  Trainer trainer(config, *dataset, *context);
  trainer.launch();  // the first step also makes the copies that later ones keep
  context->take_launch_counts();
  trainer.launch();
  StepCount count;
  for (const LaunchCount& kernel : context->take_launch_counts()) {
    count.launches += kernel.launches;
    (kernel.kind == Traffic::product ? count.product_bytes : count.memory_bytes) +=
        static_cast<double>(kernel.bytes);
  }
  for (const Parameter& parameter : trainer.network().parameters())
    count.parameters += parameter.var->value().numel();
  return count;
}

TEST(Launches, OfATrainingStepAreFewAndMoveLittle) {
  constexpr int kImages = 128;
  const StepCount step = count_step("ve_cifar10_ncsnpp_continuous.toml", kImages);
  EXPECT_LE(step.launches, 649);
  EXPECT_GE(step.launches, 400);  // convolutions and products alone
  // With everything fused that can be, a step moves 71.7 MB per image between its products, and the optimiser
  // 42 bytes per parameter: p, m, v and average read and written, the bf16 copy written, a bf16 gradient read
  // twice.
  const double floor = 71.7e6 * kImages + 42.0 * static_cast<double>(step.parameters);
  EXPECT_LE(step.memory_bytes, 1.15 * floor);
  EXPECT_GE(step.memory_bytes, 0.8 * floor);
}

TEST(Launches, DoNotGrowWithTheBatch) {
  const StepCount one = count_step("ve_cifar10_ncsnpp_continuous.toml", 8),
                  two = count_step("ve_cifar10_ncsnpp_continuous.toml", 16);
  EXPECT_EQ(one.launches, two.launches);
  EXPECT_GT(two.memory_bytes, one.memory_bytes);
}

/// The arithmetic of a network on one image of its training batch.
struct Arithmetic {
  double forward = 0, backward = 0;
};

Arithmetic count_arithmetic(const std::string& config_name, DType compute) {
  constexpr std::int64_t kImages = 4;
  const Config config = load_config(std::string(SGM_SOURCE_DIR "/configs/") + config_name);
  const auto context = create_context("cuda-dry");
  const auto network = create_network(config, *context, DType::f32, false);
  const CostCheck costs(*context);
  const std::int64_t size = config.data.image_size;
  const Tensor x = Tensor::empty(*context, {kImages, size, size, config.data.num_channels}, DType::f32);
  const Tensor label = Tensor::empty(*context, {kImages}, DType::f64);
  const auto flop = [&] {
    double sum = 0;
    for (const LaunchCount& kernel : context->take_launch_counts()) sum += kernel.flop;
    return sum / static_cast<double>(kImages);
  };
  flop();
  const Var y = network->forward(Var(x), label, {.compute = compute, .training = true, .noise = {}});
  Arithmetic result;
  result.forward = flop();
  y.backward(Tensor::empty(*context, y.shape(), y.value().dtype()));
  result.backward = flop();
  return result;
}

TEST(Launches, DoTheArithmeticOfTheArchitectureAndNoMore) {
  // Counted from the published architectures with hooks on the modules of a PyTorch model.
  for (const auto& [name, forward, both] :
       {std::tuple{"ve_cifar10_ncsnpp_continuous.toml", 21.75e9, 65.41e9},
        std::tuple{"vp_cifar10_ddpmpp_continuous.toml", 21.69e9, 65.24e9}})
    for (const DType compute : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(name);
      const Arithmetic counted = count_arithmetic(name, compute);
      EXPECT_NEAR(counted.forward, forward, 0.005 * forward);
      EXPECT_NEAR(counted.forward + counted.backward, both, 0.005 * both);
    }
}

}  // namespace
}  // namespace sgm
