#include "sgm/data/dataset.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <new>
#include <sstream>
#include <string_view>

#include "data/parallel.h"
#include "data/source.h"
#include "sgm/core/error.h"
#include "sgm/io/archive.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxMemoryBytes = std::int64_t{512} << 20;
constexpr int kMaxImageSize = 4096;

/// What a format is recognised by.
struct Candidate {
  fs::path path;
  bool is_folder = false;
  std::string head;       // first bytes of a file
  std::string extension;  // of a file, lower case
};

struct Format {
  const char* name;
  std::string_view extension;                  // tried when no format recognises the content
  bool (*recognises)(const Candidate& input);  // by content
  std::unique_ptr<Source> (*open)(const fs::path& path);
};

bool is_zip(const Candidate& input) {
  return input.head.starts_with("PK\x03\x04") || input.head.starts_with("PK\x05\x06");
}

/// In the order in which they are tried. A CIFAR-10 record may begin like an IDX file, so it comes first.
constexpr std::array<Format, 8> kDatasetFormats{{
    {"CIFAR-10 binary", ".bin", [](const Candidate& input) { return input.extension == ".bin"; },
     [](const fs::path& path) { return open_cifar10({path}); }},
    {"NumPy array", ".npy", [](const Candidate& input) { return input.head.starts_with("\x93NUMPY"); },
     [](const fs::path& path) { return npy_source(ByteStore(path)); }},
    {"NumPy archive", ".npz",
     [](const Candidate& input) { return is_zip(input) && input.extension == ".npz"; }, open_npz},
    {"zip of images", ".zip", is_zip, open_zip},
    {"IDX", ".gz",
     [](const Candidate& input) {
       return input.head.starts_with("\x1f\x8b") || input.head.starts_with(std::string_view("\0\0", 2));
     },
     open_idx},
    {"folder of IDX files", "",
     [](const Candidate& input) { return input.is_folder && !find_idx(input.path).empty(); },
     [](const fs::path& path) { return open_idx(find_idx(path)); }},
    {"folder of CIFAR-10 files", "",
     [](const Candidate& input) { return input.is_folder && !find_cifar10(input.path).empty(); },
     [](const fs::path& path) { return open_cifar10(find_cifar10(path)); }},
    {"folder of images", "", [](const Candidate& input) { return input.is_folder; }, open_image_folder},
}};

