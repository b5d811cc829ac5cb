// The IDX format of MNIST: two zero bytes, element type, rank, big-endian 32-bit sizes, elements.

#include <algorithm>
#include <array>

#include "data/source.h"
#include "sgm/core/error.h"
#include "sgm/io/archive.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

constexpr std::byte kUnsignedByte{0x08};

struct IdxHeader {
  std::vector<std::int64_t> sizes;
  std::uint64_t offset = 0;  // of the first element
};

IdxHeader read_header(const ByteStore& file) {
  std::array<std::byte, 4> magic;
  check(file.size() >= magic.size(), file.name(), ": an IDX file of ", file.size(),
        " bytes is truncated; fetch it again");
  file.read_at(0, magic);
  check(magic[0] == std::byte{0} && magic[1] == std::byte{0}, file.name(),
        ": not an IDX file (wrong magic number); name a *-images-idx3-ubyte file");
  check(magic[2] == kUnsignedByte, file.name(), ": IDX element type ", std::to_integer<int>(magic[2]),
        " is not supported; images and labels are unsigned bytes (8)");
  const std::size_t rank = std::to_integer<std::size_t>(magic[3]);
  check(rank >= 1 && rank <= 4, file.name(), ": IDX rank ", rank, "; images have 3 or 4, labels 1");
  std::vector<std::byte> words(4 * rank);
  file.read_at(magic.size(), words);

  IdxHeader header{std::vector<std::int64_t>(rank), magic.size() + words.size()};
  std::uint64_t bytes = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    std::uint32_t size = 0;
    for (std::size_t b = 0; b < 4; ++b) size = size << 8 | std::to_integer<std::uint32_t>(words[4 * i + b]);
    check(size >= 1, file.name(), ": IDX size ", i, " is 0; the file holds nothing");
    header.sizes[i] = size;
    const bool overflow = __builtin_mul_overflow(bytes, std::uint64_t{size}, &bytes);
    check(!overflow, file.name(), ": the sizes in the header are larger than any file; the file is damaged");
  }
  check(file.size() - header.offset == bytes, file.name(), ": the header promises ", bytes,
        " bytes of data, the file has ", file.size() - header.offset, "; fetch it again");
  return header;
}

class IdxSource : public Source {
 public:
  IdxSource(ByteStore images, const IdxHeader& header) : file_(std::move(images)), offset_(header.offset) {
    const std::size_t rank = header.sizes.size();
    check(rank >= 3, file_.name(), ": IDX rank ", rank, " is that of ", rank == 1 ? "labels" : "a table",
          "; name the images file (*-images-idx3-ubyte)");
    const std::int64_t channels = rank == 4 ? header.sizes[3] : 1;
    check(header.sizes[1] <= kMaxImageSide && header.sizes[2] <= kMaxImageSide &&
              header.sizes[1] * header.sizes[2] <= kMaxImagePixels && (channels == 1 || channels == 3),
          file_.name(), ": IDX images of ", header.sizes[1], " x ", header.sizes[2], " x ", channels,
          "; expected 1 or 3 channels and at most ", kMaxImagePixels, " pixels");
    size_ = header.sizes[0];
    height_ = static_cast<int>(header.sizes[1]);
    width_ = static_cast<int>(header.sizes[2]);
    channels_ = static_cast<int>(channels);
  }

  std::int64_t size() const override { return size_; }
  std::string name_of(std::int64_t i) const override { return file_.name() + ": image " + std::to_string(i); }
  Image image(std::int64_t i) const override {
    const std::uint64_t bytes = std::uint64_t{1} * height_ * width_ * channels_;
    Image image{height_, width_, channels_, std::vector<std::uint8_t>(bytes)};
    file_.read_at(offset_ + static_cast<std::uint64_t>(i) * bytes,
                  std::as_writable_bytes(std::span(image.pixels)));
    return image;
  }

 private:
  ByteStore file_;
  std::uint64_t offset_;
  std::int64_t size_;
  int height_, width_, channels_;
};

ByteStore open_store(const fs::path& path) {
  std::array<std::byte, 2> head{};
  ByteStore file(path);
  if (file.size() < head.size()) return file;
  file.read_at(0, head);
  if (!is_gzip(head)) return file;
  return {gunzip(read_file(path, kMaxUnpackedBytes), kMaxUnpackedBytes, file.name()), file.name()};
}

/// Every occurrence of `from` replaced.
std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

std::string without_gz(const std::string& name) {
  return name.ends_with(".gz") ? name.substr(0, name.size() - 3) : name;
}

/// train-images-idx3-ubyte -> train-labels-idx1-ubyte, packed or not; empty when there is no such file.
fs::path labels_beside(const fs::path& images) {
  const std::string name = images.filename().string();
  const std::string plain = without_gz(replaced(replaced(name, "images", "labels"), "idx3", "idx1"));
  if (plain == without_gz(name)) return {};
  for (const char* ending : {"", ".gz"}) {
    fs::path labels = images.parent_path() / (plain + ending);
    if (fs::exists(labels)) return labels;
  }
  return {};
}

}  // namespace

std::unique_ptr<Source> idx_source(ByteStore images, std::optional<ByteStore> labels) {
  const IdxHeader header = read_header(images);
  auto source = std::make_unique<IdxSource>(std::move(images), header);
  if (!labels) return source;
  const IdxHeader label_header = read_header(*labels);
  check(label_header.sizes.size() == 1, labels->name(), ": IDX rank ", label_header.sizes.size(),
        "; labels have rank 1");
  check(label_header.sizes[0] == source->size(), labels->name(), ": ", label_header.sizes[0], " labels for ",
        source->size(), " images; images and labels must belong together");
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(label_header.sizes[0]));
  labels->read_at(label_header.offset, std::as_writable_bytes(std::span(bytes)));
  source->labels = checked_labels({bytes.begin(), bytes.end()}, source->size(), {}, labels->name());
  return source;
}

std::unique_ptr<Source> open_idx(const fs::path& images) {
  const fs::path labels = labels_beside(images);
  return idx_source(open_store(images), labels.empty() ? std::nullopt : std::optional(open_store(labels)));
}

fs::path find_idx(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool is_images = entry.is_regular_file() && name.find("images") != std::string::npos &&
                           name.find("idx3") != std::string::npos;
    // Of a file and its packed twin the first is enough.
    if (is_images && (name == without_gz(name) || !fs::exists(folder / without_gz(name))))
      found.push_back(entry.path());
  }
  std::ranges::sort(found);
  if (found.size() <= 1) return found.empty() ? fs::path() : found[0];
  std::erase_if(found, [](const fs::path& path) {
    return path.filename().string().find("train") == std::string::npos;
  });
  check(found.size() == 1, printable(folder.native()),
        ": holds several IDX image files, and not exactly one is called train; name one of them");
  return found[0];
}

}  // namespace sgm
