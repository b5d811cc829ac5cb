#pragma once
// Where a command's images go.

#include <filesystem>
#include <string>
#include <vector>

#include "sgm/data/image.h"
#include "sgm/tensor/tensor.h"

namespace sgm::cli {

/// Throws Error, naming `option`, when a file could not be written at `out`: for before long work.
void check_writable(const std::string& option, const std::filesystem::path& out);

/// The same for a file whose name must end in `extension`, such as ".png"; nothing is checked of an empty
/// name.
void check_output_file(const std::string& option, const std::filesystem::path& out,
                       const std::string& extension);

/// A grid (.png), an array of bytes (.npz) or a folder with one file an image.
class ImageOutput {
 public:
  /// Throws Error for paths that could not be written.
  explicit ImageOutput(std::filesystem::path out);

  /// Samples [N, H, W, C] in data space.
  void add(const Tensor& samples, bool centered);
  /// Rows of a grid begin with these images, `per_row` each, and share the samples out; other outputs hold
  /// the samples alone.
  void begin_rows(std::vector<Image> heads, int per_row);
  std::int64_t size() const { return static_cast<std::int64_t>(images_.size()); }
  /// columns: of a grid; 0: about as many as rows, or as begin_rows() has it.
  void write(int columns = 0) const;
  const std::filesystem::path& path() const { return out_; }

 private:
  enum class Kind { grid, npz, folder };

  std::filesystem::path out_;
  Kind kind_;
  std::vector<Image> images_, heads_;
  int heads_per_row_ = 0;
};

}  // namespace sgm::cli
