// Every kernel op of kernels/, called as the struct it is. kernels/sampling.h has its own tests.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "devices.h"
#include "kernel_checks.h"

namespace sgm {
namespace {

std::vector<KernelRow> all_kernels() {
  std::vector<KernelRow> rows;
  for (const auto& family : {elementwise_kernels(), conv_kernels(), image_kernels(), training_kernels()})
    rows.insert(rows.end(), family.begin(), family.end());
  return rows;
}

using Kernels = DeviceTest;
INSTANTIATE_TEST_SUITE_P(Devices, Kernels, testing::ValuesIn(test_devices()), device_name);

TEST_P(Kernels, ComputeTheirFormulasAndKeepWithinTheirOperands) {
  for (const KernelRow& row : all_kernels())
    for (const DType dtype : storage_types(context())) {
      SCOPED_TRACE(std::string(row.name) + ' ' + std::string(name_of(dtype)));
      row.check(context(), dtype);
    }
}

TEST(KernelTable, HasEveryOp) {
  std::set<std::string> rows, declared;
  for (const KernelRow& row : all_kernels()) rows.insert(row.name);
  for (const auto& entry : std::filesystem::directory_iterator(SGM_SOURCE_DIR "/kernels")) {
    if (entry.path().extension() != ".h" || entry.path().filename() == "sampling.h") continue;
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
