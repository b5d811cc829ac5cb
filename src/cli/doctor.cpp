// sgm doctor: what this build and this machine can do, and the remedy for what they cannot.

#include <unistd.h>

#include <fstream>
#include <iostream>
#include <string>

#include "cli/commands.h"
#include "sgm/version.h"

namespace sgm::cli {
namespace {

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

int doctor_command(const DeviceOptions& device) {
  std::cout << "sgm " << kVersion << ", built with " << kCompiler << " for " << kTarget << '\n';
  std::cout << "processor: " << cpu_model() << ", " << sysconf(_SC_NPROCESSORS_ONLN) << " cores\n";
  std::cout << create_context("cpu", device.threads)->describe() << '\n';
  const bool bf16 = __builtin_cpu_supports("avx512bf16") != 0;
  std::cout << "bf16: "
            << (bf16 ? "fast (AVX512-BF16)" : "slow: this processor has no AVX512-BF16; use --precision f32")
            << '\n';
  if (const std::string problem = why_no_cuda(); problem.empty())
    std::cout << create_context("cuda", 0, device.max_memory)->describe() << '\n';
  else
    std::cout << "cuda: " << problem << "; every command runs on the CPU\n";
  if (const std::string versions = cuda_library_versions(); !versions.empty())
    std::cout << "cuda libraries: " << versions << '\n';
  return kDone;
}

}  // namespace

void add_doctor(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<DeviceOptions>();
  CLI::App* command = app.add_subcommand("doctor", "Say what this build and machine can do");
  o->add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return doctor_command(*o); }; });
}

}  // namespace sgm::cli
