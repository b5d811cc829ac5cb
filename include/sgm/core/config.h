#pragma once
// Run configuration: one plain struct per TOML table. visit() is the single list of a table's keys: parsing,
// overrides (--set sampling.snr=0.17), printing and "unknown key" errors all walk it. Key names are those of
// the reference configurations.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace sgm {

struct DataConfig {
  std::string path;                     // IDX, CIFAR-10 binary, image folder, zip, .npy or .npz
  std::int64_t count = 0;               // only the first `count` images, 0: all; the rest is for evaluation
  int image_size = 32;                  // images are resized and centre-cropped to this square
  int num_channels = 3;                 // 1 or 3
  bool centered = false;                // data space: [-1, 1] if true, else [0, 1]
  bool random_flip = true;              // horizontal flips with probability 1/2
  bool uniform_dequantization = false;  // (255 x + u) / 256, u ~ U[0, 1)

  template <class V>
  void visit(V&& v) {
    v("path", path), v("count", count), v("image_size", image_size), v("num_channels", num_channels),
        v("centered", centered), v("random_flip", random_flip),
        v("uniform_dequantization", uniform_dequantization);
  }
};

struct SDEConfig {
  std::string name = "vesde";  // vesde | vpsde | subvpsde
  double sigma_min = 0.01;     // VE
  double sigma_max = 50.0;     // VE
  double beta_min = 0.1;       // VP, sub-VP
  double beta_max = 20.0;      // VP, sub-VP
  int num_scales = 1000;       // N: discretisation steps and noise levels of discrete models

  template <class V>
  void visit(V&& v) {
    v("name", name), v("sigma_min", sigma_min), v("sigma_max", sigma_max), v("beta_min", beta_min),
        v("beta_max", beta_max), v("num_scales", num_scales);
  }
};

struct ModelConfig {
  std::string name = "ncsnpp";  // ncsnpp | ddpm | ncsn | ncsnv2_64 | ncsnv2_128 | ncsnv2_256 | mlp
  int nf = 128;                 // channels of the first level
  std::vector<int> ch_mult = {1, 2, 2, 2};  // channels of level l: nf * ch_mult[l]
  int num_res_blocks = 4;  // residual blocks per level on the way down; one more on the way up
  std::vector<int> attn_resolutions = {16};
  std::string resblock_type = "biggan";  // biggan | ddpm
  bool resamp_with_conv = true;          // ddpm blocks: 3x3 convolution when resampling
  bool conditional = true;               // the network is told the noise level
  bool fir = true;                       // FIR resampling (false: nearest up, 2x2 mean down)
  std::vector<int> fir_kernel = {1, 3, 3, 1};
  bool skip_rescale = true;                    // (x + h) / sqrt 2 instead of x + h
  std::string progressive = "none";            // none | output_skip | residual
  std::string progressive_input = "residual";  // none | input_skip | residual
  std::string progressive_combine = "sum";     // sum | cat
  std::string embedding_type = "fourier";      // fourier | positional
  double fourier_scale = 16.0;                 // standard deviation of the Fourier frequencies
  bool scale_by_sigma = true;                  // divide the output by the noise level
  double init_scale = 0.0;                     // of each block's last convolution; 0 stands for 1e-10
  std::string nonlinearity = "swish";          // swish | elu | relu | lrelu
  double dropout = 0.1;
  double ema_rate = 0.999;
  std::vector<int> hidden = {128, 128};  // mlp: widths of the hidden layers
  bool energy = false;                   // mlp: the score is minus the gradient of a learned energy

  template <class V>
  void visit(V&& v) {
    v("name", name), v("nf", nf), v("ch_mult", ch_mult), v("num_res_blocks", num_res_blocks),
        v("attn_resolutions", attn_resolutions), v("resblock_type", resblock_type),
        v("resamp_with_conv", resamp_with_conv), v("conditional", conditional), v("fir", fir),
        v("fir_kernel", fir_kernel), v("skip_rescale", skip_rescale), v("progressive", progressive),
        v("progressive_input", progressive_input), v("progressive_combine", progressive_combine),
        v("embedding_type", embedding_type), v("fourier_scale", fourier_scale),
        v("scale_by_sigma", scale_by_sigma), v("init_scale", init_scale), v("nonlinearity", nonlinearity),
        v("dropout", dropout), v("ema_rate", ema_rate), v("hidden", hidden), v("energy", energy);
  }
};

struct TrainingConfig {
  std::int64_t n_iters = 1300001;
  int batch_size = 128;
  int micro_batch = 0;          // images that go through the network at once; divides batch_size, 0: all
  bool recompute = false;       // what is cheap to make again, norms above all, is not kept for gradients
  bool late_gradients = false;  // of weights: made when the update needs them, where that saves memory
  std::string loss = "dsm";     // dsm | ssm | ssm_vr | fd_ssm | esm
  double fd_step = 0.1;         // fd_ssm: step of the differences, in units of marginal_std(t)
  bool continuous = true;       // false: the discrete SMLD / DDPM losses
  bool reduce_mean = false;     // mean of the squared error per image; false: half its sum
  bool likelihood_weighting = false;  // lambda(t) = g(t)^2 instead of marginal_std(t)^2
  std::string precision = "f32";      // f32 | tf32 | bf16: of activations; master weights stay f32
  std::uint64_t seed = 42;
  int log_freq = 50;              // steps between metric records
  int snapshot_freq = 50000;      // steps between checkpoints
  bool snapshot_sampling = true;  // draw a sample grid with each checkpoint
  int keep_checkpoints = 3;       // older ones are removed; 0 keeps all

