#pragma once
// Where a command's images go.

#include <filesystem>
#include <future>
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

/// A grid (.png), an array of bytes (.npz) or a folder with one file an image. Grids and arrays are written
/// by finish(); images of a folder while the next ones are computed.
class ImageOutput {
 public:
  /// first: the number of the first image in a folder. Throws Error for paths that could not be written.
  explicit ImageOutput(std::filesystem::path out, std::int64_t first = 0);

  /// Throws Error when a folder holds one of the first n images already: for before long work.
  void check_free(std::int64_t n) const;
  /// Samples [N, H, W, C] in data space. Throws Error when earlier ones could not be written.
  void add(const Tensor& samples, bool centered);
  /// Rows of a grid begin with these images, `per_row` each, and share the samples out; other outputs hold
  /// the samples alone.
  void begin_rows(std::vector<Image> heads, int per_row);
  /// Waits until the images of a folder are written.
  void finish_files();
  /// columns: of a grid; 0: about as many as rows, or as begin_rows() has it.
  void finish(int columns = 0);
  /// Whether images are in their place before finish().
  bool is_folder() const { return kind_ == Kind::folder; }
  const std::filesystem::path& path() const { return out_; }

 private:
  enum class Kind { grid, npz, folder };

  void write_files(const std::vector<Image>& images, std::int64_t first) const;
  void write_grid(int columns) const;
  void write_array() const;

  std::filesystem::path out_;
  Kind kind_;
  std::int64_t next_;          // number of the next image
  std::future<void> writing_;  // of a folder's files
  std::vector<Image> images_, heads_;
  int heads_per_row_ = 0;
};

}  // namespace sgm::cli
