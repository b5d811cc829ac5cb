#include "cli/output.h"

#include <unistd.h>

#include "cli/commands.h"
#include "sgm/io/npy.h"

namespace sgm::cli {

namespace fs = std::filesystem;

void check_writable(const std::string& option, const fs::path& out) {
  check(!out.empty(), option, " is empty; name a file or folder");
  const fs::path whole = fs::absolute(out), named = whole.has_filename() ? whole : whole.parent_path();
  const fs::path parent = fs::is_directory(out) ? named : named.parent_path();
  check(fs::is_directory(parent), option, ' ', out.string(), ": folder ", parent.string(),
        " does not exist; create it first");
  check(::access(parent.c_str(), W_OK) == 0, option, ' ', out.string(), ": folder ", parent.string(),
        " is not writable; choose another");
}

void check_output_file(const std::string& option, const fs::path& out, const std::string& extension) {
  if (out.empty()) return;
  check(out.extension() == extension, option, ' ', out.string(), ": must end in ", extension);
  check(!fs::is_directory(out), option, ' ', out.string(), ": is a folder; name a file in it");
  check_writable(option, out);
}

ImageOutput::ImageOutput(fs::path out) : out_(std::move(out)) {
  const bool is_folder = fs::is_directory(out_);
  kind_ = out_.extension() == ".png" ? Kind::grid : out_.extension() == ".npz" ? Kind::npz : Kind::folder;
  if (kind_ == Kind::folder) {
    check(out_.extension().empty() || is_folder, "--out ", out_.string(),
          ": must end in .png (a grid) or .npz, or be a folder (one file an image)");
    check(is_folder || !fs::exists(out_), "--out ", out_.string(),
          ": is a file, not a folder; name a folder, or a file that ends in .png or .npz");
  } else {
    check(!is_folder, "--out ", out_.string(), ": is a folder; name a file in it");
  }
  check_writable("--out", out_);
}

void ImageOutput::add(const Tensor& samples, bool centered) {
  const PixelRule rule = kind_ == Kind::grid ? PixelRule::round : PixelRule::truncate;
  for (Image& image : to_images(samples, centered, rule)) images_.push_back(std::move(image));
}

void ImageOutput::begin_rows(std::vector<Image> heads, int per_row) {
  heads_ = std::move(heads);
  heads_per_row_ = per_row;
}

void ImageOutput::write(int columns) const {
  if (kind_ == Kind::grid && heads_per_row_ > 0) {
    const auto rows = std::ssize(heads_) / heads_per_row_, samples = std::ssize(images_) / rows;
    std::vector<Image> grid;
    for (std::ptrdiff_t row = 0; row < rows; ++row) {
      const auto head = heads_.begin() + row * heads_per_row_, sample = images_.begin() + row * samples;
      grid.insert(grid.end(), head, head + heads_per_row_);
      grid.insert(grid.end(), sample, sample + samples);
    }
    return write_png(out_, make_grid(grid, heads_per_row_ + static_cast<int>(samples)));
  }
  if (kind_ == Kind::grid) return write_png(out_, make_grid(images_, columns));
  if (kind_ == Kind::folder) {
    fs::create_directories(out_);
    for (std::size_t i = 0; i < images_.size(); ++i) {
      std::string number = std::to_string(i);
      number.insert(0, number.size() < 6 ? 6 - number.size() : 0, '0');
      write_png(out_ / (number + ".png"), images_[i]);
    }
    return;
  }
  std::vector<std::uint8_t> pixels;
  for (const Image& image : images_) pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
  const Shape shape{size(), images_[0].height, images_[0].width, images_[0].channels};
  write_npz(out_, {{"samples", make_array(shape, std::span<const std::uint8_t>(pixels))}});
}

}  // namespace sgm::cli
