// sgm identify: do two models give the same images the same latent codes?

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/flow.h"
#include "sgm/io/atomic_file.h"
#include "sgm/plot/figure.h"

namespace sgm::cli {
namespace {

struct IdentifyOptions {
  std::string other, out, plot;
  ModelOptions model;
  DataOptions data;
  FlowSettings flow;
};

double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

nlohmann::ordered_json summary(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  nlohmann::ordered_json json;
  json["mean"] = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  json["median"] = quantile(values, 0.5);
  json["quantiles"] = {{"0.05", quantile(values, 0.05)},
                       {"0.25", quantile(values, 0.25)},
                       {"0.75", quantile(values, 0.75)},
                       {"0.95", quantile(values, 0.95)}};
  return json;
}

/// Two sets of codes of the same images, [N, d] each; image i of the first beside i + shift of the second.
struct Pair {
  const std::vector<float>&a, &b;
  std::size_t n, d, shift;

  double of_a(std::size_t i, std::size_t e) const { return static_cast<double>(a[i * d + e]); }
  double of_b(std::size_t i, std::size_t e) const { return static_cast<double>(b[(i + shift) % n * d + e]); }

  /// Pearson's, over images, for every dimension.
  std::vector<double> correlations() const {
    std::vector<double> result;
    const double count = static_cast<double>(n);
    for (std::size_t e = 0; e < d; ++e) {
      double mean_a = 0.0, mean_b = 0.0, aa = 0.0, bb = 0.0, ab = 0.0;
      for (std::size_t i = 0; i < n; ++i) mean_a += of_a(i, e) / count, mean_b += of_b(i, e) / count;
      for (std::size_t i = 0; i < n; ++i) {
        const double x = of_a(i, e) - mean_a, y = of_b(i, e) - mean_b;
        aa += x * x, bb += y * y, ab += x * y;
      }
      result.push_back(aa > 0.0 && bb > 0.0 ? ab / std::sqrt(aa * bb) : 0.0);
    }
    return result;
  }

  /// |a - b| / |a| of every image.
  std::vector<double> differences() const {
    std::vector<double> result;
    for (std::size_t i = 0; i < n; ++i) {
      double difference = 0.0, size = 0.0;
      for (std::size_t e = 0; e < d; ++e) {
        difference += (of_a(i, e) - of_b(i, e)) * (of_a(i, e) - of_b(i, e));
        size += of_a(i, e) * of_a(i, e);
      }
      result.push_back(std::sqrt(difference / size));
    }
    return result;
  }
};

void check_comparable(const Config& a, const Config& b) {
  check(
      a.data.image_size == b.data.image_size && a.data.num_channels == b.data.num_channels &&
          a.data.centered == b.data.centered,
      "identify: the models' images differ in [data] image_size, num_channels or centered; codes can only be "
      "compared in one data space");
  const SDEConfig &p = a.sde, &q = b.sde;
  check(p.name == q.name, "identify: sde.name is ", p.name, " of one model and ", q.name,
        " of the other; codes of different SDEs are different by definition");
  const bool same = p.name == "vesde" ? p.sigma_min == q.sigma_min && p.sigma_max == q.sigma_max
                                      : p.beta_min == q.beta_min && p.beta_max == q.beta_max;
  check(same,
        "identify: the models' [sde] constants differ; codes of different SDEs are different by definition");
}

/// The first coordinates of the first image's codes, and how the correlations are distributed.
Image plot_of(const Pair& same, const Pair& shuffled) {
  Figure figure({.width = 900, .height = 360, .columns = 2});
  Axes& codes = figure.at(0);
  codes.title = "codes of one image";
  codes.x.label = "dimension";
  std::vector<double> dimension, a, b;
  for (std::size_t e = 0; e < std::min<std::size_t>(100, same.d); ++e) {
    dimension.push_back(static_cast<double>(e));
    a.push_back(same.of_a(0, e)), b.push_back(same.of_b(0, e));
  }
  codes.add(Line{.x = dimension, .y = a, .label = "first model"});
  codes.add(Line{.x = dimension, .y = b, .label = "second model"});
  Axes& correlations = figure.at(1);
  correlations.title = "correlation over images, of all dimensions";
  correlations.add(
      Histogram{.values = same.correlations(), .label = "same images", .low = -1.0, .high = 1.0});
  correlations.add(
      Histogram{.values = shuffled.correlations(), .label = "shuffled", .low = -1.0, .high = 1.0});
  return figure.draw();
}

int identify_command(IdentifyOptions o) {
  check(!o.out.empty(), "--out is empty; name a file that ends in .json");
  check_output_file("--out", o.out, ".json");
  check_output_file("--plot", o.plot, ".png");
  ModelOptions other_options = o.model;
  other_options.model = o.other;
  check_comparable(read_checkpoint_info(resolve_checkpoint(o.model.model)).config,
                   read_checkpoint_info(resolve_checkpoint(o.other)).config);
  const auto model = o.model.open(), other = other_options.open();
  const bool is_given = o.data.n > 0;
  const auto dataset = o.data.open(*model);
  if (!is_given) o.data.n = std::min<std::int64_t>(o.data.n, 16);
  check(o.data.n >= 3, "--n ", o.data.n, ": a correlation over images needs at least 3");
  std::vector<std::int64_t> images(static_cast<std::size_t>(o.data.n));
  std::iota(images.begin(), images.end(), o.data.first);
  std::vector<Codes> codes;
  for (const Model* each : {model.get(), other.get()}) {
    std::optional<Codes> of_each = encode_images(*each, *dataset, images, o.flow);
    if (!of_each) {
      std::cerr << "interrupted: nothing was written\n";
      return kInterrupted;
    }
    codes.push_back(std::move(*of_each));
  }
  const std::size_t n = images.size(), d = codes[0].z.size() / n;
  const Pair same{codes[0].z, codes[1].z, n, d, 0}, shuffled{codes[0].z, codes[1].z, n, d, 1};
  nlohmann::ordered_json json;
  json["models"] = {o.model.model, o.other};
  json["images"] = n;
  json["dimensions"] = d;
  json["correlation"] = summary(same.correlations());
  json["shuffled_correlation"] = summary(shuffled.correlations());
  json["relative_difference"] = summary(same.differences());
  json["shuffled_relative_difference"] = summary(shuffled.differences());
  AtomicFile file(o.out);
  file.write(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  file.commit();
  if (!o.plot.empty()) write_png(o.plot, plot_of(same, shuffled));
  std::cout << "codes of " << n << " images by two models   mean    median\n"
            << std::fixed << std::setprecision(4);
  for (const char* what :
       {"correlation", "shuffled_correlation", "relative_difference", "shuffled_relative_difference"})
    std::cout << std::left << std::setw(32) << what << std::right << std::setw(9)
              << json[what]["mean"].get<double>() << std::setw(9) << json[what]["median"].get<double>()
              << '\n';
  return kDone;
}

}  // namespace

void add_identify(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<IdentifyOptions>();
  CLI::App* command = app.add_subcommand("identify", "Compare the latent codes that two models give images");
  o->model.add_to(*command);
  command->add_option("other", o->other, "The other model")->required();
  o->data.add_to(*command);
  command->get_option("--n")->description("Number of images; default: 16");
  command->add_option("--out", o->out, "table.json")->required();
  command->add_option("--plot", o->plot, "A PNG: codes of one image, and the correlations");
  o->flow.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return identify_command(*o); }; });
}

}  // namespace sgm::cli
