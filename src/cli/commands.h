#pragma once
// The commands of `sgm`. Each adds its options to the parser and leaves behind what to run.

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sgm/core/config.h"
#include "sgm/core/context.h"
#include "sgm/core/pixel.h"
#include "sgm/data/image.h"
#include "sgm/tensor/tensor.h"

namespace sgm::cli {

/// Exit codes.
inline constexpr int kDone = 0, kCheckFailed = 1, kBadInput = 2, kInterrupted = 130;

using Command = std::function<int()>;

/// For options that take numbers above zero; unlike CLI11's own it refuses NaN and infinity, and says so
/// briefly.
CLI::Validator positive();

void add_train(CLI::App& app, Command& chosen);
void add_classify_train(CLI::App& app, Command& chosen);
void add_sample(CLI::App& app, Command& chosen);
void add_inpaint(CLI::App& app, Command& chosen);
void add_colorize(CLI::App& app, Command& chosen);
void add_eval(CLI::App& app, Command& chosen);
void add_likelihood(CLI::App& app, Command& chosen);
void add_encode(CLI::App& app, Command& chosen);
void add_decode(CLI::App& app, Command& chosen);
void add_interpolate(CLI::App& app, Command& chosen);
void add_identify(CLI::App& app, Command& chosen);
void add_lab(CLI::App& app, Command& chosen);
void add_prove(CLI::App& app, Command& chosen);
void add_verify(CLI::App& app, Command& chosen);
void add_data(CLI::App& app, Command& chosen);
void add_info(CLI::App& app, Command& chosen);
void add_doctor(CLI::App& app, Command& chosen);
void add_profile(CLI::App& app, Command& chosen);

/// --device, --threads and --max-memory, common to all commands that compute.
struct DeviceOptions {
  std::string device = "auto";
  int threads = 0;
  std::uint64_t max_memory = 0;

  void add_to(CLI::App& command);
  /// The device that is meant: cpu or cuda. Throws Error for an unknown name.
  std::string resolved() const;
  /// Prints which device was chosen, and for "auto" why not a GPU.
  std::unique_ptr<Context> open() const;
};

/// SIGINT and SIGTERM ask the running command to save and stop; a second one ends it at once.
void watch_signals();
bool stop_requested();

/// Samples [N, H, W, C] in data space as images.
std::vector<Image> to_images(const Tensor& samples, bool centered, PixelRule rule);

}  // namespace sgm::cli
