// sgm sample: draws images from a checkpoint.

#include <unistd.h>

#include <chrono>
#include <iostream>

#include "cli/commands.h"
#include "sgm/core/precision.h"
#include "sgm/io/npy.h"
#include "sgm/sampling/sampler.h"
#include "sgm/score/score_model.h"
#include "sgm/train/checkpoint.h"
#include "sgm/train/progress.h"

namespace sgm::cli {
namespace {

struct SampleOptions {
  std::string model, out, sampler, predictor, corrector, precision;
  std::int64_t n = 64;
  int batch = 64, steps = -1, n_steps_each = -1;
  std::uint64_t seed = 0;
  double snr = -1, rtol = -1, atol = -1, eps = -1;
  bool probability_flow = false, no_denoise = false, batch_mean_norms = false, raw = false, no_graph = false;
  DeviceOptions device;
};

/// The checkpoint's own sampling settings, with what the command line overrides.
SamplingConfig sampling_of(const SampleOptions& o, SamplingConfig s) {
  if (!o.sampler.empty()) s.method = o.sampler;
  if (!o.predictor.empty()) s.predictor = o.predictor;
  if (!o.corrector.empty()) s.corrector = o.corrector;
  if (o.steps >= 0) s.steps = o.steps;
  if (o.n_steps_each >= 0) s.n_steps_each = o.n_steps_each;
  if (o.snr >= 0) s.snr = o.snr;
  if (o.rtol >= 0) s.rtol = o.rtol;
  if (o.atol >= 0) s.atol = o.atol;
  if (o.eps >= 0) s.eps = o.eps;
  if (o.probability_flow) s.probability_flow = true;
  if (o.no_denoise) s.denoise = false;
  if (o.batch_mean_norms) s.batch_mean_norms = true;
  return s;
}

enum class Output { grid, npz, folder };

Output output_of(const std::filesystem::path& out) {
  if (out.extension() == ".png") return Output::grid;
  if (out.extension() == ".npz") return Output::npz;
  check(out.extension().empty() || std::filesystem::is_directory(out), "--out ", out.string(),
        ": must end in .png (a grid) or .npz, or be a folder (one file an image)");
  return Output::folder;
}

/// Refuses before the long work what would fail after it.
void check_writable(const std::filesystem::path& out, Output kind) {
  namespace fs = std::filesystem;
  const bool is_folder = fs::is_directory(out);
  check(kind != Output::folder || is_folder || !fs::exists(out), "--out ", out.string(),
        ": is a file, not a folder; name a folder, or a file that ends in .png or .npz");
  check(kind == Output::folder || !is_folder, "--out ", out.string(), ": is a folder; name a file in it");
  const fs::path whole = fs::absolute(out), named = whole.has_filename() ? whole : whole.parent_path();
  const fs::path parent = kind == Output::folder && is_folder ? named : named.parent_path();
  check(fs::is_directory(parent), "--out ", out.string(), ": folder ", parent.string(),
        " does not exist; create it first");
  check(::access(parent.c_str(), W_OK) == 0, "--out ", out.string(), ": folder ", parent.string(),
        " is not writable; choose another");
}

void write_images(const std::filesystem::path& out, Output kind, std::span<const Image> images) {
  if (kind == Output::grid) return write_png(out, make_grid(images));
  if (kind == Output::folder) {
    std::filesystem::create_directories(out);
    for (std::size_t i = 0; i < images.size(); ++i) {
      std::string number = std::to_string(i);
      number.insert(0, number.size() < 6 ? 6 - number.size() : 0, '0');
      write_png(out / (number + ".png"), images[i]);
    }
    return;
  }
  std::vector<std::uint8_t> pixels;
  for (const Image& image : images) pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
  const Shape shape{static_cast<std::int64_t>(images.size()), images[0].height, images[0].width,
                    images[0].channels};
  write_npz(out, {{"samples", make_array(shape, std::span<const std::uint8_t>(pixels))}});
}

int sample_command(const SampleOptions& options) {
  const std::filesystem::path file = resolve_checkpoint(options.model);
  const Output kind = output_of(options.out);
  check_writable(options.out, kind);
  const auto context = options.device.open();
  const LoadedNetwork loaded = load_network(file, *context, !options.raw);
  const Config& config = loaded.info.config;
  const auto sde = create_sde(config.sde);
  const auto sampler = create_sampler(*sde, sampling_of(options, config.sampling));
  const DType compute = options.precision.empty() ? use_precision(*context, config.training.precision)
                                                  : use_precision(*context, options.precision, "--precision");
  const ScoreFn score = score_function(*loaded.network, *sde, config.training.continuous, compute);
  std::cerr << "model: " << file.string() << ", step " << loaded.info.step << '\n';

  watch_signals();
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  std::vector<Image> images;
  std::int64_t nfe = 0;
  Progress progress(std::cerr, is_terminal(2), 0, 1000);
  for (std::int64_t first = 0; first < options.n; first += options.batch) {
    const std::int64_t count = std::min<std::int64_t>(options.batch, options.n - first);
    SampleRequest request;
    request.shape = {count, config.data.image_size, config.data.image_size, config.data.num_channels};
    request.seed = options.seed;
    request.capture = !options.no_graph;
    request.first_sample = static_cast<std::uint32_t>(first);
    request.progress = [&](std::int64_t done, std::int64_t total) {
      const double images_done =
          static_cast<double>(first) + static_cast<double>(count * done) / static_cast<double>(total);
      progress.update(static_cast<std::int64_t>(1000.0 * images_done / static_cast<double>(options.n)), {},
                      images_done / seconds());
      return !stop_requested();
    };
    const SampleResult result = sampler->sample(*context, score, request);
    if (!result.complete) {
      progress.note("interrupted: nothing was written");
      return kInterrupted;
    }
    for (const std::int64_t count_of_image : result.nfe) nfe += count_of_image;
    const auto rule = kind == Output::grid ? PixelRule::round : PixelRule::truncate;
    for (Image& image : to_images(result.x, config.data.centered, rule)) images.push_back(std::move(image));
  }
  write_images(options.out, kind, images);
  std::cerr << options.n << " images in " << format_eta(seconds()) << ", "
            << format_rate(static_cast<double>(options.n) / seconds()) << ", NFE "
            << static_cast<double>(nfe) / static_cast<double>(options.n) << " per image -> " << options.out
            << '\n';
  return kDone;
}

}  // namespace

void add_sample(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<SampleOptions>();
  CLI::App* command = app.add_subcommand("sample", "Draw images from a trained model");
  command->add_option("model", o->model, "Working directory of a run, or a checkpoint")->required();
  command->add_option("--out", o->out, "grid.png, samples.npz or a folder")->required();
  command->add_option("--n", o->n, "Number of images")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--seed", o->seed, "Image i depends on seed and i alone")->capture_default_str();
  command->add_option("--batch", o->batch, "Images at a time; changes speed, not images")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--sampler", o->sampler, "pc or ode");
  command->add_option("--predictor", o->predictor,
                      "euler_maruyama, reverse_diffusion, ancestral_sampling or none");
  command->add_option("--corrector", o->corrector, "langevin, ald or none");
  command->add_option("--steps", o->steps, "Predictor steps")->check(CLI::PositiveNumber);
  command->add_option("--snr", o->snr, "Signal-to-noise ratio of the corrector")->check(CLI::PositiveNumber);
  command->add_option("--n-steps-each", o->n_steps_each, "Corrector steps per predictor step")
      ->check(CLI::PositiveNumber);
  command->add_flag("--probability-flow", o->probability_flow, "Predictors step the probability-flow ODE");
  command->add_flag("--no-denoise", o->no_denoise, "Keep the noise of the last step");
  command->add_flag("--batch-mean-norms", o->batch_mean_norms,
                    "Langevin norms averaged over the batch, as the reference does");
  command->add_option("--eps", o->eps, "Smallest time")->check(CLI::PositiveNumber);
  command->add_option("--rtol", o->rtol, "Relative tolerance of the ODE solver")->check(CLI::PositiveNumber);
  command->add_option("--atol", o->atol, "Absolute tolerance of the ODE solver")->check(CLI::PositiveNumber);
  command->add_option("--precision", o->precision, "f32, tf32 or bf16; default: as trained");
  command->add_flag("--raw", o->raw, "Raw weights instead of their moving average");
  command->add_flag("--no-graph", o->no_graph, "Launch every update call by call, also on a GPU");
  o->device.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return sample_command(*o); }; });
}

}  // namespace sgm::cli
