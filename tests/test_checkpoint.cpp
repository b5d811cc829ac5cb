// Checkpoints: what is read is what was saved, damage is named, and a failed save harms nothing.

#include "sgm/train/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>

#include "expect_error.h"
#include "sgm/io/safetensors.h"
#include "sgm/train/trainer.h"
#include "temp_folder.h"
#include "tiny_training.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

/// With Fourier features, so that there is a tensor that is stored but not trained.
Config saved_config() {
  Config config = tiny_config();
  config.model.embedding_type = "fourier";
  return config;
}

class Checkpoint : public testing::Test {
 protected:
  Checkpoint() : trainer_(saved_config(), images_, *context_) {
    for (int i = 0; i < 3; ++i) trainer_.step();
    save(file_);
  }

  void save(const fs::path& file) {
    save_checkpoint(file, trainer_.config(), trainer_.network(), trainer_.optimizer());
  }
  RunState state() { return state_of(trainer_.network(), trainer_.optimizer()); }

  /// A run of the same model with other weights.
  Trainer other(std::uint64_t seed = 1234) const {
    Config config = saved_config();
    config.training.seed = seed;
    return {config, images_, *context_};
  }

  /// Every way to read `file` must end in an error that names it and what `parts` say.
  void expect_refused(const fs::path& file, std::vector<std::string> parts = {}) const {
    SCOPED_TRACE(file.filename());
    parts.push_back(file.filename().string());
    Trainer trainer = other();
    expect_error(parts, [&] { trainer.load(file); });
    expect_error(parts, [&] { load_network(file, *context_); });
  }

  /// The saved file with its tensors and metadata changed.
  fs::path rewritten(const std::string& name, const std::function<void(SafeTensors&)>& change) const {
    SafeTensors content = load_safetensors(file_);
    change(content);
    std::vector<SafeTensorView> views;
    for (const auto& [tensor, array] : content.tensors)
      views.push_back({tensor, array.dtype, array.shape, array.bytes.data()});
    save_safetensors(folder_.path() / name, views, content.metadata);
    return folder_.path() / name;
  }

  const std::unique_ptr<Context> context_ = create_context("cpu", 2);
  const BarImages images_{5};
  const TempFolder folder_;
  const fs::path file_ = folder_.path() / "good.safetensors";
  Trainer trainer_;
};

// ---- round trips ------------------------------------------------------------------------------------------

TEST_F(Checkpoint, GivesBackTheWholeRun) {
  const CheckpointInfo info = read_checkpoint_info(file_);
  EXPECT_EQ(info.step, 3);
  EXPECT_EQ(to_text(info.config), to_text(saved_config()));

  Trainer loaded = other();
  ASSERT_FALSE(differing(state_of(loaded.network(), loaded.optimizer()), state()).empty());
  loaded.load(file_);
  EXPECT_EQ(loaded.position(), 3);
  expect_same_bits(state_of(loaded.network(), loaded.optimizer()), state());

  // Saving what was loaded gives the same bytes.
  const fs::path again = folder_.path() / "again";
  save_checkpoint(again, saved_config(), loaded.network(), loaded.optimizer());
  EXPECT_EQ(content_of(again), content_of(file_));
}

TEST_F(Checkpoint, HoldsAveragesAndRawWeights) {
  const RunState saved = state();
  std::size_t frozen = 0;
  for (const bool ema : {true, false}) {
    const LoadedNetwork loaded = load_network(file_, *context_, ema);
    EXPECT_EQ(loaded.info.step, 3);
    for (const Parameter& p : loaded.network->parameters()) {
      const std::string name = (ema && p.trainable ? "ema." : "model.") + p.name;
      EXPECT_EQ(p.var->value().to_host(), saved.at(name)) << name;
      EXPECT_FALSE(p.var->requires_grad()) << name;
      frozen += !p.trainable;
    }
  }
  EXPECT_EQ(frozen, 2u);  // the Fourier frequencies, twice
  EXPECT_NE(saved.at("ema.conv_in.weight"), saved.at("model.conv_in.weight"));
}

TEST_F(Checkpoint, SaysWhereTheDataStands) {
  const SafeTensorsFile file(file_);
  EXPECT_EQ(file.metadata().at("data_position"), "9");
  EXPECT_EQ(file.metadata().at("step"), "3");
}

// ---- folders ----------------------------------------------------------------------------------------------

