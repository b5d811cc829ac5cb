#pragma once
// What a run measures, for people (TensorBoard) and programs (JSON lines).

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <string_view>

#include "sgm/io/append_file.h"
#include "sgm/io/tfevents.h"

namespace sgm {

/// A measured number: "loss", "img_per_s", "grad_norm", "lr".
struct Metric {
  std::string_view name;
  double value = 0;
};

/// Appends to <workdir>/metrics.jsonl and to a TensorBoard event file in <workdir>. The folder must exist.
class MetricsWriter {
 public:
  /// A run that resumes at `step` loses the records of later steps, which an interrupted run left behind, so
  /// that the files read as if it had never stopped; 0 is a new run. Other lines stay as they are.
  explicit MetricsWriter(const std::filesystem::path& workdir, std::int64_t step = 0);

  /// One line {"step":..., "<name>":..., ..., "time":<seconds since 1970>}; what is not finite is written as
  /// null there, and as it is to TensorBoard.
  void write(std::int64_t step, std::span<const Metric> metrics);
  void write(std::int64_t step, std::initializer_list<Metric> metrics) {
    write(step, std::span(metrics.begin(), metrics.size()));
  }

  /// To TensorBoard only.
  void image(std::string_view tag, std::int64_t step, const EventImage& image);

 private:
  AppendFile lines_;
  TfEvents events_;
};

}  // namespace sgm
