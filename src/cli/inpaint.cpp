// sgm inpaint, sgm colorize: images of which a part is known.

#include "cli/commands.h"
#include "cli/flow.h"
#include "sgm/data/loader.h"

namespace sgm::cli {
namespace {

/// What both commands ask for.
struct CompletionOptions {
  DataOptions data = {.n = 8};
  std::string out;
  int samples = 4;
  bool reference_compat = false;
  ModelOptions model;
  SamplingOptions sampling;
  BatchOptions batches;

  void add_to(CLI::App& command) {
    model.add_to(command);
    data.add_to(command);
    command.add_option("--samples", samples, "Completions of each image")
        ->check(positive())
        ->capture_default_str();
    command.add_option("--out", out, "grid.png, samples.npz or a folder")->required();
    command.add_flag("--reference-compat", reference_compat, "The original implementation's formulas");
    batches.add_to(command, false);
    sampling.add_to(command);
  }
};

/// How a command hides a part of an image, and how it keeps the rest.
struct Task {
  std::function<std::shared_ptr<const Constraint>(const Tensor& images, const ConstraintOptions& options)>
      constraint;
  std::function<Image(Image)> hide;
};

/// Image i / samples for sample i of the request.
Tensor repeated(const std::vector<float>& images, const SampleRequest& request, int samples,
                Context& context) {
  const std::int64_t size = request.shape.numel() / request.shape[0];
  std::vector<float> batch;
  for (std::int64_t i = request.first_sample; i < request.first_sample + request.shape[0]; ++i) {
    const auto from = images.begin() + i / samples * size;
    batch.insert(batch.end(), from, from + size);
  }
  return Tensor::from_host(context, std::span<const float>(batch), request.shape);
}

int complete(CompletionOptions options, const Model& model, const Task& task, ImageOutput& out) {
  const Config& config = model.config();
  Context& context = *model.context;
  const auto sampler = create_sampler(*model.sde, options.sampling.apply(config.sampling));
  const auto dataset = options.data.open(model);
  const Tensor images =
      read_images(*dataset, options.data.first, options.data.n, config.data.centered, context);
  const ConstraintOptions how{.discrete = !config.training.continuous,
                              .reference_compat = options.reference_compat};
  task.constraint(images, how);  // refuses what does not fit before the run begins
  std::vector<Image> heads;
  for (const Image& image : to_images(images, config.data.centered, PixelRule::round)) {
    heads.push_back(image);
    heads.push_back(task.hide(image));
  }
  out.begin_rows(std::move(heads), 2);
  const std::vector<float> values = images.to_host();
  BatchOptions batches = options.batches;
  batches.n = options.data.n * options.samples;
  return generate(model, batches, out, [&](SampleRequest& request) {
    request.constraint = task.constraint(repeated(values, request, options.samples, context), how);
    return sampler->sample(context, model.score, request);
  });
}

/// 1 where images are known, [size, size, 1 or channels].
struct Mask {
  Shape shape;
  std::vector<float> known;
};

Mask read_mask(const std::string& path, int size, int channels) {
  const Image image = read_image(path);
  check(image.height == size && image.width == size, "--mask ", path, ": is ", image.width, "x", image.height,
        "; the model's images are ", size, "x", size);
  check(image.channels == 1 || image.channels == channels, "--mask ", path, ": has ", image.channels,
        " channels, the model's images ", channels, "; save it as a grey image");
  Mask mask{{size, size, image.channels}, {}};
  for (const std::uint8_t pixel : image.pixels) mask.known.push_back(pixel < 128 ? 0.0f : 1.0f);
  if (image.channels == 1) mask.shape = {size, size};
  return mask;
}

Mask known_part(const std::string& part, int size) {
  const int half = size / 2, quarter = size / 4;
  Mask mask{{size, size}, {}};
  for (int y = 0; y < size; ++y)
    for (int x = 0; x < size; ++x) {
      const bool is_known = part == "left"     ? x < half
                            : part == "right"  ? x >= size - half
                            : part == "top"    ? y < half
                            : part == "bottom" ? y >= size - half
                                               : std::min({x, y, size - 1 - x, size - 1 - y}) >= quarter;
      mask.known.push_back(is_known ? 1.0f : 0.0f);
    }
  return mask;
}

int inpaint_command(const CompletionOptions& options, const std::string& mask_file, const std::string& part) {
  resolve_checkpoint(options.model.model);
  check(mask_file.empty() != part.empty(), "inpaint: give either --mask or --known, which part to keep");
  ImageOutput out(options.out);
  const auto model = options.model.open();
  const DataConfig& data = model->config().data;
  const Mask mask = mask_file.empty() ? known_part(part, data.image_size)
                                      : read_mask(mask_file, data.image_size, data.num_channels);
  Task task;
  task.constraint = [&](const Tensor& images, const ConstraintOptions& how) {
    const Tensor on_device =
        Tensor::from_host(*model->context, std::span<const float>(mask.known), mask.shape);
    return inpainting(*model->sde, images, on_device, how);
  };
  task.hide = [&](Image image) {
    const std::size_t repeat = image.pixels.size() / mask.known.size();
    for (std::size_t i = 0; i < image.pixels.size(); ++i)
      if (mask.known[i / repeat] == 0.0f) image.pixels[i] = 128;
    return image;
  };
  return complete(options, *model, task, out);
}

int colorize_command(const CompletionOptions& options) {
  resolve_checkpoint(options.model.model);
  ImageOutput out(options.out);
  const auto model = options.model.open();
  check(model->config().data.num_channels == 3, "colorize: ", options.model.model,
        " makes grey images, which have no colours; use a model of RGB images");
  Task task;
  task.constraint = [&](const Tensor& images, const ConstraintOptions& how) {
    return colorization(*model->sde, images, how);
  };
  task.hide = [](Image image) {
    for (std::size_t i = 0; i < image.pixels.size(); i += 3) {
      const int sum = image.pixels[i] + image.pixels[i + 1] + image.pixels[i + 2];
      std::fill_n(image.pixels.begin() + static_cast<std::ptrdiff_t>(i), 3,
                  static_cast<std::uint8_t>((sum + 1) / 3));
    }
    return image;
  };
  return complete(options, *model, task, out);
}

}  // namespace

void add_inpaint(CLI::App& app, Command& chosen) {
  const auto o = std::make_shared<CompletionOptions>();
  const auto mask = std::make_shared<std::string>(), part = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("inpaint", "Paint the unknown parts of images");
  o->add_to(*command);
  command->add_option("--mask", *mask, "Image of the model's size: white where images are known");
  command->add_option("--known", *part, "Known part: left, right, top, bottom or center")
      ->check(CLI::IsMember({"left", "right", "top", "bottom", "center"}));
  command->callback([=, &chosen] { chosen = [=] { return inpaint_command(*o, *mask, *part); }; });
}

void add_colorize(CLI::App& app, Command& chosen) {
  const auto o = std::make_shared<CompletionOptions>();
  CLI::App* command = app.add_subcommand("colorize", "Colour images of which the grey values are known");
  o->add_to(*command);
  command->callback([=, &chosen] { chosen = [=] { return colorize_command(*o); }; });
}

}  // namespace sgm::cli
