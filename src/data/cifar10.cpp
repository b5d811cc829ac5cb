// CIFAR-10's binary version: records of one label byte and 3 x 32 x 32 pixel bytes, plane after plane.

#include <algorithm>

#include "data/source.h"
#include "sgm/core/error.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

constexpr int kSide = 32, kPlane = kSide * kSide;
constexpr std::uint64_t kRecord = 1 + 3 * kPlane;

class Cifar10Source : public Source {
 public:
  explicit Cifar10Source(std::vector<ByteStore> files) : files_(std::move(files)) {
    std::vector<int> classes;
    for (const ByteStore& file : files_) {
      check(file.size() > 0 && file.size() % kRecord == 0, file.name(), ": ", file.size(),
            " bytes are not a multiple of 3073, CIFAR-10's record; fetch the binary version again");
      for (std::uint64_t at = 0; at < file.size(); at += kRecord) {
        std::byte byte{};
        file.read_at(at, {&byte, 1});
        const int label = std::to_integer<int>(byte);
        check(label < 10, file.name(), ": record ", at / kRecord, " has label ", label,
              "; CIFAR-10's are 0 to 9, so this is another format or the file is damaged");
        classes.push_back(label);
      }
      ends_.push_back(static_cast<std::int64_t>(classes.size()));
    }
    labels = checked_labels(
        std::move(classes), ends_.back(),
        {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"},
        files_[0].name());
  }

  std::int64_t size() const override { return ends_.back(); }
  std::string name_of(std::int64_t i) const override {
    const auto [file, record] = locate(i);
    return files_[file].name() + ": record " + std::to_string(record);
  }
  Image image(std::int64_t i) const override {
    const auto [file, record] = locate(i);
    std::vector<std::uint8_t> planes(3 * kPlane);
    files_[file].read_at(record * kRecord + 1, std::as_writable_bytes(std::span(planes)));
    Image image{kSide, kSide, 3, std::vector<std::uint8_t>(planes.size())};
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t p = 0; p < kPlane; ++p) image.pixels[3 * p + c] = planes[c * kPlane + p];
    return image;
  }

 private:
  struct Place {
    std::size_t file;
    std::uint64_t record;
  };
  Place locate(std::int64_t i) const {
    const auto end = std::ranges::upper_bound(ends_, i);
    const std::int64_t before = end == ends_.begin() ? 0 : *(end - 1);
    return {static_cast<std::size_t>(end - ends_.begin()), static_cast<std::uint64_t>(i - before)};
  }

  std::vector<ByteStore> files_;
  std::vector<std::int64_t> ends_;  // images in the files up to and including this one
};

}  // namespace

std::unique_ptr<Source> cifar10_source(std::vector<ByteStore> files) {
  return std::make_unique<Cifar10Source>(std::move(files));
}

std::unique_ptr<Source> open_cifar10(const std::vector<fs::path>& files) {
  std::vector<ByteStore> stores;
  for (const fs::path& file : files) stores.emplace_back(file);
  return cifar10_source(std::move(stores));
}

std::vector<fs::path> find_cifar10(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && name.starts_with("data_batch_") && name.ends_with(".bin"))
      found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace sgm
