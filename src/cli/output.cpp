#include "cli/output.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>

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

namespace {

fs::path numbered(const fs::path& folder, std::int64_t number) {
  std::string digits = std::to_string(number);
  digits.insert(0, digits.size() < 6 ? 6 - digits.size() : 0, '0');
  return folder / (digits + ".png");
}

}  // namespace

ImageOutput::ImageOutput(fs::path out, std::int64_t first) : out_(std::move(out)), next_(first) {
  const bool exists = fs::is_directory(out_);
  kind_ = out_.extension() == ".png" ? Kind::grid : out_.extension() == ".npz" ? Kind::npz : Kind::folder;
  if (kind_ == Kind::folder) {
    check(out_.extension().empty() || exists, "--out ", out_.string(),
          ": must end in .png (a grid) or .npz, or be a folder (one file an image)");
    check(exists || !fs::exists(out_), "--out ", out_.string(),
          ": is a file, not a folder; name a folder, or a file that ends in .png or .npz");
  } else {
    check(!exists, "--out ", out_.string(), ": is a folder; name a file in it");
  }
  check_writable("--out", out_);
}

void ImageOutput::check_free(std::int64_t n) const {
  if (kind_ != Kind::folder || !fs::exists(out_)) return;
  for (std::int64_t number = next_; number < next_ + n; ++number)
    check(!fs::exists(numbered(out_, number)), "--out ", out_.string(), ": holds ",
          numbered(out_, number).filename().string(), " already; choose another folder");
}

void ImageOutput::add(const Tensor& samples, bool centered) {
  const PixelRule rule = kind_ == Kind::grid ? PixelRule::round : PixelRule::truncate;
  std::vector<Image> images = to_images(samples, centered, rule);
  const std::int64_t first = next_;
  next_ += std::ssize(images);
  if (kind_ != Kind::folder) {
    std::move(images.begin(), images.end(), std::back_inserter(images_));
    return;
  }
  finish_files();
  writing_ = std::async(std::launch::async,
                        [this, first, images = std::move(images)] { write_files(images, first); });
}

void ImageOutput::begin_rows(std::vector<Image> heads, int per_row) {
  heads_ = std::move(heads);
  heads_per_row_ = per_row;
}

void ImageOutput::finish_files() {
  if (writing_.valid()) writing_.get();
}

void ImageOutput::finish(int columns) {
  finish_files();
  if (kind_ == Kind::grid) write_grid(columns);
  if (kind_ == Kind::npz) write_array();
}

void ImageOutput::write_files(const std::vector<Image>& images, std::int64_t first) const {
  fs::create_directories(out_);
  for (const Image& image : images) write_png(numbered(out_, first++), image);
}

void ImageOutput::write_grid(int columns) const {
  if (heads_per_row_ == 0) return write_png(out_, make_grid(images_, columns));
  const auto rows = std::ssize(heads_) / heads_per_row_, samples = std::ssize(images_) / rows;
  std::vector<Image> grid;
  for (std::ptrdiff_t row = 0; row < rows; ++row) {
    const auto head = heads_.begin() + row * heads_per_row_, sample = images_.begin() + row * samples;
    grid.insert(grid.end(), head, head + heads_per_row_);
    grid.insert(grid.end(), sample, sample + samples);
  }
  write_png(out_, make_grid(grid, heads_per_row_ + static_cast<int>(samples)));
}

void ImageOutput::write_array() const {
  std::vector<std::uint8_t> pixels;
  for (const Image& image : images_) pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
  const Shape shape{std::ssize(images_), images_[0].height, images_[0].width, images_[0].channels};
  write_npz(out_, {{"samples", make_array(shape, std::span<const std::uint8_t>(pixels))}});
}

}  // namespace sgm::cli
