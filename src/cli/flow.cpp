#include "cli/flow.h"

#include <algorithm>
#include <chrono>
#include <iostream>

#include "sgm/data/loader.h"
#include "sgm/sampling/latent.h"
#include "sgm/tensor/math.h"

namespace sgm::cli {

void FlowSettings::add_to(CLI::App& command) {
  command.add_option("--solver", solver, "Solver of the ODE: rk45, rk23, heun, rk4 or euler");
  command.add_option("--steps", steps, "Steps of heun, rk4 and euler")->check(positive());
  command.add_option("--rtol", rtol, "Relative tolerance")->check(positive());
  command.add_option("--atol", atol, "Absolute tolerance")->check(positive());
  command.add_option("--eps", eps, "Time at which the data stand")
      ->check(CLI::Range(1e-12, 0.5))
      ->capture_default_str();
  command.add_flag("--batch-mean-norms", batch_mean_norms,
                   "One step size for the batch, as the reference has it");
  command.add_option("--batch", batch, "Images at a time")->check(positive())->capture_default_str();
}

FlowOptions FlowSettings::of(const Model& model) const {
  SamplingConfig sampling = model.config().sampling;
  if (!solver.empty()) sampling.solver = solver;
  if (steps > 0) sampling.steps = steps;
  if (rtol > 0) sampling.rtol = rtol;
  if (atol > 0) sampling.atol = atol;
  if (batch_mean_norms) sampling.batch_mean_norms = true;
  return {eps, ode_options(*model.sde, sampling)};
}

void DataOptions::add_to(CLI::App& command, bool with_range) {
  CLI::Option* data = command.add_option("--data", path, "Images: IDX, CIFAR-10, folder, zip, .npy or .npz");
  command.add_flag("--resize", resize, "Resize and convert images as training does");
  if (!with_range) return;
  data->required();
  command.add_option("--first", first, "Number of the first image")->check(CLI::NonNegativeNumber);
  CLI::Option* number =
      command.add_option("--n", n, n > 0 ? "Number of images" : "Number of images; default: all")
          ->check(positive());
  if (n > 0) number->capture_default_str();
}

std::unique_ptr<Dataset> DataOptions::open(const Model& model) {
  const DataConfig& config = model.config().data;
  const int size = config.image_size, channels = config.num_channels;
  auto dataset = resize ? open_dataset(path, size, channels) : open_dataset(path);
  check(dataset->height() == size && dataset->width() == size && dataset->channels() == channels, "--data ",
        path, ": images are ", dataset->height(), " x ", dataset->width(), " x ", dataset->channels(),
        ", the model's are ", size, " x ", size, " x ", channels,
        "; --resize makes them fit as training does");
  check(first < dataset->size(), "--first ", first, ": the set has only ", dataset->size(), " images");
  if (n == 0) n = dataset->size() - first;
  check(n <= dataset->size() - first, "--n ", n, ": the set has only ", dataset->size() - first,
        " images from number ", first, " on");
  return dataset;
}

bool in_batches(std::int64_t done, std::int64_t count, int batch,
                const std::function<bool(std::int64_t, std::int64_t, const OnTheWay&)>& work) {
  using Clock = std::chrono::steady_clock;
  watch_signals();
  const auto start = Clock::now();
  const auto in_thousandths = [count](double images) {
    return static_cast<std::int64_t>(1000.0 * images / static_cast<double>(count));
  };
  const double before = static_cast<double>(done);
  Progress progress(std::cerr, is_terminal(2), in_thousandths(before), 1000);
  for (; done < count; done += batch) {
    const std::int64_t n = std::min<std::int64_t>(batch, count - done);
    const OnTheWay on_the_way = [&](double fraction) {
      const double images = static_cast<double>(done) + fraction * static_cast<double>(n);
      const std::chrono::duration<double> seconds = Clock::now() - start;
      progress.update(in_thousandths(images), {}, (images - before) / seconds.count());
      return !stop_requested();
    };
    if (!work(done, n, on_the_way)) return false;
  }
  return true;
}

Tensor Codes::at(Context& context, std::int64_t first, std::int64_t n, double factor) const {
  const std::size_t per_image = z.size() / static_cast<std::size_t>(shape[0]);
  const auto part = std::span(z).subspan(static_cast<std::size_t>(first) * per_image,
                                         static_cast<std::size_t>(n) * per_image);
  const Tensor codes = Tensor::from_host(context, part, with_batch(shape, n));
  return factor == 1.0 ? codes : affine_step({.x = codes, .a = factor}).y;
}

std::optional<Codes> encode_images(const Model& model, const Dataset& dataset,
                                   std::span<const std::int64_t> images, const FlowSettings& settings) {
  Codes codes{model.batch_shape(std::ssize(images)), {}, {}};
  FlowOptions options = settings.of(model);
  const bool done = in_batches(
      0, std::ssize(images), settings.batch,
      [&](std::int64_t first, std::int64_t n, const OnTheWay& on_the_way) {
        std::vector<float> pixels;
        for (const std::int64_t image :
             images.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)))
          for (const float value :
               read_images(dataset, image, 1, model.config().data.centered, *model.context).to_host())
            pixels.push_back(value);
        const Tensor x =
            Tensor::from_host(*model.context, std::span<const float>(pixels), model.batch_shape(n));
        options.ode.progress = on_the_way;
        const FlowResult result = encode(*model.sde, model.score, x, options);
        const std::vector<float> z = result.x.to_host();
        codes.z.insert(codes.z.end(), z.begin(), z.end());
        codes.nfe.insert(codes.nfe.end(), result.nfe.begin(), result.nfe.end());
        return result.complete;
      });
  if (!done) return {};
  return codes;
}

int decode_images(const Model& model, const FlowSettings& settings, std::int64_t n,
                  const std::function<Tensor(std::int64_t, std::int64_t)>& codes, ImageOutput& out,
                  int columns) {
  BatchOptions batches;
  batches.n = n;
  batches.batch = settings.batch;
  FlowOptions options = settings.of(model);
  const auto make = [&](SampleRequest& request) {
    options.ode.progress = [&](double fraction) {
      return request.progress(static_cast<std::int64_t>(1000.0 * fraction), 1000);
    };
    FlowResult result =
        decode(*model.sde, model.score, codes(request.first_sample, request.shape[0]), options);
    return SampleResult{result.x, std::move(result.nfe), result.complete};
  };
  return generate(model, batches, out, make, columns);
}

}  // namespace sgm::cli
