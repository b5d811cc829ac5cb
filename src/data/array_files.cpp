// Image sets as NumPy arrays: .npy and .npz.

#include <array>
#include <cstring>
#include <utility>

#include "data/source.h"
#include "sgm/core/error.h"
#include "sgm/io/npy.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 4> kImageKeys{"images", "x", "arr_0", "samples"};
constexpr std::array<const char*, 2> kLabelKeys{"labels", "y"};

/// An array [N, H, W] or [N, H, W, C] that begins at `offset` of a store.
class ArraySource : public Source {
 public:
  ArraySource(ByteStore file, std::uint64_t offset, DType dtype, const Shape& shape)
      : file_(std::move(file)), offset_(offset), dtype_(dtype) {
    const std::string& name = file_.name();
    check(dtype == DType::u8 || dtype == DType::f32 || dtype == DType::f64, name, ": images of ", dtype,
          " values; save bytes (uint8), or floats in [0, 1]");
    check(shape.rank() == 3 || shape.rank() == 4, name, ": shape ", shape,
          "; images are [N, H, W] or [N, H, W, C]");
    const std::int64_t channels = shape.rank() == 4 ? shape[3] : 1;
    check(
        channels == 1 || channels == 3, name, ": shape ", shape, " has ", channels,
        " channels in its last place; 1 or 3 are known, and [N, C, H, W] must be transposed to [N, H, W, C]");
    check(shape[0] >= 1 && shape[1] >= 1 && shape[2] >= 1, name, ": shape ", shape, " holds no images");
    check(shape[1] <= kMaxImageSide && shape[2] <= kMaxImageSide && shape[1] * shape[2] <= kMaxImagePixels,
          name, ": shape ", shape, "; images have at most ", kMaxImagePixels, " pixels");
    size_ = shape[0];
    height_ = static_cast<int>(shape[1]);
    width_ = static_cast<int>(shape[2]);
    channels_ = static_cast<int>(channels);
  }

  std::int64_t size() const override { return size_; }
  std::string name_of(std::int64_t i) const override { return file_.name() + ": image " + std::to_string(i); }
  Image image(std::int64_t i) const override {
    const std::size_t count = std::size_t{1} * height_ * width_ * channels_, bytes = count * size_of(dtype_);
    std::vector<std::byte> raw(bytes);
    file_.read_at(offset_ + static_cast<std::uint64_t>(i) * bytes, raw);
    Image image{height_, width_, channels_, std::vector<std::uint8_t>(count)};
    switch (dtype_) {
      case DType::f32: from_floats<float>(raw, image, i); break;
      case DType::f64: from_floats<double>(raw, image, i); break;
      default: std::memcpy(image.pixels.data(), raw.data(), count);
    }
    return image;
  }

 private:
  /// Rounds 255 x, so that k / 255 gives back k.
  template <class T>
  void from_floats(const std::vector<std::byte>& raw, Image& image, std::int64_t i) const {
    for (std::size_t e = 0; e < image.pixels.size(); ++e) {
      T value;
      std::memcpy(&value, raw.data() + e * sizeof(T), sizeof(T));
      check(value >= T{0} && value <= T{1}, name_of(i), " holds the value ", value,
            "; floats must lie in [0, 1] (save (x + 1) / 2 of centred data, x / 255 of bytes)");
      image.pixels[e] = static_cast<std::uint8_t>(value * T{255} + T{0.5});
    }
  }

  ByteStore file_;
  std::uint64_t offset_;
  DType dtype_;
  std::int64_t size_;
  int height_, width_, channels_;
};

template <class T>
std::vector<int> to_classes(const Array& array, const std::string& where) {
  std::vector<int> classes;
  for (const T value : array.values<T>()) {
    const bool is_class = std::cmp_greater_equal(value, 0) && std::cmp_less(value, kMaxClasses);
    check(is_class, where, ": label ", classes.size(), " is ", +value, "; classes are numbered from 0");
    classes.push_back(static_cast<int>(value));
  }
  return classes;
}

Labels labels_from(const Array& array, std::int64_t images, const std::string& where) {
  const bool is_column = array.shape.rank() == 2 && array.shape[1] == 1;
  check(array.shape.rank() == 1 || is_column, where, ": labels of shape ", array.shape,
        "; they are [N] numbers");
  switch (array.dtype) {
    case DType::u8: return checked_labels(to_classes<std::uint8_t>(array, where), images, {}, where);
    case DType::i32: return checked_labels(to_classes<std::int32_t>(array, where), images, {}, where);
    case DType::i64: return checked_labels(to_classes<std::int64_t>(array, where), images, {}, where);
    default: fail(where, ": labels of ", array.dtype, " values; save integers");
  }
}

/// The first of the keys that the archive has, or end().
template <std::size_t N>
NamedArrays::iterator find_any(NamedArrays& arrays, const std::array<const char*, N>& keys) {
  for (const char* key : keys)
    if (const auto found = arrays.find(key); found != arrays.end()) return found;
  return arrays.end();
}

std::unique_ptr<Source> source_from(NamedArrays arrays, const std::string& name) {
  const auto images = find_any(arrays, kImageKeys);
  if (images == arrays.end()) {
    std::string keys;
    for (const auto& [key, array] : arrays) (keys += keys.empty() ? "" : ", ") += printable(key, 40);
    fail(name, ": has no array called images, x, arr_0 or samples (it has: ", printable(keys), ")");
  }
  Array& array = images->second;
  auto source = std::make_unique<ArraySource>(ByteStore(std::move(array.bytes), name + ": " + images->first),
                                              0, array.dtype, array.shape);
  const auto labels = find_any(arrays, kLabelKeys);
  if (labels != arrays.end())
    source->labels = labels_from(labels->second, source->size(), name + ": " + labels->first);
  return source;
}

}  // namespace

std::unique_ptr<Source> npy_source(ByteStore file) {
  Bytes head(std::min<std::uint64_t>(file.size(), kMaxNpyHeader));
  file.read_at(0, head);
  const NpyHeader header = parse_npy_header(head, file.name());
  const std::uint64_t present = file.size() - header.offset;
  check(present == header.bytes, file.name(), ": shape ", header.shape, " of ", header.dtype, " needs ",
        header.bytes, " bytes, the file has ", present, "; fetch or save it again");
  return std::make_unique<ArraySource>(std::move(file), header.offset, header.dtype, header.shape);
}

std::unique_ptr<Source> npz_source(Bytes archive, const std::string& name) {
  return source_from(parse_npz(std::move(archive), name), name);
}

std::unique_ptr<Source> open_npz(const fs::path& path) {
  return source_from(read_npz(path), printable(path.native()));
}

}  // namespace sgm
