#pragma once
// The results of sgm likelihood: a file of JSON lines that an interrupted run can take up again.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sgm/io/append_file.h"

namespace sgm::cli {

using Json = nlohmann::ordered_json;

/// Which images a run evaluates, and how many at a time: they are written by whole batches.
struct ImageRange {
  std::int64_t first, n;
  int batch;
};

/// The first line holds the settings, {"likelihood": {...}}; each further one an image, in their order.
class LikelihoodFile {
 public:
  /// Without a path lines are only kept in memory. Resuming keeps what an earlier run with these settings
  /// finished, by whole batches, so that the rest is computed as if it had never stopped, and starts anew
  /// where there is no file. Throws Error when the file exists and is not to be resumed, when its settings
  /// differ, and for damaged lines; a torn last line is dropped.
  LikelihoodFile(const std::filesystem::path& path, const Json& settings, const ImageRange& range,
                 bool resume);

  /// Adds an image's line; it is in the file when this returns.
  void add(const Json& line);
  const std::vector<Json>& lines() const { return lines_; }

 private:
  std::vector<Json> lines_;
  std::unique_ptr<AppendFile> file_;  // absent without a path
};

}  // namespace sgm::cli
