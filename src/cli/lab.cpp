// sgm lab: the method on densities that are known, as pictures and numbers.

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/model.h"
#include "sgm/core/error.h"
#include "sgm/io/atomic_file.h"
#include "sgm/lab/figures.h"
#include "sgm/lab/fit.h"
#include "sgm/plot/gif.h"

namespace sgm::cli {
namespace {

struct LabOptions {
  std::string density, out, sde, score = "exact", loss;
  std::vector<std::string> figures = {"all"}, overrides;
  std::int64_t n = 4000;
  std::uint64_t seed = 0;
  SamplingOptions sampling;
  DeviceOptions device;
};

/// The settings that suit points in few dimensions, and what the command line says of them. The norm of one
/// point's score or noise varies too much to choose a Langevin step by; that of the cloud does not.
Config configuration(const LabOptions& o, const Density& density) {
  std::vector<std::string> overrides = {"data.image_size=1",
                                        "data.num_channels=" + std::to_string(density.dim()),
                                        "model.name=mlp",
                                        "model.hidden=[64, 64, 64]",
                                        "model.nf=16",
                                        "model.fourier_scale=0.5",
                                        "training.n_iters=4000",
                                        "training.batch_size=256",
                                        "training.log_freq=100",
                                        "optim.lr=2e-3",
                                        "optim.warmup=100",
                                        "optim.grad_clip=10.0",
                                        "training.reduce_mean=true",
                                        "sampling.batch_mean_norms=true"};
  if (!o.sde.empty()) overrides.push_back("sde.name=" + o.sde);
  if (!o.sde.empty() && o.sde != "vesde") overrides.push_back("model.scale_by_sigma=false");
  if (!o.loss.empty()) overrides.push_back("training.loss=" + o.loss);
  overrides.push_back("training.seed=" + std::to_string(o.seed));
  overrides.insert(overrides.end(), o.overrides.begin(), o.overrides.end());
  Config config = parse_config("", "sgm lab", overrides);
  config.sampling = o.sampling.apply(config.sampling);
  validate(config);
  return config;
}

/// The figures asked for; throws Error for names that are none.
std::vector<std::string> chosen_figures(const LabOptions& o) {
  const std::vector<std::string> known = figure_names();
  std::vector<std::string> figures;
  for (const std::string& name : o.figures) {
    if (name == "all") return known;
    std::string list = "all";
    for (const std::string& each : known) list += ", " + each;
    check(std::find(known.begin(), known.end(), name) != known.end(), "--figure: '", name,
          "' is unknown; use one of: ", list);
    figures.push_back(name);
  }
  return figures;
}

/// Writes what a figure consists of: pictures, animations and arrays.
void write(const std::filesystem::path& folder, const std::string& name, const LabReport& report) {
  std::filesystem::create_directories(folder);
  for (const auto& [file, picture] : report.pictures) write_png(folder / (file + ".png"), picture);
  for (const auto& [file, frames] : report.animations) write_gif(folder / (file + ".gif"), frames);
  if (!report.arrays.empty()) write_npz(folder / (name + ".npz"), report.arrays);
}

nlohmann::ordered_json describe(const LabOptions& o, const Config& config, const Density& density) {
  nlohmann::ordered_json json;
  json["density"] = density.name();
  json["dimensions"] = density.dim();
  json["sde"] = config.sde.name;
  json["score"] = o.score;
  if (o.score == "fit") json["loss"] = config.training.loss;
  json["points"] = o.n;
  json["seed"] = o.seed;
  return json;
}

/// Trains the network, with progress on stderr. Absent when a signal came.
std::optional<FittedScore> fit(const Config& config, const Density& density, Context& context) {
  Progress progress(std::cerr, is_terminal(2), 0, config.training.n_iters);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  FitOptions options;
  options.progress = [&](std::int64_t step, double loss) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    progress.update(step, loss, static_cast<double>(step) * config.training.batch_size / seconds);
  };
  options.should_stop = stop_requested;
  FittedScore fitted = fit_score(config, density, context, options);
  if (stop_requested()) return std::nullopt;
  return fitted;
}

/// Makes and writes the figures one by one. Returns false when a signal came: the figure that was being made
/// is not written.
bool make_all(const LabOptions& o, const std::vector<std::string>& figures, const Laboratory& lab,
              nlohmann::ordered_json& results) {
  for (const std::string& name : figures) {
    LabReport report;
    try {
      report = make_figure(name, lab);
    } catch (const LabInterrupted&) {
      return false;
    }
    write(o.out, name, report);
    std::printf("%s\n", name.c_str());
    for (const LabReport::Number& number : report.numbers) {
      std::printf("  %-58s %.5g\n", number.what.c_str(), number.value);
      results["figures"][name][number.what] = number.value;
    }
    std::fflush(stdout);
  }
  return true;
}

int lab_command(const LabOptions& o) {
  const std::vector<std::string> figures = chosen_figures(o);
  check(o.score == "exact" || o.score == "fit", "--score '", o.score, "' is unknown; use exact or fit");
  check(o.score == "fit" || o.loss.empty(), "--loss ", o.loss,
        " is for --score fit; the exact score needs no training");
  const auto density = load_density(o.density);
  const Config config = configuration(o, *density);
  const auto sde = create_sde(config.sde);
  create_sampler(*sde, config.sampling);
  check_writable("--out", std::filesystem::path(o.out) / "");
  check(!std::filesystem::exists(o.out) || std::filesystem::is_directory(o.out), "--out ", o.out,
        ": is a file; name a folder");
  const auto context = o.device.open();
  watch_signals();

  Laboratory lab{.context = *context, .density = *density, .sde = *sde, .score = {}, .score_product = {}};
  std::optional<FittedScore> fitted;
  if (o.score == "fit") {
    fitted = fit(config, *density, *context);
    if (!fitted) {
      std::cerr << "interrupted: nothing was written\n";
      return kInterrupted;
    }
    lab.score = fitted->score;
    lab.score_product = score_product_function(*fitted->network, *fitted->sde, config.training.continuous);
    lab.is_learned = true;
  } else {
    lab.score = exact_score(*density, *sde);
    lab.score_product = exact_score_product(*density, *sde);
  }
  lab.sampling = config.sampling;
  lab.n = o.n;
  lab.seed = o.seed;
  lab.progress = [](const std::string&, double) { return !stop_requested(); };

  nlohmann::ordered_json results = describe(o, config, *density);
  if (!make_all(o, figures, lab, results)) {
    std::cerr << "interrupted: figures that were finished are in " << o.out << '\n';
    return kInterrupted;
  }
  AtomicFile file(std::filesystem::path(o.out) / "results.json");
  file.write(results.dump(2) + "\n");
  file.commit();
  return kDone;
}

}  // namespace

void add_lab(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<LabOptions>();
  CLI::App* command = app.add_subcommand("lab", "Draw what the method does to a density that is known");
  command->add_option("density", o->density, "TOML file of a density, as in configs/lab")->required();
  command->add_option("--out", o->out, "Folder of the pictures, samples and results.json")->required();
  command->add_option(
      "--figure", o->figures,
      "all, or some of: density score forward reverse marginals langevin samplers likelihood");
  command->add_option("--sde", o->sde, "vesde, vpsde or subvpsde");
  command->add_option("--score", o->score, "exact, or fit: a network that is trained first")
      ->capture_default_str();
  command->add_option("--loss", o->loss, "Of the fit: dsm, ssm, ssm_vr, fd_ssm or esm");
  command->add_option("--n", o->n, "Points of every cloud")
      ->check(CLI::Range(100, 1'000'000))
      ->capture_default_str();
  command->add_option("--seed", o->seed, "Of everything random")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--set", o->overrides, "A setting such as sde.sigma_max=20 or training.n_iters=10000")
      ->take_all()
      ->allow_extra_args(false);
  o->sampling.add_to(*command);
  o->device.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return lab_command(*o); }; });
}

}  // namespace sgm::cli
