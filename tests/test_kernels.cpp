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

/// The row's outputs, once they have been found to be what its formulas say.
std::vector<std::vector<double>> outputs(Context& device, const KernelRow& row, DType dtype) {
  std::vector<std::vector<double>> all;
  Guarded::record = &all;
  row.check(device, dtype);
  Guarded::record = nullptr;
  return all;
}

void expect_agreement(const std::vector<std::vector<double>>& actual,
                      const std::vector<std::vector<double>>& expected, DType dtype) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i].size(), expected[i].size());
    EXPECT_LE(relative_l2(actual[i], expected[i]), dtype == DType::bf16 ? 8e-3 : 1e-6) << "output " << i;
  }
}

/// Other devices also agree with the CPU, and launch what their ops say they cost.
TEST_P(Kernels, ComputeTheirFormulasAndKeepWithinTheirOperands) {
  const auto cpu = create_context("cpu", 2);
  for (const KernelRow& row : all_kernels())
    for (const DType dtype : row.types(context())) {
      SCOPED_TRACE(std::string(row.name) + ' ' + std::string(name_of(dtype)));
      if (context().is_cpu()) {  // where an op is its own launch
        row.check(context(), dtype);
        continue;
      }
      std::vector<std::vector<double>> actual;
      {
        const CostCheck costs(context());
        actual = outputs(context(), row, dtype);
        EXPECT_GT(costs.ops(), 0);
      }
      expect_agreement(actual, outputs(*cpu, row, dtype), dtype);
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
