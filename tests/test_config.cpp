// Configuration files: reading, messages, overrides, ranges, and the files of configs/.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <variant>

#include "expect_error.h"
#include "sgm/core/config.h"
#include "temp_folder.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

using Value = std::variant<bool, int, std::int64_t, std::uint64_t, double, std::string, std::vector<int>>;

std::vector<std::pair<std::string, Value>> values_of(Config config) {
  std::vector<std::pair<std::string, Value>> values;
  config.visit([&](const std::string& table, auto& section) {
    section.visit(
        [&](const std::string& key, auto& field) { values.emplace_back(table + '.' + key, field); });
  });
  return values;
}

void expect_equal(const Config& a, const Config& b) {
  const auto left = values_of(a), right = values_of(b);
  ASSERT_EQ(left.size(), right.size());
  for (std::size_t i = 0; i < left.size(); ++i) EXPECT_TRUE(left[i] == right[i]) << left[i].first;
}

std::string config_error(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return error_of([&] { parse_config(text, "run.toml", overrides); });
}

const fs::path kConfigs = fs::path(SGM_SOURCE_DIR) / "configs";

TEST(Config, AnEmptyFileGivesTheDefaults) { expect_equal(parse_config("", "run.toml"), Config{}); }

TEST(Config, DefaultTomlHoldsEveryKeyInOrderWithItsDefaultAndAComment) {
  expect_equal(load_config(kConfigs / "default.toml"), Config{});
  // Neither file nor struct may have a key or table that the other lacks.
  const auto names = [](const std::string& text) {
    std::vector<std::string> found;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      if (!line.empty() && line[0] != '#' && line[0] != ' ') found.push_back(line.substr(0, line.find(" =")));
    return found;
  };
  const std::string text = text_of_file(kConfigs / "default.toml");
  EXPECT_EQ(names(text), names(to_text(Config{})));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const bool is_key = line.find(" = ") != std::string::npos;
    EXPECT_TRUE(!is_key || line.find(" # ") != std::string::npos) << line;
  }
}

TEST(Config, TextReadsBackAsTheSameConfiguration) {
  Config config;
  config.data.path = "a \"b\" \\ \t\n\x01\x7f grüße/日本";
  config.data.centered = true;
  config.sde.sigma_min = 5e-324;
  config.sde.sigma_max = std::numeric_limits<double>::max();
  config.sde.beta_min = 0.1 + 0.2;
  config.sde.beta_max = 123456789.0;
  config.model.ch_mult = {3};
  config.model.attn_resolutions = {};
  config.model.fir_kernel = {-1, 2, 7, 2, -1};
  config.model.nf = 6;
  config.model.ema_rate = std::nextafter(1.0, 0.0);
  config.training.n_iters = std::numeric_limits<std::int64_t>::max();
  config.training.seed = std::numeric_limits<std::int64_t>::max();
  config.optim.lr = 1.0 / 3.0;
  config.optim.grad_clip = -1;
  config.sampling.rtol = 1e22;
  const std::string text = to_text(config);
  const Config again = parse_config(text, "text");
  expect_equal(again, config);
  EXPECT_EQ(to_text(again), text);
}

TEST(Config, NumbersOfTheFileAreRead) {
  const Config config = parse_config(
      "[optim]\nlr = 1\nwarmup = 1_000\n[model]\nch_mult = [1, 2]\nattn_resolutions = []\n"
      "[training]\nseed = 0x10\ncontinuous = true\n[data]\npath = 'C:\\x'\n",
      "run.toml");
  EXPECT_EQ(config.optim.lr, 1.0);
  EXPECT_EQ(config.optim.warmup, 1000);
  EXPECT_EQ(config.model.ch_mult, (std::vector<int>{1, 2}));
  EXPECT_TRUE(config.model.attn_resolutions.empty());
  EXPECT_EQ(config.training.seed, 16u);
  EXPECT_EQ(config.data.path, "C:\\x");
}

struct BadText {
  const char* text;
  std::vector<std::string> message;
};

