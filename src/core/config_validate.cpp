// Ranges of every configuration key. Names of SDEs, networks, samplers, predictors and correctors are checked
// where their tables are.

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "sgm/core/config.h"
#include "sgm/core/error.h"

namespace sgm {
namespace {

// Sizes far above any use, so that a typing error is answered with a message and not with a full memory.
constexpr int kMaxImageSize = 4096;
constexpr int kMaxChannels = 1 << 14;
constexpr int kMaxBlocks = 64;
constexpr int kMaxLevels = 12;
constexpr int kMaxTaps = 16;
constexpr int kMaxBatch = 1 << 16;
constexpr int kMaxScales = 10'000'000;

void check_range(const char* key, std::int64_t value, std::int64_t least,
                 std::int64_t most = std::numeric_limits<std::int64_t>::max()) {
  check(value >= least, key, " must be at least ", least, ", got ", value);
  check(value <= most, key, " must be at most ", most, ", got ", value);
}

// Written so that NaN fails.
void check_positive(const char* key, double value) {
  check(value > 0 && std::isfinite(value), key, " must be positive and finite, got ", value);
}

void check_not_negative(const char* key, double value) {
  check(value >= 0 && std::isfinite(value), key, " must be finite and not negative, got ", value);
}

void check_fraction(const char* key, double value) {
  check(value >= 0 && value < 1, key, " must lie in [0, 1), got ", value);
}

void check_choice(const char* key, const std::string& value,
                  std::initializer_list<std::string_view> allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  std::string list;
  for (const std::string_view name : allowed) list += (list.empty() ? "" : ", ") + std::string(name);
  fail(key, " must be one of ", list, "; got '", value, '\'');
}

constexpr int kMaxDimensions = 64;  // of the points that the mlp takes

/// Images, or points [1, 1, d] of low-dimensional data.
void validate_data(const DataConfig& data, bool points) {
  check(data.path.find('\0') == std::string::npos, "data.path must not contain a zero byte");
  check_range("data.count", data.count, 0);
  check_range("data.image_size", data.image_size, 1, kMaxImageSize);
  if (points) {
    check(
        data.image_size == 1,
        "data.image_size must be 1 for the mlp, whose data are points of data.num_channels dimensions; got ",
        data.image_size);
    check_range("data.num_channels", data.num_channels, 1, kMaxDimensions);
    return;
  }
  check(data.num_channels == 1 || data.num_channels == 3,
        "data.num_channels must be 1 (grey) or 3 (RGB), got ", data.num_channels);
}

void validate_sde(const SDEConfig& sde) {
  check_positive("sde.sigma_min", sde.sigma_min);
  check_positive("sde.sigma_max", sde.sigma_max);
  check(sde.sigma_min < sde.sigma_max, "sde.sigma_min must be below sde.sigma_max, got ", sde.sigma_min,
        " and ", sde.sigma_max);
  check_not_negative("sde.beta_min", sde.beta_min);
  check_positive("sde.beta_max", sde.beta_max);
  check(sde.beta_min < sde.beta_max, "sde.beta_min must be below sde.beta_max, got ", sde.beta_min, " and ",
        sde.beta_max);
  check_range("sde.num_scales", sde.num_scales, 1, kMaxScales);
  check(sde.name != "vpsde" || sde.num_scales > sde.beta_max, "sde.num_scales must exceed sde.beta_max (",
        sde.beta_max, ") for the VP SDE, or a step would add more than unit variance; got ", sde.num_scales);
}

void validate_resolutions(const ModelConfig& model, int image_size) {
  check(!model.ch_mult.empty() && model.ch_mult.size() <= kMaxLevels, "model.ch_mult must have 1 to ",
        kMaxLevels, " entries, one per level; got ", model.ch_mult.size());
  for (const int factor : model.ch_mult) {
    check_range("model.ch_mult", factor, 1, kMaxChannels);
    check_range("model.nf times model.ch_mult", std::int64_t{model.nf} * factor, 1, kMaxChannels);
  }
  const int halvings = static_cast<int>(model.ch_mult.size()) - 1;
  check(image_size % (1 << halvings) == 0, "data.image_size must be a multiple of ", 1 << halvings,
        " for the ", model.ch_mult.size(), " levels of model.ch_mult, got ", image_size);
  for (const int resolution : model.attn_resolutions) {
    bool is_level = false;
    for (int level = 0; level <= halvings; ++level) is_level = is_level || image_size >> level == resolution;
    check(is_level, "model.attn_resolutions: no level works at ", resolution, "; the ", model.ch_mult.size(),
          " levels halve data.image_size = ", image_size, " down to ", image_size >> halvings);
  }
}

void validate_model(const ModelConfig& model) {
  check_range("model.nf", model.nf, 2, kMaxChannels);
  check(model.nf % 2 == 0, "model.nf must be even, for the sine and cosine halves of the embedding; got ",
        model.nf);
  check_range("model.num_res_blocks", model.num_res_blocks, 1, kMaxBlocks);
  check_choice("model.resblock_type", model.resblock_type, {"biggan", "ddpm"});
  check_choice("model.progressive", model.progressive, {"none", "output_skip", "residual"});
  check_choice("model.progressive_input", model.progressive_input, {"none", "input_skip", "residual"});
  check_choice("model.progressive_combine", model.progressive_combine, {"sum", "cat"});
  check_choice("model.embedding_type", model.embedding_type, {"fourier", "positional"});
  check_choice("model.nonlinearity", model.nonlinearity, {"swish", "elu", "relu", "lrelu"});
  check(model.name != "ddpm" || model.embedding_type == "positional",
        "model.embedding_type must be positional for the ddpm network, which has no other; got ",
        model.embedding_type);
  check_range("the length of model.fir_kernel", std::ssize(model.fir_kernel), 2, kMaxTaps);
  std::int64_t sum = 0;
  for (const int tap : model.fir_kernel) sum += tap;
  check(sum > 0, "model.fir_kernel must have a positive sum, by which it is divided; got ", sum);
  check_positive("model.fourier_scale", model.fourier_scale);
  check_not_negative("model.init_scale", model.init_scale);
  check_fraction("model.dropout", model.dropout);
  check_fraction("model.ema_rate", model.ema_rate);
  check(!model.hidden.empty() && model.hidden.size() <= kMaxLevels, "model.hidden must have 1 to ",
        kMaxLevels, " entries, one per hidden layer; got ", model.hidden.size());
  for (const int width : model.hidden) check_range("model.hidden", width, 1, kMaxChannels);
}

void validate_training(const TrainingConfig& training) {
  check_range("training.n_iters", training.n_iters, 1);
  check_range("training.batch_size", training.batch_size, 1, kMaxBatch);
  const int micro = training.micro_batch;
  check(micro == 0 || (micro > 0 && training.batch_size % micro == 0),
        "training.micro_batch must divide training.batch_size (", training.batch_size,
        "), or be 0 for all of it at once; got ", micro);
  check_positive("training.fd_step", training.fd_step);
  check_choice("training.precision", training.precision, {"f32", "tf32", "bf16"});
  check(training.seed <= std::numeric_limits<std::int64_t>::max(),
        "training.seed must be below 2^63, the largest integer of TOML; got ", training.seed);
  check_range("training.log_freq", training.log_freq, 1);
  check_range("training.snapshot_freq", training.snapshot_freq, 1);
  check_range("training.keep_checkpoints", training.keep_checkpoints, 0);
  check(!training.likelihood_weighting || training.continuous,
        "training.likelihood_weighting needs training.continuous = true: the discrete losses have no g(t)");
}

void validate_classifier(const ClassifierConfig& classifier) {
  check_choice("classifier.name", classifier.name, {"wide_resnet"});
  check_range("classifier.base_width", classifier.base_width, 4, kMaxChannels);
  check_range("classifier.widen_factor", classifier.widen_factor, 1, kMaxChannels);
  check_range("4 classifier.base_width times classifier.widen_factor",
              std::int64_t{4} * classifier.base_width * classifier.widen_factor, 1, kMaxChannels);
  check_range("classifier.blocks", classifier.blocks, 1, kMaxBlocks);
  check_range("classifier.embedding", classifier.embedding, 1, kMaxChannels);
  check_positive("classifier.fourier_scale", classifier.fourier_scale);
  check_range("classifier.crop_padding", classifier.crop_padding, 0, kMaxImageSize);
  check_range("classifier.num_classes", classifier.num_classes, 0, kMaxChannels);
}

void validate_optim(const OptimConfig& optim) {
  check_positive("optim.lr", optim.lr);
  check_fraction("optim.beta1", optim.beta1);
  check_fraction("optim.beta2", optim.beta2);
  check_positive("optim.eps", optim.eps);
  check_not_negative("optim.weight_decay", optim.weight_decay);
  check_range("optim.warmup", optim.warmup, 0);
  check(optim.grad_clip != 0 && std::isfinite(optim.grad_clip),
        "optim.grad_clip must be a positive norm, or negative for no clipping; got ", optim.grad_clip);
}

void validate_sampling(const SamplingConfig& sampling) {
  check_positive("sampling.snr", sampling.snr);
  check_range("sampling.n_steps_each", sampling.n_steps_each, 1);
  check_range("sampling.steps", sampling.steps, 0, kMaxScales);
  check_fraction("sampling.eps", sampling.eps);
  check_choice("sampling.ancestral_variance", sampling.ancestral_variance, {"beta", "posterior"});
  check_choice("sampling.start", sampling.start, {"prior", "uniform"});
  check_positive("sampling.step_lr", sampling.step_lr);
  check_positive("sampling.rtol", sampling.rtol);
  check_positive("sampling.atol", sampling.atol);
  check_range("sampling.snapshot_count", sampling.snapshot_count, 1, kMaxBatch);
  check_range("sampling.snapshot_steps", sampling.snapshot_steps, 0, kMaxScales);
}

}  // namespace

void validate(const Config& config) {
  const bool points = config.model.name == "mlp";
  validate_data(config.data, points);
  validate_sde(config.sde);
  validate_model(config.model);
  const bool refine_net = config.model.name == "ncsn" || config.model.name.starts_with("ncsnv2");
  if (!points && !refine_net) validate_resolutions(config.model, config.data.image_size);
  validate_training(config.training);
  validate_optim(config.optim);
  validate_sampling(config.sampling);
  validate_classifier(config.classifier);
  const bool is_discrete = !config.training.continuous;
  check(!is_discrete || config.sde.name != "subvpsde",
        "training.continuous must be true for the sub-VP SDE, which has no discrete loss");
  check(!is_discrete || refine_net || config.model.embedding_type != "fourier",
        "model.embedding_type fourier needs training.continuous = true; discrete models use positional");
}

}  // namespace sgm
