#pragma once
// TensorBoard event files: TFRecord frames around protocol-buffer messages of type Event.

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "sgm/io/append_file.h"

namespace sgm {

/// An encoded picture.
struct EventImage {
  std::string_view png;
  int width = 0;
  int height = 0;
  int channels = 3;  // 1 or 3
};

/// Writes one new file events.out.tfevents.<seconds>.<host> into a folder, which must exist. Every call adds
/// one whole record; failures are Errors as AppendFile reports them.
class TfEvents {
 public:
  explicit TfEvents(const std::filesystem::path& folder);

  void scalar(std::string_view tag, std::int64_t step, double value);
  void image(std::string_view tag, std::int64_t step, const EventImage& image);

  /// Says that a run starts again: TensorBoard forgets what earlier files of the folder hold from
  /// `first_step` on.
  void restart(std::int64_t first_step);

 private:
  void write(std::string_view event);

  AppendFile file_;
};

}  // namespace sgm
