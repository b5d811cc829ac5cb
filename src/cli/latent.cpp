// sgm encode, decode, interpolate: latent codes through the probability-flow ODE.

#include <iostream>
#include <numeric>

#include "cli/flow.h"
#include "sgm/io/npy.h"
#include "sgm/sampling/latent.h"
#include "sgm/tensor/math.h"

namespace sgm::cli {
namespace {

namespace fs = std::filesystem;

std::vector<std::int64_t> numbers_from(std::int64_t first, std::int64_t n) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), first);
  return numbers;
}

int interrupted() {
  std::cerr << "interrupted: nothing was written\n";
  return kInterrupted;
}

// ---- encode -----------------------------------------------------------------------------------------------

struct EncodeOptions {
  std::string out;
  ModelOptions model;
  DataOptions data;
  FlowSettings flow;
};

int encode_command(EncodeOptions o) {
  check(!o.out.empty(), "--out is empty; name a file that ends in .npz");
  check_output_file("--out", o.out, ".npz");
  const auto model = o.model.open();
  const auto dataset = o.data.open(*model);
  const std::optional<Codes> codes =
      encode_images(*model, *dataset, numbers_from(o.data.first, o.data.n), o.flow);
  if (!codes) return interrupted();
  write_npz(o.out, {{"z", make_array(codes->shape, std::span<const float>(codes->z))},
                    {"nfe", make_array({o.data.n}, std::span<const std::int64_t>(codes->nfe))}});
  const double nfe = std::accumulate(codes->nfe.begin(), codes->nfe.end(), 0.0);
  std::cerr << o.data.n << " images, NFE " << nfe / static_cast<double>(o.data.n) << " per image -> " << o.out
            << '\n';
  return kDone;
}

// ---- decode -----------------------------------------------------------------------------------------------

struct DecodeOptions {
  std::string latents, out;
  double temperature = 1.0;
  ModelOptions model;
  FlowSettings flow;
};

Codes read_codes(const std::string& path, const Model& model) {
  const NamedArrays arrays = read_npz(path);
  const auto found = arrays.find("z");
  check(found != arrays.end(), path, ": holds no array z; write it with sgm encode");
  const Array& z = found->second;
  check(z.dtype == DType::f32, path, ": z must be f4, got ", z.dtype);
  const std::int64_t n = z.shape.rank() == 4 ? z.shape[0] : 0;
  check(n > 0 && z.shape == model.batch_shape(n), path, ": z must be a batch like the model's ",
        model.batch_shape(1), ", got ", z.shape);
  const std::span<const float> values = z.values<float>();
  return {z.shape, {values.begin(), values.end()}, {}};
}

int decode_command(const DecodeOptions& o) {
  ImageOutput out(o.out);
  check(!fs::exists(o.out) || !fs::equivalent(o.out, o.latents), "--out ", o.out,
        ": are the latent codes themselves; name another file");
  const auto model = o.model.open();
  const Codes codes = read_codes(o.latents, *model);
  const auto part = [&](std::int64_t first, std::int64_t n) {
    return codes.at(*model->context, first, n, o.temperature);
  };
  return decode_images(*model, o.flow, codes.shape[0], part, out);
}

// ---- interpolate ------------------------------------------------------------------------------------------

struct InterpolateOptions {
  std::string out;
  std::vector<std::int64_t> from, to;
  int rows = 4, frames = 8;
  std::uint64_t seed = 0;
  ModelOptions model;
  DataOptions data;
  FlowSettings flow;
};

/// Both ends of every row, one after the other: codes of images or draws of the prior.
std::optional<Codes> ends_of_rows(const Model& model, InterpolateOptions& o) {
  if (o.data.path.empty()) {
    const Tensor z = normal(*model.context, model.batch_shape(2 * o.rows), NoiseKey{o.seed, Purpose::prior},
                            model.sde->prior_std());
    return Codes{z.shape(), z.to_host(), {}};
  }
  const auto dataset = o.data.open(model);
  std::vector<std::int64_t> images;
  for (std::size_t row = 0; row < o.from.size(); ++row)
    for (const std::int64_t image : {o.from[row], o.to[row]}) {
      check(image >= 0 && image < dataset->size(), "--from, --to: image ", image, " of ", dataset->size(),
            " does not exist");
      images.push_back(image);
    }
  return encode_images(model, *dataset, images, o.flow);
}

int interpolate_command(InterpolateOptions o) {
  ImageOutput out(o.out);
  if (!o.data.path.empty()) {
    check(!o.from.empty() && o.from.size() == o.to.size(),
          "--from and --to: one image each for every row, got ", o.from.size(), " and ", o.to.size());
    o.rows = static_cast<int>(o.from.size());
  }
  const auto model = o.model.open();
  const std::optional<Codes> ends = ends_of_rows(*model, o);
  if (!ends) return interrupted();
  const auto part = [&](std::int64_t first, std::int64_t n) {
    std::vector<float> z;
    for (std::int64_t i = first; i < first + n; ++i) {
      const std::int64_t row = i / o.frames, frame = i % o.frames;
      const double w = static_cast<double>(frame) / (o.frames - 1);
      const auto end = [&](std::int64_t which) { return ends->at(*model->context, 2 * row + which, 1); };
      const std::vector<float> between = slerp(end(0), end(1), w).to_host();
      z.insert(z.end(), between.begin(), between.end());
    }
    return Tensor::from_host(*model->context, std::span<const float>(z), model->batch_shape(n));
  };
  return decode_images(*model, o.flow, std::int64_t{1} * o.rows * o.frames, part, out, o.frames);
}

}  // namespace

void add_encode(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<EncodeOptions>();
  CLI::App* command = app.add_subcommand("encode", "Latent codes of images");
  o->model.add_to(*command);
  o->data.add_to(*command);
  command->add_option("--out", o->out, "latents.npz")->required();
  o->flow.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return encode_command(*o); }; });
}

void add_decode(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<DecodeOptions>();
  CLI::App* command = app.add_subcommand("decode", "Images of latent codes");
  o->model.add_to(*command);
  command->add_option("latents", o->latents, "File of sgm encode: an array z [N, H, W, C]")->required();
  command->add_option("--out", o->out, "grid.png, samples.npz or a folder")->required();
  command->add_option("--temperature", o->temperature, "Factor of the codes")
      ->check(CLI::Range(0.0, 1e3))
      ->capture_default_str();
  o->flow.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return decode_command(*o); }; });
}

void add_interpolate(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<InterpolateOptions>();
  CLI::App* command = app.add_subcommand("interpolate", "Images between images, through their latent codes");
  o->model.add_to(*command);
  o->data.add_to(*command, false);
  CLI::Option* data = command->get_option("--data");
  command->add_option("--from", o->from, "Images at which the rows begin")->needs(data);
  command->add_option("--to", o->to, "Images at which they end")->needs(data);
  command->add_option("--rows", o->rows, "Without --data: rows between random codes")
      ->check(CLI::Range(1, 1000))
      ->excludes(data)
      ->capture_default_str();
  command->add_option("--seed", o->seed, "Of the random codes")
      ->check(CLI::NonNegativeNumber)
      ->excludes(data)
      ->capture_default_str();
  command->add_option("--frames", o->frames, "Images of a row")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  command->add_option("--out", o->out, "grid.png, samples.npz or a folder")->required();
  o->flow.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return interpolate_command(*o); }; });
}

}  // namespace sgm::cli