TEST_F(Checkpoint, TheLatestIsTheOneOfMostSteps) {
  const fs::path run = folder_.path() / "run";
  EXPECT_FALSE(latest_checkpoint(run).has_value());
  for (const std::int64_t step : {99'999'999, 3, 100'000'000, 20})
    folder_.write(fs::relative(checkpoint_path(run, step), folder_.path()), "x");
  for (const char* stray :
       {"checkpoint_.safetensors", "checkpoint_x.safetensors", "checkpoint_7.safetensors.tmp",
        "checkpoint_99999999999999999999.safetensors", ".sgm-1-0.tmp", "other"})
    folder_.write(fs::path("run/checkpoints") / stray, "x");
  EXPECT_EQ(checkpoint_path(run, 20).filename(), "checkpoint_00000020.safetensors");
  EXPECT_EQ(latest_checkpoint(run), checkpoint_path(run, 100'000'000));
  EXPECT_EQ(resolve_checkpoint(run), checkpoint_path(run, 100'000'000));
  EXPECT_EQ(resolve_checkpoint(file_), file_);

  const std::size_t before = files_in(run / "checkpoints").size();
  prune_checkpoints(run, 0);
  EXPECT_EQ(files_in(run / "checkpoints").size(), before);
  prune_checkpoints(run, 3);
  EXPECT_FALSE(fs::exists(checkpoint_path(run, 3)));
  prune_checkpoints(run, 1);
  EXPECT_EQ(files_in(run / "checkpoints").size(), before - 3);  // strangers stay
  EXPECT_TRUE(fs::exists(checkpoint_path(run, 100'000'000)));
}

TEST_F(Checkpoint, FoldersWithoutOneAreNamed) {
  fs::create_directories(folder_.path() / "empty");
  fs::create_directories(folder_.path() / "begun" / "checkpoints");
  for (const char* name : {"empty", "begun"})
    expect_error({name, "checkpoint"}, [&] { resolve_checkpoint(folder_.path() / name); });
  expect_refused(folder_.path() / "missing");
  expect_refused(folder_.path() / "empty");
}

// ---- damage -----------------------------------------------------------------------------------------------

TEST_F(Checkpoint, ATruncatedFileIsRefused) {
  const std::string whole = content_of(file_);
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), sizeof header);
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{9},
        std::size_t{header} / 2, std::size_t{header} + 7, std::size_t{header} + 8, whole.size() / 2,
        whole.size() - 4, whole.size() - 1})
    expect_refused(folder_.write("cut_" + std::to_string(length), whole.substr(0, length)));
  expect_refused(folder_.write("longer", whole + "x"));
}

TEST_F(Checkpoint, FlippedBytesOfTheHeaderAreErrorsOrHarmless) {
  const std::string whole = content_of(file_);
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), sizeof header);
  Trainer trainer = other();
  int refused = 0, tried = 0;
  for (std::size_t at = 0; at < 8 + header; at += at < 8 ? 1 : 211) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (at % 2 ? 0x04 : 0x41));
    const fs::path file = folder_.write("flipped", damaged);
    ++tried;
    try {
      trainer.load(file);
      load_network(file, *context_);
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("flipped"), std::string::npos) << "byte " << at << ": " << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << "byte " << at << ": " << text;
      ++refused;
    }
  }
  // Those that are not refused lie in numbers of the configuration, or in text that nobody reads.
  EXPECT_GT(tried, 100);
  EXPECT_GT(refused, tried * 3 / 4);
}

TEST_F(Checkpoint, AMissingTensorIsNamed) {
  for (const std::string name : {"model.conv_in.weight", "ema.conv_in.weight"}) {
    const fs::path file = rewritten("lacks", [&](SafeTensors& c) { ASSERT_EQ(c.tensors.erase(name), 1u); });
    Trainer trainer = other();
    expect_error({"lacks", name, "missing"}, [&] { trainer.load(file); });
    expect_error({"lacks", name, "missing"}, [&] { load_network(file, *context_, name[0] == 'e'); });
  }
  const fs::path file = rewritten("lacks", [](SafeTensors& c) { c.tensors.erase("adam.v.conv_in.bias"); });
  Trainer trainer = other();
  expect_error({"lacks", "adam.v.conv_in.bias"}, [&] { trainer.load(file); });
  EXPECT_EQ(load_network(file, *context_).info.step, 3);  // samples need no moments
}

