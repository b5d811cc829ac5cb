// The files of configs/.

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "sgm/core/config.h"

namespace sgm {
namespace {

const std::filesystem::path kPaperConfigs = SGM_SOURCE_DIR "/configs";

/// What the named settings differ in, in one line.
std::string summary_of(const Config& c) {
  std::ostringstream text;
  text << c.sde.name << (c.training.continuous ? " continuous " : " discrete ") << c.sampling.predictor << ' '
       << c.sampling.corrector << ' ' << c.training.n_iters << ' ' << c.model.name << ' '
       << c.model.num_res_blocks;
  if (c.model.name == "ncsnpp") text << (c.model.fir ? " fir " : " ") << c.model.progressive_input;
  text << (c.model.conditional ? " " : " unconditional ") << c.model.embedding_type;
  return text.str();
}

TEST(PaperConfigs, HoldThePublishedSettings) {
  const std::pair<std::string, std::string> rows[] = {
      {"ve_cifar10_ncsnpp_continuous",
       "vesde continuous reverse_diffusion langevin 1300001 ncsnpp 4 fir residual fourier"},
      {"ve_cifar10_ncsnpp_deep_continuous",
       "vesde continuous reverse_diffusion langevin 950001 ncsnpp 8 fir residual fourier"},
      {"ve_cifar10_ncsnpp",
       "vesde discrete reverse_diffusion langevin 1300001 ncsnpp 4 fir residual positional"},
      {"ve_cifar10_ddpm", "vesde discrete reverse_diffusion langevin 1300001 ddpm 2 positional"},
      {"vp_cifar10_ddpmpp", "vpsde discrete ancestral_sampling none 1300001 ncsnpp 4 none positional"},
      {"vp_cifar10_ddpmpp_continuous",
       "vpsde continuous euler_maruyama none 1300001 ncsnpp 4 none positional"},
      {"vp_cifar10_ddpmpp_deep_continuous",
       "vpsde continuous euler_maruyama none 950001 ncsnpp 8 none positional"},
      {"vp_cifar10_ncsnpp", "vpsde discrete reverse_diffusion none 1300001 ncsnpp 4 fir residual positional"},
      {"vp_cifar10_ncsnpp_continuous",
       "vpsde continuous euler_maruyama none 1300001 ncsnpp 4 fir residual positional"},
      {"vp_cifar10_ncsnpp_deep_continuous",
       "vpsde continuous euler_maruyama none 950001 ncsnpp 8 fir residual positional"},
      {"vp_cifar10_ddpm", "vpsde discrete ancestral_sampling none 1300001 ddpm 2 positional"},
      {"vp_cifar10_ddpm_continuous", "vpsde continuous euler_maruyama none 1300001 ddpm 2 positional"},
      {"vp_cifar10_ddpm_unconditional",
       "vpsde discrete ancestral_sampling none 1300001 ddpm 2 unconditional positional"},
      {"subvp_cifar10_ddpm_continuous", "subvpsde continuous euler_maruyama none 1300001 ddpm 2 positional"},
      {"subvp_cifar10_ddpmpp_continuous",
       "subvpsde continuous euler_maruyama none 1300001 ncsnpp 4 none positional"},
      {"subvp_cifar10_ddpmpp_deep_continuous",
       "subvpsde continuous euler_maruyama none 950001 ncsnpp 8 none positional"},
      {"subvp_cifar10_ncsnpp_continuous",
       "subvpsde continuous euler_maruyama none 1300001 ncsnpp 4 fir residual positional"},
      {"subvp_cifar10_ncsnpp_deep_continuous",
       "subvpsde continuous euler_maruyama none 950001 ncsnpp 8 fir residual positional"},
  };
  std::set<std::string> listed;
  for (const auto& [file, summary] : rows) {
    SCOPED_TRACE(file);
    listed.insert(file);
    const Config c = load_config(kPaperConfigs / (file + ".toml"));
    EXPECT_EQ(summary_of(c), summary);
    const bool ve = c.sde.name == "vesde";
    EXPECT_EQ(c.sampling.method, "pc");
    EXPECT_EQ(c.model.progressive, "none");
    EXPECT_EQ(c.model.progressive_combine, "sum");
    EXPECT_EQ(c.model.resblock_type, "biggan");
    EXPECT_TRUE(c.model.skip_rescale && c.model.resamp_with_conv);
    EXPECT_EQ(c.model.fourier_scale, 16.0);
    EXPECT_EQ(c.model.init_scale, 0.0);
    EXPECT_FALSE(c.training.likelihood_weighting || c.data.uniform_dequantization);
    EXPECT_EQ(c.data.centered, !ve);
    EXPECT_EQ(c.training.reduce_mean, !ve);
    EXPECT_EQ(c.model.scale_by_sigma, ve);
    EXPECT_EQ(c.model.ema_rate, ve ? 0.999 : 0.9999);
    EXPECT_EQ(c.sde.sigma_min, 0.01);
    EXPECT_EQ(c.sde.sigma_max, 50.0);
    EXPECT_EQ(c.sde.beta_min, 0.1);
    EXPECT_EQ(c.sde.beta_max, 20.0);
    EXPECT_EQ(c.sde.num_scales, 1000);
    EXPECT_EQ(c.model.nf, 128);
    EXPECT_EQ(c.model.ch_mult, (std::vector<int>{1, 2, 2, 2}));
    EXPECT_EQ(c.model.attn_resolutions, std::vector<int>{16});
    EXPECT_EQ(c.model.dropout, 0.1);
    EXPECT_EQ(c.training.batch_size, 128);
    EXPECT_EQ(c.data.image_size, 32);
    EXPECT_EQ(c.data.num_channels, 3);
    EXPECT_TRUE(c.data.random_flip);
    EXPECT_EQ(c.optim.lr, 2e-4);
    EXPECT_EQ(c.optim.warmup, 5000);
    EXPECT_EQ(c.optim.grad_clip, 1.0);
    EXPECT_EQ(c.sampling.snr, 0.16);
    EXPECT_EQ(c.sampling.n_steps_each, 1);
  }
  for (const auto& entry : std::filesystem::directory_iterator(kPaperConfigs)) {
    if (entry.path().extension() != ".toml") continue;
    const std::string name = entry.path().stem().string();
    EXPECT_NO_THROW(load_config(entry.path())) << name;
    const bool refine_net = name.ends_with("_ncsn") || name.ends_with("_ncsnv2");
    EXPECT_EQ(name.find("cifar10") != std::string::npos && !refine_net, listed.count(name) == 1) << name;
  }
}

TEST(PaperConfigs, HoldTheSettingsOf256Pixels) {
  const Config c = load_config(kPaperConfigs / "ve_ffhq_256_ncsnpp_continuous.toml");
  EXPECT_EQ(summary_of(c),
            "vesde continuous reverse_diffusion langevin 2400001 ncsnpp 2 fir input_skip fourier");
  EXPECT_EQ(c.model.progressive, "output_skip");
  EXPECT_EQ(c.model.progressive_combine, "sum");
  EXPECT_EQ(c.model.nf, 128);
  EXPECT_EQ(c.model.ch_mult, (std::vector<int>{1, 1, 2, 2, 2, 2, 2}));
  EXPECT_EQ(c.model.attn_resolutions, std::vector<int>{16});
  EXPECT_EQ(c.model.dropout, 0.0);
  EXPECT_EQ(c.model.ema_rate, 0.999);
  EXPECT_TRUE(c.model.scale_by_sigma && c.model.skip_rescale && !c.data.centered && !c.training.reduce_mean);
  EXPECT_EQ(c.data.image_size, 256);
  EXPECT_EQ(c.sde.sigma_min, 0.01);
  EXPECT_EQ(c.sde.sigma_max, 348.0);
  EXPECT_EQ(c.sde.num_scales, 2000);
  EXPECT_EQ(c.training.batch_size, 64);
  EXPECT_EQ(c.optim.lr, 2e-4);
  EXPECT_EQ(c.optim.warmup, 5000);
  EXPECT_EQ(c.optim.grad_clip, 1.0);
  EXPECT_EQ(c.sampling.snr, 0.075);
  EXPECT_EQ(c.sampling.n_steps_each, 1);
}

TEST(PaperConfigs, HoldTheSettingsOfTheRefineNets) {
  struct Row {
    const char *file, *network;
    int image_size;
    double sigma_max;
    int num_scales;
    double lr, ema_rate, step_lr;
    int steps_each;
    bool denoise;
    std::int64_t n_iters;
  };
  const Row rows[] = {
      {"ve_cifar10_ncsn", "ncsn", 32, 1.0, 10, 1e-3, 0.0, 2e-5, 100, false, 1300001},
      {"ve_cifar10_ncsnv2", "ncsnv2_64", 32, 50.0, 232, 1e-4, 0.999, 6.2e-6, 5, true, 1300001},
      {"ve_celeba_ncsnv2", "ncsnv2_64", 64, 90.0, 500, 1e-4, 0.999, 3.3e-6, 5, true, 1300001},
      {"ve_bedroom_ncsnv2", "ncsnv2_128", 128, 190.0, 1086, 1e-4, 0.999, 1.8e-6, 3, true, 2400001},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.file);
    const Config c = load_config(kPaperConfigs / (std::string(row.file) + ".toml"));
    EXPECT_EQ(c.sde.name, "vesde");
    EXPECT_EQ(c.model.name, row.network);
    EXPECT_EQ(c.data.image_size, row.image_size);
    EXPECT_EQ(c.sde.sigma_min, 0.01);
    EXPECT_EQ(c.sde.sigma_max, row.sigma_max);
    EXPECT_EQ(c.sde.num_scales, row.num_scales);
    EXPECT_EQ(c.optim.lr, row.lr);
    EXPECT_EQ(c.model.ema_rate, row.ema_rate);
    EXPECT_EQ(c.sampling.method, "annealed_langevin");
    EXPECT_EQ(c.sampling.start, "uniform");
    EXPECT_EQ(c.sampling.step_lr, row.step_lr);
    EXPECT_EQ(c.sampling.n_steps_each, row.steps_each);
    EXPECT_EQ(c.sampling.denoise, row.denoise);
    EXPECT_EQ(c.training.n_iters, row.n_iters);
    EXPECT_EQ(c.training.batch_size, 128);
    EXPECT_EQ(c.model.nf, 128);
    EXPECT_EQ(c.model.nonlinearity, "elu");
    EXPECT_EQ(c.optim.warmup, 0);
    EXPECT_LT(c.optim.grad_clip, 0.0);
    EXPECT_EQ(c.data.num_channels, 3);
    EXPECT_TRUE(c.data.random_flip);
    EXPECT_FALSE(c.training.continuous || c.training.reduce_mean || c.data.centered);
  }
}

}  // namespace
}  // namespace sgm