TEST(Config, MessagesNameFileLineKeyAndRemedy) {
  const BadText cases[] = {
      {"[sampling]\n\nsnrr = 0.1\n", {"run.toml:3", "unknown key sampling.snrr", "sampling.snr"}},
      {"[model]\nlr = 0.1\n", {"run.toml:2", "unknown key model.lr", "optim.lr"}},
      {"[optim]\nlearning_rate = 0.1\n", {"run.toml:2", "optim.learning_rate", "nearest known key"}},
      {"[modle]\nnf = 3\n", {"run.toml:1", "unknown table [modle]", "[model]"}},
      {"# x\nlr = 1\n", {"run.toml:2", "unknown key lr", "optim.lr"}},
      {"data = 3\n", {"run.toml:1", "data must be a table", "3"}},
      {"[[data]]\n", {"run.toml:1", "data must be a table", "an array"}},
      {"[optim]\nlr = \"fast\"\n", {"run.toml:2", "optim.lr must be a number", "the string \"fast\""}},
      {"[optim]\nlr = [1]\n", {"optim.lr must be a number", "an array"}},
      {"[optim]\nwarmup = 1.5\n", {"run.toml:2", "optim.warmup must be an integer", "1.5"}},
      {"[optim]\nwarmup = 3000000000\n", {"optim.warmup must lie in", "2147483647", "3000000000"}},
      {"[training]\nseed = -1\n", {"training.seed must lie in [0", "-1"}},
      {"[training]\ncontinuous = 1\n", {"training.continuous must be true or false", "got 1"}},
      {"[data]\npath = 3\n", {"data.path must be a string", "got 3"}},
      {"[data]\npath = 1979-05-27\n", {"data.path must be a string", "a date"}},
      {"[model]\nch_mult = 2\n", {"model.ch_mult must be an array of integers", "got 2"}},
      {"[model]\nch_mult = [1, 2.0]\n", {"model.ch_mult must be an array of integers", "2.0"}},
      {"[model]\nch_mult = [1, 99999999999]\n", {"model.ch_mult must lie in", "99999999999"}},
      {"[optim]\nlr = 1\nlr = 2\n", {"run.toml:3"}},
      {"[optim]\n\nlr = \n", {"run.toml:3"}},
      {"[optim\n", {"run.toml:1"}},
      {"[optim]\nlr = \"\xff\"\n", {"run.toml:2"}},
  };
  for (const BadText& bad : cases) {
    const std::string message = config_error(bad.text);
    for (const std::string& part : bad.message) expect_contains(message, part);
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Config, EveryPrefixOfAFileIsReadOrRefusedInOneLine) {
  const std::string text = text_of_file(kConfigs / "mnist.toml");
  ASSERT_GT(text.size(), 100u);
  for (std::size_t size = 0; size < text.size(); ++size) {
    const std::string message = config_error(text.substr(0, size));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Config, DeepNestingIsRefusedAndNotFollowed) {
  std::string parts = "a";
  for (int i = 0; i < 30000; ++i) parts += ".a";
  expect_contains(config_error(parts + " = 1\n"), "parts");
  expect_contains(config_error('[' + parts + "]\n"), "parts");
  EXPECT_NE(config_error("x = " + std::string(60000, '[')), "");
  std::string tables = "x = ";
  for (int i = 0; i < 2000; ++i) tables += "{a.a.a.a.a.a.a.a = [";
  EXPECT_NE(config_error(tables), "");
  expect_contains(config_error(std::string(1 << 20, '#')), "too long");
  expect_contains(config_error("", {"data.path={" + parts + "=1}", "optim.lr={" + parts + "=1}"}), "parts");
}

TEST(Overrides, SetKeysOfEveryKindInOrder) {
  const std::vector<std::string> overrides = {"optim.lr=1e-3",
                                              "sampling.snr = 0.17",
                                              "training.continuous=false",
                                              "model.embedding_type=positional",
                                              "sampling.predictor=euler_maruyama",
                                              "model.ch_mult=[1,2,2]",
                                              "data.path=data/a b=c#d.zip",
                                              "data.image_size=64",
                                              "data.image_size=32",
                                              "training.seed=7",
                                              "sde.name=\"vpsde\"",
                                              "optim.weight_decay=0"};
  const Config config = parse_config("[sampling]\nsnr = 0.3\n", "run.toml", overrides);
  EXPECT_EQ(config.optim.lr, 1e-3);
  EXPECT_EQ(config.sampling.snr, 0.17);
  EXPECT_FALSE(config.training.continuous);
  EXPECT_EQ(config.model.embedding_type, "positional");
  EXPECT_EQ(config.sampling.predictor, "euler_maruyama");
  EXPECT_EQ(config.model.ch_mult, (std::vector<int>{1, 2, 2}));
  EXPECT_EQ(config.data.path, "data/a b=c#d.zip");
  EXPECT_EQ(config.data.image_size, 32);
  EXPECT_EQ(config.training.seed, 7u);
  EXPECT_EQ(config.sde.name, "vpsde");
  EXPECT_EQ(config.optim.weight_decay, 0.0);
}

TEST(Overrides, AnythingIsAStringWhereAStringIsMeant) {
  for (const std::string value : {"2024", "true", "1.5", "[x]", "a'b", "\\\\host\\x", "grüße"})
    EXPECT_EQ(parse_config("", "run.toml", std::vector{"data.path=" + value}).data.path, value);
  EXPECT_EQ(parse_config("", "run.toml", std::vector<std::string>{"data.path="}).data.path, "");
  EXPECT_EQ(parse_config("", "run.toml", std::vector<std::string>{"data.path='a b'"}).data.path, "a b");
}

TEST(Overrides, MessagesNameTheOverride) {
  const std::pair<std::string, std::string> cases[] = {
      {"sampling.snrr=1", "nearest known key is sampling.snr"},
      {"snr=1", "nearest known key is sampling.snr"},
      {"optim.lr", "expected table.key=value"},
      {"=3", "unknown key"},
      {"", "expected table.key=value"},
      {"optim.lr=fast", "optim.lr must be a number, got the string \"fast\""},
      {"optim.lr=", "optim.lr must be a number"},
      {"optim.warmup=1\nlr=2", "expected one value"},
      {"optim.warmup=1.0", "optim.warmup must be an integer"},
      {"model.ch_mult=1,2", "model.ch_mult must be an array"},
      {"data.path=\"open", "data.path"},
      {"data.path=\xff", "data.path"},
      {"optim.lr=-1", "optim.lr must be positive"},
  };
  for (const auto& [text, part] : cases) {
    const std::string message = config_error("", {text});
    expect_contains(message, part);
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Validation, RefusesWhatLiesOutsideOfItsRange) {
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"data.image_size=0"}, "data.image_size must be at least 1"},
      {{"data.image_size=100000"}, "data.image_size must be at most"},
      {{"data.image_size=28"}, "multiple of 8"},
      {{"data.num_channels=2"}, "1 (grey) or 3"},
      {{"sde.sigma_min=0"}, "sde.sigma_min must be positive"},
      {{"sde.sigma_min=nan"}, "sde.sigma_min must be positive"},
      {{"sde.sigma_max=inf"}, "sde.sigma_max must be positive and finite"},
      {{"sde.sigma_min=50"}, "sde.sigma_min must be below sde.sigma_max"},
      {{"sde.beta_min=-1"}, "sde.beta_min"},
      {{"sde.beta_min=20"}, "sde.beta_min must be below"},
      {{"sde.num_scales=0"}, "sde.num_scales must be at least 1"},
      {{"sde.name=vpsde", "sde.num_scales=20"}, "sde.num_scales must exceed"},
      {{"model.nf=7"}, "model.nf must be even"},
      {{"model.nf=0"}, "model.nf must be at least"},
      {{"model.nf=16384"}, "at most"},
      {{"model.ch_mult=[]"}, "model.ch_mult must have 1 to"},
      {{"model.ch_mult=[1,0,1,1]"}, "model.ch_mult must be at least 1"},
      {{"model.ch_mult=[1,1,1,1,1,1,1,1,1,1,1,1,1]"}, "model.ch_mult must have 1 to"},
      {{"model.num_res_blocks=0"}, "model.num_res_blocks"},
      {{"model.attn_resolutions=[16,5]"}, "no level works at 5"},
      {{"model.resblock_type=resnet"}, "model.resblock_type must be one of biggan, ddpm"},
      {{"model.progressive=input_skip"}, "model.progressive must be one of"},
      {{"model.progressive_input=output_skip"}, "model.progressive_input must be one of"},
      {{"model.progressive_combine=mean"}, "model.progressive_combine must be one of"},
      {{"model.embedding_type=sine"}, "model.embedding_type must be one of"},
      {{"model.nonlinearity=gelu"}, "model.nonlinearity must be one of"},
      {{"model.fir_kernel=[1]"}, "model.fir_kernel must be at least 2"},
      {{"model.fir_kernel=[1,-1]"}, "positive sum"},
      {{"model.fourier_scale=0"}, "model.fourier_scale"},
      {{"model.init_scale=-1"}, "model.init_scale"},
      {{"model.dropout=1"}, "model.dropout must lie in [0, 1)"},
      {{"model.dropout=nan"}, "model.dropout must lie in [0, 1)"},
      {{"model.ema_rate=1"}, "model.ema_rate"},
      {{"model.name=ddpm"}, "model.embedding_type must be positional"},
      {{"training.n_iters=0"}, "training.n_iters"},
      {{"training.batch_size=0"}, "training.batch_size"},
      {{"training.continuous=false"}, "fourier needs training.continuous"},
      {{"training.continuous=false", "model.embedding_type=positional", "sde.name=subvpsde"}, "sub-VP"},
      {{"training.continuous=false", "model.embedding_type=positional", "training.likelihood_weighting=true"},
       "likelihood_weighting"},
      {{"training.precision=f16"}, "training.precision must be one of f32, tf32, bf16"},
      {{"training.log_freq=0"}, "training.log_freq"},
      {{"training.snapshot_freq=0"}, "training.snapshot_freq"},
      {{"training.keep_checkpoints=-1"}, "training.keep_checkpoints"},
      {{"optim.lr=0"}, "optim.lr"},
      {{"optim.beta1=1"}, "optim.beta1"},
      {{"optim.beta2=-0.1"}, "optim.beta2"},
      {{"optim.eps=0"}, "optim.eps"},
      {{"optim.weight_decay=-1"}, "optim.weight_decay"},
      {{"optim.warmup=-1"}, "optim.warmup"},
      {{"optim.grad_clip=0"}, "optim.grad_clip"},
      {{"optim.grad_clip=nan"}, "optim.grad_clip"},
      {{"sampling.snr=0"}, "sampling.snr"},
      {{"sampling.n_steps_each=0"}, "sampling.n_steps_each"},
      {{"sampling.steps=-1"}, "sampling.steps"},
      {{"sampling.eps=1"}, "sampling.eps"},
      {{"sampling.rtol=0"}, "sampling.rtol"},
      {{"sampling.atol=-1"}, "sampling.atol"},
      {{"sampling.snapshot_count=0"}, "sampling.snapshot_count"},
      {{"sampling.snapshot_steps=-1"}, "sampling.snapshot_steps"},
  };
  for (const auto& [overrides, part] : cases) expect_contains(config_error("", overrides), part);
}

