// sgm: trains and samples score-based generative models.

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string_view>

#include "cli/commands.h"
#include "core/settle_process.h"
#include "sgm/core/error.h"
#include "sgm/io/printable.h"
#include "sgm/tensor/math.h"
#include "sgm/version.h"

namespace sgm::cli {
namespace {

// Far above any use; thread libraries end the program when they cannot start what they are asked for.
constexpr int kMaxThreads = 1024;

// The only way a signal handler can tell the program anything.
volatile std::sig_atomic_t stop_signal = 0;

void on_signal(int signal) {
  if (stop_signal) std::_Exit(kInterrupted);
  stop_signal = signal;
}

}  // namespace

CLI::Validator positive() {
  const auto refusal = [](const std::string& text) {
    double value = 0.0;
    const bool is_number = CLI::detail::lexical_cast(text, value);
    return is_number && value > 0.0 && std::isfinite(value) ? std::string()
                                                            : "must be a positive number, got " + text;
  };
  return CLI::Validator(refusal, "POSITIVE");
}

void watch_signals() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool stop_requested() { return stop_signal != 0; }

void DeviceOptions::add_to(CLI::App& command) {
  command.add_option("--device", device, "auto, cpu or cuda")->capture_default_str();
  command.add_option("--threads", threads, "CPU threads; 0: all cores")->check(CLI::Range(0, kMaxThreads));
  command.add_option("--max-memory", max_memory, "Most memory for tensors, e.g. 8GB; 0: all there is")
      ->transform(CLI::AsSizeValue(false));
}

std::string DeviceOptions::resolved() const {
  check(device == "auto" || device == "cpu" || device == "cuda", "--device '", device,
        "' is unknown; known: auto, cpu, cuda");
  if (device != "auto") return device;
  return why_no_cuda().empty() ? "cuda" : "cpu";
}

std::unique_ptr<Context> DeviceOptions::open() const {
  auto context = create_context(resolved(), threads, max_memory);
  const std::string no_cuda = device == "auto" ? why_no_cuda() : std::string();
  std::cerr << "device: " << context->describe() << (no_cuda.empty() ? "" : "; no GPU: " + no_cuda) << '\n';
  return context;
}

std::vector<Image> to_images(const Tensor& samples, bool centered, PixelRule rule) {
  const double factor = centered ? 0.5 : 1.0, shift = centered ? 0.5 : 0.0;
  return sgm::to_images(to_bytes(samples, factor, shift, rule), samples.shape());
}

namespace {

/// One line, whatever names from files and command lines it holds.
int report(std::string_view error) {
  std::cerr << "sgm: error: " << printable(error, 2000) << '\n';
  return kBadInput;
}

int run(int argc, char** argv) {
  CLI::App app{"sgm: score-based generative models through stochastic differential equations"};
  app.set_version_flag("--version", std::string("sgm ") + kVersion);
  app.require_subcommand(0, 1);
  Command chosen;
  for (const auto add : {add_train, add_classify_train, add_sample, add_inpaint, add_colorize, add_eval,
                         add_likelihood, add_encode, add_decode, add_interpolate, add_identify, add_lab,
                         add_prove, add_verify, add_data, add_info, add_doctor, add_profile})
    add(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return report(std::string(error.what()) + "; see sgm --help");
  }
  if (!chosen) {
    std::string names;
    for (const CLI::App* command : app.get_subcommands({}))
      names += (names.empty() ? "" : ", ") + command->get_name();
    return report("a command is missing: one of " + names + "; see sgm --help");
  }
  return chosen();
}

/// What a command printed must have arrived: the disk behind a redirected output may be full.
int flushed(int code) {
  std::cout.flush();
  const bool is_written = std::cout.good() && std::fflush(stdout) == 0 && !std::ferror(stdout);
  return is_written ? code
                    : report("standard output cannot be written; free some space or redirect it elsewhere");
}

}  // namespace
}  // namespace sgm::cli

int main(int argc, char** argv) {
  using namespace sgm::cli;
  sgm::settle_process(argv);
  // A file above the shell's limit is then an error of the write, which leaves no half-written file behind.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return flushed(run(argc, argv));
  } catch (const std::bad_alloc&) {
    return report("out of memory; use a smaller batch or model");
  } catch (const std::exception& error) {
    return report(error.what());
  }
}
