#pragma once
// Checkpoints: one safetensors file that is the whole run - configuration, step, weights, moving averages and
// Adam's moments. Random numbers and the order of the data are functions of seed and step, so that nothing
// else has to be kept. Tensors are named model.<path>, ema.<path>, adam.m.<path>, adam.v.<path>, in our
// layout.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "sgm/core/config.h"
#include "sgm/nn/classifier.h"
#include "sgm/nn/module.h"
#include "sgm/optim/optimizer.h"

namespace sgm {

/// What a checkpoint is of.
inline constexpr const char* kScoreModel = "score model";
inline constexpr const char* kClassifier = "classifier";

/// What a checkpoint says of itself, without its tensors.
struct CheckpointInfo {
  Config config;
  std::string kind;
  std::int64_t step = 0;  // completed training steps; the data position is step * batch_size
};

/// Writes a temporary file, syncs it and renames it over `file`.
void save_checkpoint(const std::filesystem::path& file, const Config& config, Module& network,
                     Optimizer& optimizer, const std::string& kind = kScoreModel);

/// Throws Error for files that are not checkpoints of this program.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& file);

/// Fills network and optimiser. Throws Error naming the file, the tensor and both shapes on any mismatch.
void load_checkpoint(const std::filesystem::path& file, Module& network, Optimizer& optimizer);

/// A network with the weights of a checkpoint.
struct LoadedNetwork {
  CheckpointInfo info;
  std::unique_ptr<ScoreNetwork> network;
};
/// ema = true takes the moving averages, which is what samples are drawn with. Throws Error for checkpoints
/// of other kinds.
LoadedNetwork load_network(const std::filesystem::path& file, Context& context, bool ema = true);

/// A classifier with the weights of a checkpoint.
struct LoadedClassifier {
  CheckpointInfo info;
  std::unique_ptr<Classifier> classifier;
};
/// The same for classifiers.
LoadedClassifier load_classifier(const std::filesystem::path& file, Context& context, bool ema = true);

/// <workdir>/checkpoints/checkpoint_<step>.safetensors.
std::filesystem::path checkpoint_path(const std::filesystem::path& workdir, std::int64_t step);
/// The checkpoint of the most steps in a working directory, if any.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& workdir);
/// `path` itself if it is a file, else its latest checkpoint. Throws Error when there is neither.
std::filesystem::path resolve_checkpoint(const std::filesystem::path& path);
/// Removes all but the newest `keep` checkpoints; 0 keeps all.
void prune_checkpoints(const std::filesystem::path& workdir, int keep);

}  // namespace sgm