TEST(Validation, AcceptsTheEdgesOfTheRanges) {
  for (const std::string text :
       {"model.dropout=0", "model.ema_rate=0", "model.init_scale=0", "sde.beta_min=0", "optim.grad_clip=-1",
        "optim.warmup=0", "model.fir_kernel=[1,1]", "model.fir_kernel=[1,2,1]", "sde.num_scales=1",
        "training.batch_size=1", "model.attn_resolutions=[32,16,8,4]", "training.precision=bf16"})
    EXPECT_EQ(config_error("", {text}), "") << text;
  EXPECT_EQ(config_error("", {"sde.name=vpsde", "sde.num_scales=21"}), "");
  EXPECT_EQ(config_error("", {"data.image_size=7", "model.ch_mult=[2]", "model.attn_resolutions=[7]"}), "");
}

class ConfigFiles : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& text) const { return folder_.write(name, text); }

  const TempFolder folder_;
};

TEST_F(ConfigFiles, ResolveDataPathsBesideTheFile) {
  write("images.zip", "");
  const fs::path file = write("configs/run.toml", "[data]\npath = '../images.zip'\n");
  EXPECT_EQ(fs::path(load_config(file).data.path), (folder_.path() / "images.zip").lexically_normal());
  const fs::path missing = write("configs/missing.toml", "[data]\npath = 'nowhere/images.zip'\n");
  EXPECT_EQ(load_config(missing).data.path, "nowhere/images.zip");
  const fs::path absolute = write("configs/absolute.toml", "[data]\npath = '/nowhere/x'\n");
  EXPECT_EQ(load_config(absolute).data.path, "/nowhere/x");
  // What the command line says is meant from where it is said.
  EXPECT_EQ(load_config(file, std::vector<std::string>{"data.path=../images.zip"}).data.path,
            "../images.zip");
  EXPECT_EQ(load_config(write("configs/none.toml", "")).data.path, "");
}

TEST_F(ConfigFiles, ThatCannotBeReadAreNamed) {
  expect_contains(error_of([&] { load_config(folder_.path() / "absent.toml"); }), "absent.toml: cannot open");
  expect_contains(error_of([&] { load_config(folder_.path()); }), "is a folder");
  expect_contains(error_of([&] { load_config(write("big.toml", std::string(70000, '#'))); }), "too long");
  expect_contains(error_of([&] { load_config(write("bad.toml", "[sde]\nsigma_min = -1\n")); }),
                  "bad.toml: sde.sigma_min must be positive");
}

}  // namespace
}  // namespace sgm
