// sgm verify: compares a network with a reference file.

#include <cstdio>

#include "cli/commands.h"
#include "sgm/train/verify.h"

namespace sgm::cli {
namespace {

struct CheckOptions {
  std::string file;
  VerifyOptions verify;
  int rows = 20;
  DeviceOptions device;
};

int verify_command(const CheckOptions& options) {
  const auto context = options.device.open();
  const VerifyReport report = verify_reference(options.file, options.verify, *context);
  std::printf("%s: %s, %lld parameters, %s\n", options.file.c_str(), report.network.c_str(),
              static_cast<long long>(report.parameters), options.verify.precision.c_str());
  std::printf("%-12s %-12s %s\n", "rel. L2", "tolerance", "tensor, worst first");
  int failed = 0, shown = 0;
  for (const VerifyError& e : report.errors) {
    failed += !e.passes();
    if (options.rows == 0 || shown < options.rows || e.name == "output") {
      std::printf("%-12.3e %-12.1e %s%s\n", e.error, e.tolerance, e.name.c_str(),
                  e.passes() ? "" : "  FAILS");
      ++shown;
    }
  }
  std::printf("%zu tensors compared, %d over tolerance: %s\n", report.errors.size(), failed,
              failed ? "FAILED" : "passed");
  return failed ? kCheckFailed : kDone;
}

}  // namespace

void add_verify(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<CheckOptions>();
  CLI::App* command =
      app.add_subcommand("verify", "Compare a network, forward and backward, with a reference file");
  command->add_option("file", o->file, "safetensors file: config, weights, input, output, gradients")
      ->required();
  command->add_option("--precision", o->verify.precision, "f32, bf16 or f64 (CPU only, slow, exact)")
      ->capture_default_str();
  command->add_option("--tolerance", o->verify.output_tolerance, "Of the output's relative L2 error")
      ->check(positive());
  command
      ->add_option("--gradient-tolerance", o->verify.gradient_tolerance,
                   "Of the gradients' relative L2 errors")
      ->check(positive());
  command->add_option("--rows", o->rows, "Lines to print; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  o->device.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return verify_command(*o); }; });
}

}  // namespace sgm::cli
