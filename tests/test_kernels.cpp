// Every kernel op of kernels/, called as the struct it is. What samplers alone use is in test_sampling_ops.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <string>

#include "cost_check.h"
#include "devices.h"
#include "kernel_checks.h"

namespace sgm {
namespace {

std::vector<KernelRow> all_kernels() {
  std::vector<KernelRow> rows;
  for (const auto& family : {elementwise_kernels(), conv_kernels(), image_kernels(), training_kernels(),
                             classifier_kernels(), score_kernels(), refine_kernels(), attention_kernels()})
    rows.insert(rows.end(), family.begin(), family.end());
  return rows;
}

using Kernels = DeviceTest;
INSTANTIATE_TEST_SUITE_P(Devices, Kernels, testing::ValuesIn(test_devices()), device_name);

TEST_P(Kernels, ComputeTheirFormulasAndKeepWithinTheirOperands) {
  for (const KernelRow& row : all_kernels())
    for (const DType dtype : row.types(context())) {
      SCOPED_TRACE(std::string(row.name) + ' ' + std::string(name_of(dtype)));
      row.check(context(), dtype);
    }
}

/// |actual - expected| / |expected|; what is not finite must be the same on both sides.
double relative_l2(const std::vector<double>& actual, const std::vector<double>& expected) {
  double error = 0.0, square = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(expected[i])) {
      const bool same = std::isnan(expected[i]) ? std::isnan(actual[i]) : actual[i] == expected[i];
      if (!same) return std::numeric_limits<double>::infinity();
      continue;
    }
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    square += expected[i] * expected[i];
  }
  return error == 0.0 ? 0.0 : std::sqrt(error / square);
}

TEST_P(Kernels, AgreeWithTheCpus) {
  if (context().is_cpu()) GTEST_SKIP() << "compares other devices with the CPU";
  const auto cpu = create_context("cpu", 2);
  const auto outputs = [](Context& device, const KernelRow& row, DType dtype) {
    std::vector<std::vector<double>> all;
    Guarded::record = &all;
    row.check(device, dtype);
    Guarded::record = nullptr;
    return all;
  };
  for (const KernelRow& row : all_kernels())
    for (const DType dtype : row.types(context())) {
      SCOPED_TRACE(std::string(row.name) + ' ' + std::string(name_of(dtype)));
      const auto actual = outputs(context(), row, dtype), expected = outputs(*cpu, row, dtype);
      ASSERT_EQ(actual.size(), expected.size());
      for (std::size_t i = 0; i < actual.size(); ++i) {
        ASSERT_EQ(actual[i].size(), expected[i].size());
        EXPECT_LE(relative_l2(actual[i], expected[i]), dtype == DType::bf16 ? 8e-3 : 1e-6) << "output " << i;
      }
    }
}

TEST_P(Kernels, LaunchWhatTheySayTheyCost) {
  if (context().is_cpu()) GTEST_SKIP() << "there an op is its own launch";
  for (const KernelRow& row : all_kernels())
    for (const DType dtype : row.types(context())) {
      SCOPED_TRACE(std::string(row.name) + ' ' + std::string(name_of(dtype)));
      const CostCheck costs(context());
      row.check(context(), dtype);
      EXPECT_GT(costs.ops(), 0);
    }
}

TEST(KernelTable, HasEveryOp) {
  std::set<std::string> rows, declared;
  for (const KernelRow& row : all_kernels()) rows.insert(row.name);
  for (const auto& entry : std::filesystem::directory_iterator(SGM_SOURCE_DIR "/kernels")) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() != ".h" || name == "sampling.h" || name == "replace.h") continue;
    std::ifstream file(entry.path());
    std::string line, current;
    while (std::getline(file, line)) {
      if (line.starts_with("struct ")) current = line.substr(7, line.find(' ', 7) - 7);
      if (line.find("void cpu(Context") != std::string::npos) declared.insert(current);
    }
  }
  EXPECT_GE(declared.size(), 24u);
  EXPECT_EQ(rows, declared);
}

}  // namespace
}  // namespace sgm
