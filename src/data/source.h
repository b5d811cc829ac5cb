#pragma once
// Where images come from, before they are brought to one size: one Source per file format.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sgm/data/image.h"
#include "sgm/io/input_file.h"

namespace sgm {

/// Class labels of a set; `classes` is empty when there are none.
struct Labels {
  std::vector<int> classes;        // one per image
  int count = 0;                   // number of classes
  std::vector<std::string> names;  // one per class, or empty
};

/// Throws Error for a class outside [0, kMaxClasses).
inline constexpr int kMaxClasses = 1 << 20;

/// Images of any sizes, and their labels. Threads may share one object.
class Source {
 public:
  virtual ~Source() = default;
  virtual std::int64_t size() const = 0;
  /// Decodes image i.
  virtual Image image(std::int64_t i) const = 0;
  /// What messages call image i: file and position in it.
  virtual std::string name_of(std::int64_t i) const = 0;

  Labels labels;
};

/// Bytes by position, from a file or from memory.
class ByteStore {
 public:
  explicit ByteStore(const std::filesystem::path& path);
  ByteStore(Bytes bytes, std::string name) : name_(std::move(name)), bytes_(std::move(bytes)) {}

  const std::string& name() const { return name_; }
  std::uint64_t size() const { return file_ ? file_->size() : bytes_.size(); }
  void read_at(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string name_;
  std::unique_ptr<InputFile> file_;
  Bytes bytes_;
};

/// Bytes that a format unpacked as a whole may fill.
inline constexpr std::uint64_t kMaxUnpackedBytes = std::uint64_t{1} << 32;

// Each function below reads one format; those that take ByteStore or Bytes are what the fuzz tests feed.

/// IDX images [N, H, W] or [N, H, W, C]; the labels, [N], may be absent.
std::unique_ptr<Source> idx_source(ByteStore images, std::optional<ByteStore> labels);
std::unique_ptr<Source> open_idx(const std::filesystem::path& images);
/// The IDX image file of a folder; empty when there is none.
std::filesystem::path find_idx(const std::filesystem::path& folder);

/// CIFAR-10 records of all files, in order.
std::unique_ptr<Source> cifar10_source(std::vector<ByteStore> files);
std::unique_ptr<Source> open_cifar10(const std::vector<std::filesystem::path>& files);
/// The data_batch_*.bin files of a folder, sorted.
std::vector<std::filesystem::path> find_cifar10(const std::filesystem::path& folder);

/// A .npy file.
std::unique_ptr<Source> npy_source(ByteStore file);
/// An .npz archive.
std::unique_ptr<Source> npz_source(Bytes archive, const std::string& name);
std::unique_ptr<Source> open_npz(const std::filesystem::path& path);

/// A zip of images.
std::unique_ptr<Source> zip_source(Bytes archive, const std::string& name);
std::unique_ptr<Source> open_zip(const std::filesystem::path& path);
/// A folder of images.
std::unique_ptr<Source> open_image_folder(const std::filesystem::path& folder);

/// Labels of the images `names` from the text of a dataset.json file; `where` stands for it in messages.
Labels labels_from_json(const std::string& text, const std::vector<std::string>& names,
                        const std::string& where);

/// Labels for classes given by number; names may be empty. Throws Error when a class is negative, above
/// kMaxClasses or without a name, or when their number is not that of the images.
Labels checked_labels(std::vector<int> classes, std::int64_t images, std::vector<std::string> names,
                      const std::string& where);

}  // namespace sgm
