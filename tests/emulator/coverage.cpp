// The main function of the kernel tests in the emulator: at their end every kernel of kernels/ must have run,
// and nothing of the real backend may be in the executable.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/cuda_emulator.h"

namespace {

/// Names of the __global__ functions of a source text.
std::vector<std::string> kernels_of(const std::string& text) {
  constexpr std::string_view kMark = "__global__", kBounds = "__launch_bounds__";
  std::vector<std::string> names;
  for (std::size_t at = text.find(kMark); at != std::string::npos; at = text.find(kMark, at)) {
    at += kMark.size();
    if (const std::size_t bounds = text.find(kBounds, at); bounds < text.find('{', at))
      at = text.find(')', bounds) + 1;
    const std::size_t end = text.find('(', at), space = text.find_last_of(" \n", end);
    names.push_back(text.substr(space + 1, end - space - 1));
  }
  return names;
}

class Coverage : public testing::Environment {
 public:
  void TearDown() override {
    if (testing::GTEST_FLAG(filter) != "*") return;
    const std::vector<std::string> run = sgm::emulator::kernels_run();
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(SGM_SOURCE_DIR "/kernels")) {
      if (entry.path().extension() != ".cu") continue;
      std::ifstream file(entry.path());
      for (const std::string& name : kernels_of({std::istreambuf_iterator<char>(file), {}})) {
        ++count;
        EXPECT_TRUE(std::find(run.begin(), run.end(), name) != run.end())
            << "no test runs " << name << " of " << entry.path().filename();
      }
    }
    EXPECT_GE(count, 2u) << "kernels are not where this test looks for them";
    // An op that library_ops.cpp lacks brings the real one into the executable, and with it its library.
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);)
      for (const char* library : {"libcudart", "libcudnn", "libcublas"})
        ASSERT_EQ(line.find(library), std::string::npos) << line;
  }
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::AddGlobalTestEnvironment(new Coverage);
  return RUN_ALL_TESTS();
}