Candidate inspect(const fs::path& path) {
  Candidate input{path, fs::is_directory(path), {}, path.extension().string()};
  for (char& c : input.extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (input.is_folder) return input;
  const InputFile file(path);
  check(file.size() > 0, file.name(), ": the file is empty; fetch it again");
  input.head.resize(std::min<std::uint64_t>(file.size(), 8));
  file.read_at(0, std::as_writable_bytes(std::span(input.head)));
  return input;
}

const Format& format_of(const Candidate& input) {
  for (const Format& format : kDatasetFormats)
    if (format.recognises(input)) return format;
  // Its reader says best what is wrong with a file that is called like its own.
  for (const Format& format : kDatasetFormats)
    if (!format.extension.empty() && format.extension == input.extension) return format;
  std::string names;
  for (const Format& format : kDatasetFormats) (names += names.empty() ? "" : ", ") += format.name;
  fail(printable(input.path.native()), ": no known set of images; known are: ", names);
}

/// A source brought to one image size and channel count, in memory when it is small.
class UniformDataset : public Dataset {
 public:
  UniformDataset(std::unique_ptr<Source> source, int image_size, int num_channels, std::string title)
      : source_(std::move(source)),
        size_(source_->size()),
        image_size_(image_size),
        labels_(std::move(source_->labels)),
        title_(std::move(title)) {
    const Image first = source_->image(0);
    height_ = image_size ? image_size : first.height;
    width_ = image_size ? image_size : first.width;
    channels_ = num_channels ? num_channels : first.channels;
    check_channels_ = num_channels == 0;
    if (size_ > kMaxMemoryBytes / image_bytes()) return;
    pixels_.resize(static_cast<std::size_t>(size_ * image_bytes()));
    parallel_for(size_, decoding_threads(), [this](std::int64_t i) { decode(i, slot(i)); });
    source_.reset();
  }

  std::int64_t size() const override { return size_; }
  int height() const override { return height_; }
  int width() const override { return width_; }
  int channels() const override { return channels_; }
  int num_classes() const override { return labels_.count; }
  const std::vector<std::string>& class_names() const override { return labels_.names; }
  bool is_in_memory() const override { return !source_; }

  int label(std::int64_t i) const override {
    check_index(i);
    return labels_.classes.empty() ? -1 : labels_.classes[static_cast<std::size_t>(i)];
  }

  void read(std::int64_t i, std::span<std::uint8_t> out) const override {
    check_index(i);
    check(static_cast<std::int64_t>(out.size()) == image_bytes(), "dataset: an image has ", image_bytes(),
          " bytes, the buffer ", out.size());
    if (source_) return decode(i, out);
    std::memcpy(out.data(), pixels_.data() + i * image_bytes(), out.size());
  }

  std::string describe() const override {
    std::ostringstream text;
    text << title_ << ": " << size_ << " images [" << height_ << ", " << width_ << ", " << channels_ << "], ";
    if (labels_.count > 0)
      text << labels_.count << " classes";
    else
      text << "no labels";
    text << (source_ ? ", decoded when read" : "");
    return text.str();
  }

 private:
  void check_index(std::int64_t i) const { check(i >= 0 && i < size_, "dataset: image ", i, " of ", size_); }
  std::span<std::uint8_t> slot(std::int64_t i) {
    return std::span(pixels_).subspan(static_cast<std::size_t>(i * image_bytes()),
                                      static_cast<std::size_t>(image_bytes()));
  }

  void decode(std::int64_t i, std::span<std::uint8_t> out) const {
    Image image = source_->image(i);
    if (check_channels_)
      check(image.channels == channels_, source_->name_of(i), ": has ", image.channels,
            " channels, the first image ", channels_, "; set data.num_channels to 1 or 3");
    image = convert_channels(std::move(image), channels_);
    if (image_size_) image = resize_and_crop(image, image_size_);
    check(image.height == height_ && image.width == width_, source_->name_of(i), ": is ", image.width, " x ",
          image.height, " pixels, the first image ", width_, " x ", height_,
          "; set data.image_size to resize all");
    std::ranges::copy(image.pixels, out.begin());
  }

  std::unique_ptr<Source> source_;  // null once everything is in memory
  std::int64_t size_;
  int image_size_;
  Labels labels_;
  std::string title_;
  int height_ = 0, width_ = 0, channels_ = 0;
  bool check_channels_ = false;
  std::vector<std::uint8_t> pixels_;
};

class FirstImages final : public Dataset {
 public:
  FirstImages(std::unique_ptr<Dataset> set, std::int64_t count) : set_(std::move(set)), count_(count) {
    check(count_ >= 1 && count_ <= set_->size(), "data.count must be 1 to ", set_->size(), " for ",
          set_->describe(), "; got ", count_);
  }

  std::int64_t size() const override { return count_; }
  int height() const override { return set_->height(); }
  int width() const override { return set_->width(); }
  int channels() const override { return set_->channels(); }
  int label(std::int64_t i) const override { return set_->label(i); }
  int num_classes() const override { return set_->num_classes(); }
  const std::vector<std::string>& class_names() const override { return set_->class_names(); }
  bool is_in_memory() const override { return set_->is_in_memory(); }
  std::string describe() const override {
    return "the first " + std::to_string(count_) + " of " + set_->describe();
  }
  void read(std::int64_t i, std::span<std::uint8_t> out) const override {
    check(i >= 0 && i < count_, "dataset: image ", i, " of ", count_);
    set_->read(i, out);
  }

 private:
  std::unique_ptr<Dataset> set_;
  std::int64_t count_;
};

}  // namespace

std::unique_ptr<Dataset> first_images(std::unique_ptr<Dataset> set, std::int64_t count) {
  return std::make_unique<FirstImages>(std::move(set), count);
}

std::unique_ptr<Dataset> open_dataset(const DataConfig& config) {
  auto set = open_dataset(config.path, config.image_size, config.num_channels);
  return config.count == 0 ? std::move(set) : first_images(std::move(set), config.count);
}

std::unique_ptr<Dataset> open_dataset(const fs::path& path, int image_size, int num_channels) {
  check(image_size >= 0 && image_size <= kMaxImageSize, "data.image_size must be 0 to ", kMaxImageSize,
        ", got ", image_size);
  check(num_channels == 0 || num_channels == 1 || num_channels == 3, "data.num_channels must be 1 or 3, got ",
        num_channels);
  check(!path.empty(), "data.path is empty; give an image folder, a zip, or an IDX, CIFAR-10 or NumPy file");
  const std::string name = printable(path.native());
  try {
    const Candidate input = inspect(path);
    const Format& format = format_of(input);
    return std::make_unique<UniformDataset>(format.open(path), image_size, num_channels,
                                            name + " (" + format.name + ")");
  } catch (const fs::filesystem_error& error) {
    fail(name, ": cannot be read: ", error.code().message(), "; check the path and its permissions");
  } catch (const std::bad_alloc&) {
    fail(name, ": does not fit into memory; use a .npy file or a folder, which are read piece by piece");
  }
}

}  // namespace sgm