  /// Images of a micro-batch, or of the batch.
  int images_at_once() const { return micro_batch ? micro_batch : batch_size; }

  template <class V>
  void visit(V&& v) {
    v("n_iters", n_iters), v("batch_size", batch_size), v("micro_batch", micro_batch),
        v("recompute", recompute), v("late_gradients", late_gradients), v("loss", loss),
        v("fd_step", fd_step), v("continuous", continuous), v("reduce_mean", reduce_mean),
        v("likelihood_weighting", likelihood_weighting), v("precision", precision), v("seed", seed),
        v("log_freq", log_freq), v("snapshot_freq", snapshot_freq), v("snapshot_sampling", snapshot_sampling),
        v("keep_checkpoints", keep_checkpoints);
  }
};

struct OptimConfig {
  double lr = 2e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;  // classic L2, added to the gradient
  int warmup = 5000;          // steps over which lr rises from 0; 0 turns it off
  double grad_clip = 1.0;     // largest gradient norm; negative turns it off

  template <class V>
  void visit(V&& v) {
    v("lr", lr), v("beta1", beta1), v("beta2", beta2), v("eps", eps), v("weight_decay", weight_decay),
        v("warmup", warmup), v("grad_clip", grad_clip);
  }
};

struct SamplingConfig {
  std::string method = "pc";  // pc | ode | annealed_langevin
  std::string predictor =
      "reverse_diffusion";             // euler_maruyama | reverse_diffusion | ancestral_sampling | none
  std::string corrector = "langevin";  // langevin | ald | none
  double snr = 0.16;                   // corrector signal-to-noise ratio
  int n_steps_each = 1;                // corrector steps per predictor step
  bool probability_flow = false;       // predictors step the ODE instead of the reverse SDE
  bool denoise = true;                 // return x_mean of the last step
  bool batch_mean_norms = false;  // Langevin and ODE error norms averaged over the batch, as in the reference
  int steps = 0;                  // predictor steps; 0: sde.num_scales
  double eps = 0.0;               // smallest time; 0: the SDE's own
  std::string ancestral_variance = "beta";  // of ancestral VP steps: beta | posterior
  std::string solver = "rk45";  // ode: rk45 | rk23, adaptive; heun | rk4 | euler, `steps` equal steps
  double rtol = 1e-5;           // ode, adaptive
  double atol = 1e-5;           // ode, adaptive
  double step_lr = 2e-5;        // annealed_langevin: step at the smallest noise scale
  std::string start = "prior";  // annealed_langevin: prior | uniform
  int snapshot_count = 64;      // images per sample grid while training
  int snapshot_steps = 0;       // predictor steps of those grids; 0: as `steps`

  template <class V>
  void visit(V&& v) {
    v("method", method), v("predictor", predictor), v("corrector", corrector), v("snr", snr),
        v("n_steps_each", n_steps_each), v("probability_flow", probability_flow), v("denoise", denoise),
        v("batch_mean_norms", batch_mean_norms), v("steps", steps), v("eps", eps),
        v("ancestral_variance", ancestral_variance), v("solver", solver), v("rtol", rtol), v("atol", atol),
        v("step_lr", step_lr), v("start", start), v("snapshot_count", snapshot_count),
        v("snapshot_steps", snapshot_steps);
  }
};

/// A noise-conditional classifier p_t(y | x).
struct ClassifierConfig {
  std::string name = "wide_resnet";
  int base_width = 16;          // channels of the first convolution
  int widen_factor = 10;        // group g has base_width * widen_factor * 2^g channels
  int blocks = 4;               // residual blocks per group
  int embedding = 128;          // Fourier frequencies of log(sigma)
  double fourier_scale = 16.0;  // their standard deviation
  int crop_padding = 4;         // training images are shifted by up to this many pixels
  int num_classes = 0;          // 0: those of the data

  template <class V>
  void visit(V&& v) {
    v("name", name), v("base_width", base_width), v("widen_factor", widen_factor), v("blocks", blocks),
        v("embedding", embedding), v("fourier_scale", fourier_scale), v("crop_padding", crop_padding),
        v("num_classes", num_classes);
  }
};

struct Config {
  DataConfig data;
  SDEConfig sde;
  ModelConfig model;
  TrainingConfig training;
  OptimConfig optim;
  SamplingConfig sampling;
  ClassifierConfig classifier;

  template <class V>
  void visit(V&& v) {
    v("data", data), v("sde", sde), v("model", model), v("training", training), v("optim", optim),
        v("sampling", sampling), v("classifier", classifier);
  }
};

/// Reads a TOML file and applies overrides of the form "table.key=value" in order; a value that is no TOML is
/// taken as a string. A relative data.path of the file is resolved against the file's folder when it exists
/// there, else left as it is; one of an override is always left. Throws Error naming the file or override,
/// the line and the key; an unknown key is answered with the nearest known one; the result has passed
/// validate().
Config load_config(const std::filesystem::path& file, std::span<const std::string> overrides = {});

/// The same from text; `name` stands for the file in messages.
Config parse_config(const std::string& text, const std::string& name,
                    std::span<const std::string> overrides = {});

/// Canonical TOML of every key; parse_config(to_text(c)) equals c.
std::string to_text(const Config& config);

/// Throws Error for values outside their range or list (one line: table.key, value, what is allowed).
void validate(const Config& config);

}  // namespace sgm
