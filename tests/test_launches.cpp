// What a training step launches on a GPU, counted without one.

#include <gtest/gtest.h>

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
  constexpr int kBatch = 128;
  const StepCount step = count_step("ve_cifar10_ncsnpp_continuous.toml", kBatch);
  EXPECT_LE(step.launches, 704);
  EXPECT_GE(step.launches, 400);  // convolutions and products alone
  // With everything fused that can be, a step moves 71.7 MB per image between its products, and the optimiser
  // 42 bytes per parameter: p, m, v and average read and written, the bf16 copy written, a bf16 gradient read
  // twice.
  const double floor = 71.7e6 * kBatch + 42.0 * static_cast<double>(step.parameters);
  EXPECT_LE(step.memory_bytes, 1.18 * floor);
  EXPECT_GE(step.memory_bytes, 0.8 * floor);
}

TEST(Launches, DoNotGrowWithTheBatch) {
  const StepCount one = count_step("ve_cifar10_ncsnpp_continuous.toml", 8),
                  two = count_step("ve_cifar10_ncsnpp_continuous.toml", 16);
  EXPECT_EQ(one.launches, two.launches);
  EXPECT_GT(two.memory_bytes, one.memory_bytes);
}

}  // namespace
}  // namespace sgm
