#include "cli/model.h"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "sgm/core/precision.h"
#include "sgm/sampling/ode_solver.h"

namespace sgm::cli {

Shape Model::batch_shape(std::int64_t n) const {
  const DataConfig& data = config().data;
  return {n, data.image_size, data.image_size, data.num_channels};
}

void ModelOptions::add_to(CLI::App& command) {
  command.add_option("model", model, "Working directory of a run, or a checkpoint")->required();
  command.add_option("--precision", precision, "f32, tf32 or bf16; default: as trained");
  command.add_flag("--raw", raw, "Raw weights instead of their moving average");
  device.add_to(command);
}

std::unique_ptr<Model> ModelOptions::open() const {
  const std::filesystem::path file = resolve_checkpoint(model);
  auto opened = std::make_unique<Model>();
  opened->context = device.open();
  Context& context = *opened->context;
  opened->loaded = load_network(file, context, !raw);
  const Config& config = opened->config();
  opened->sde = create_sde(config.sde);
  opened->compute = precision.empty() ? use_precision(context, config.training.precision)
                                      : use_precision(context, precision, "--precision");
  opened->score =
      score_function(*opened->loaded.network, *opened->sde, config.training.continuous, opened->compute);
  std::cerr << "model: " << file.string() << ", step " << opened->loaded.info.step << '\n';
  return opened;
}

void SamplingOptions::add_to(CLI::App& command) {
  command.add_option("--sampler", sampler, "pc, ode or annealed_langevin");
  command.add_option("--predictor", predictor,
                     "euler_maruyama, reverse_diffusion, ancestral_sampling or none");
  command.add_option("--corrector", corrector, "langevin, ald or none");
  command.add_option("--steps", steps, "Predictor steps")->check(positive());
  command.add_option("--snr", snr, "Signal-to-noise ratio of the corrector")->check(positive());
  command.add_option("--n-steps-each", n_steps_each, "Corrector steps per predictor step")->check(positive());
  command.add_flag("--probability-flow", probability_flow, "Predictors step the probability-flow ODE");
  command.add_flag("--no-denoise", no_denoise, "Keep the noise of the last step");
  command.add_flag("--batch-mean-norms", batch_mean_norms,
                   "Langevin norms averaged over the batch, as the reference does");
  command.add_option("--eps", eps, "Smallest time")->check(positive());
  command.add_option("--ancestral-variance", ancestral_variance, "Of ancestral VP steps: beta or posterior")
      ->check(CLI::IsMember({"beta", "posterior"}));
  command.add_option("--step-lr", step_lr, "Annealed Langevin: step at the smallest noise scale")
      ->check(positive());
  command.add_option("--start", start, "Annealed Langevin: prior or uniform")
      ->check(CLI::IsMember({"prior", "uniform"}));
  command.add_option("--solver", solver, "Solver of the ODE: rk45, rk23, heun, rk4 or euler")
      ->check(CLI::IsMember(solver_names()));
  command.add_option("--rtol", rtol, "Relative tolerance of the ODE solver")->check(positive());
  command.add_option("--atol", atol, "Absolute tolerance of the ODE solver")->check(positive());
}

SamplingConfig SamplingOptions::apply(SamplingConfig s) const {
  if (!sampler.empty()) s.method = sampler;
  if (!predictor.empty()) s.predictor = predictor;
  if (!corrector.empty()) s.corrector = corrector;
  if (!solver.empty()) s.solver = solver;
  if (!ancestral_variance.empty()) s.ancestral_variance = ancestral_variance;
  if (!start.empty()) s.start = start;
  if (steps >= 0) s.steps = steps;
  if (n_steps_each >= 0) s.n_steps_each = n_steps_each;
  if (snr >= 0) s.snr = snr;
  if (rtol >= 0) s.rtol = rtol;
  if (atol >= 0) s.atol = atol;
  if (eps >= 0) s.eps = eps;
  if (step_lr >= 0) s.step_lr = step_lr;
  if (probability_flow) s.probability_flow = true;
  if (no_denoise) s.denoise = false;
  if (batch_mean_norms) s.batch_mean_norms = true;
  return s;
}

void BatchOptions::add_to(CLI::App& command, bool with_n) {
  if (with_n) command.add_option("--n", n, "Number of images")->check(positive())->capture_default_str();
  command.add_option("--seed", seed, "Image i depends on seed and i alone")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--batch", batch, "Images at a time; changes speed, not images [by their size]")
      ->check(positive());
  command.add_flag("--no-graph", no_graph, "Launch every update call by call, also on a GPU");
}

namespace {

/// As many images at a time as keep a device busy: more only takes memory.
std::int64_t batch_for(const Model& model) {
  const std::int64_t size = model.config().data.image_size;
  const std::int64_t pixels = model.context->is_cpu() ? 1 << 15 : 1 << 19;
  return std::clamp<std::int64_t>(pixels / (size * size), 1, 1024);
}

/// The last line of a job.
void report(const BatchOptions& options, double seconds, std::int64_t nfe, const ImageOutput& out) {
  const auto n = static_cast<double>(options.n), evaluations = static_cast<double>(nfe);
  std::cerr << options.n << " images in " << format_eta(seconds) << ", " << format_rate(n / seconds)
            << ", NFE " << evaluations / n << " per image, " << std::lround(evaluations / seconds)
            << " NFE/s -> " << out.path() << '\n';
}

/// What an interrupted job of which `done` images are complete leaves behind.
std::string left_behind(const BatchOptions& options, std::int64_t done, const ImageOutput& out) {
  if (!out.is_folder() || done == 0) return "interrupted: nothing was written";
  return "interrupted: " + std::to_string(done) + " images are in " + out.path().string() + "; --first " +
         std::to_string(options.first + done) + " --n " + std::to_string(options.n - done) +
         " makes the others";
}

}  // namespace

int generate(const Model& model, const BatchOptions& options, ImageOutput& out,
             const std::function<SampleResult(SampleRequest&)>& make, int columns) {
  out.check_free(options.n);
  watch_signals();
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const auto n = static_cast<double>(options.n);
  const std::int64_t batch = options.batch > 0 ? options.batch : batch_for(model);
  std::int64_t nfe = 0;
  Progress progress(std::cerr, is_terminal(2), 0, 1000);
  for (std::int64_t done_before = 0; done_before < options.n; done_before += batch) {
    SampleRequest request;
    request.shape = model.batch_shape(std::min(batch, options.n - done_before));
    request.seed = options.seed;
    request.capture = !options.no_graph;
    request.first_sample = static_cast<std::uint32_t>(options.first + done_before);
    request.progress = [&](std::int64_t done, std::int64_t total) {
      const double images_done = static_cast<double>(done_before) +
                                 static_cast<double>(request.shape[0] * done) / static_cast<double>(total);
      progress.update(static_cast<std::int64_t>(1000.0 * images_done / n), {}, images_done / seconds());
      return !stop_requested();
    };
    const SampleResult result = make(request);
    if (!result.complete) {
      out.finish_files();
      progress.note(left_behind(options, done_before, out));
      return kInterrupted;
    }
    for (const std::int64_t of_image : result.nfe) nfe += of_image;
    out.add(result.x, model.config().data.centered);
  }
  out.finish(columns);
  report(options, seconds(), nfe, out);
  return kDone;
}

}  // namespace sgm::cli