TEST_F(Checkpoint, AWrongShapeOrTypeIsNamed) {
  const auto change = [&](const std::function<void(Array&)>& f) {
    return rewritten("wrong", [&](SafeTensors& c) {
      f(c.tensors.at("model.conv_in.weight"));
      f(c.tensors.at("ema.conv_in.weight"));
    });
  };
  expect_refused(change([](Array& a) {
                   a.shape = {3, 3, 1, 16};
                 }),
                 {"conv_in.weight", "[3, 3, 1, 16]", "[16, 3, 3, 1]"});
  expect_refused(change([](Array& a) { a.shape = {144}; }), {"conv_in.weight", "[144]"});
  expect_refused(change([](Array& a) { a.dtype = DType::i32; }), {"conv_in.weight", "i32", "f32"});
  expect_refused(change([](Array& a) {
                   a.shape = {8, 3, 3, 1};
                   a.bytes.resize(a.bytes.size() / 2);
                 }),
                 {"conv_in.weight", "[8, 3, 3, 1]"});
}

TEST_F(Checkpoint, AnotherModelIsRefused) {
  Config config = saved_config();
  config.model.nf = 8;
  Trainer smaller(config, images_, *context_);
  expect_error({"good.safetensors", "model.time.frequencies", "[16]", "[8]"}, [&] { smaller.load(file_); });
}

TEST_F(Checkpoint, WhatIsNoCheckpointIsRefused) {
  expect_refused(folder_.write("text", "This is not a checkpoint, but it is long enough to be one.\n"));
  expect_refused(folder_.write("zeros", std::string(4096, '\0')));
  const auto metadata = [&](const char* key, const char* value) {
    return rewritten("metadata", [&](SafeTensors& c) {
      if (value)
        c.metadata[key] = value;
      else
        c.metadata.erase(key);
    });
  };
  expect_refused(metadata("format", nullptr), {"format"});
  expect_refused(metadata("format", "pt"), {"format", "pt"});
  expect_refused(metadata("config", nullptr), {"config"});
  expect_refused(metadata("config", "[model]\nnf = 'many'"), {"nf"});
  for (const char* step : {"-1", "3.5", "", "99999999999999999999", "3x"})
    expect_refused(metadata("step", step), {"step"});
  // A network that this program does not know; resuming is refused by the trainer's own configuration.
  std::string config = to_text(saved_config());
  config.replace(config.find("\"ncsnpp\""), 8, "\"ncsnqq\"");
  expect_error({"metadata", "ncsnqq"}, [&] { load_network(metadata("config", config.c_str()), *context_); });
}

// ---- failed saves -----------------------------------------------------------------------------------------

/// While it lives, files cannot grow beyond `bytes`: a full disk, but for the reason given.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    previous_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &limit_);
    const rlimit lowered{bytes, limit_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &lowered);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &limit_);
    std::signal(SIGXFSZ, previous_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit limit_{};
  void (*previous_)(int) = nullptr;
};

TEST_F(Checkpoint, AFailedSaveLeavesThePreviousFile) {
  const std::string before = content_of(file_);
  trainer_.step();
  for (const std::size_t room : {std::size_t{0}, std::size_t{5000}, before.size() - 1}) {
    const FileSizeLimit limit(room);
    expect_error({"good.safetensors"}, [&] { save(file_); });
  }
  EXPECT_EQ(content_of(file_), before);
  EXPECT_EQ(files_in(folder_.path()), std::vector<std::string>{"good.safetensors"});
  save(file_);
  EXPECT_EQ(read_checkpoint_info(file_).step, 4);
}

TEST_F(Checkpoint, APlaceThatCannotBeWrittenIsNamed) {
  folder_.write("file", "text");
  fs::create_directories(folder_.path() / "folder");
  for (const char* place : {"gone/checkpoint", "file/checkpoint", "folder", "folder/gone/checkpoint"})
    expect_error({place}, [&] { save(folder_.path() / place); });
  EXPECT_EQ(content_of(folder_.path() / "file"), "text");
  EXPECT_EQ(files_in(folder_.path()), (std::vector<std::string>{"file", "folder", "good.safetensors"}));
  EXPECT_TRUE(files_in(folder_.path() / "folder").empty());
}

}  // namespace
}  // namespace sgm
