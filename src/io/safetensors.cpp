#include "sgm/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "sgm/core/error.h"
#include "sgm/io/atomic_file.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr const char* kMetadata = "__metadata__";
constexpr const char* kDamaged = "; the file is damaged or no safetensors file";

struct DTypeName {
  const char* name;
  DType dtype;
};
// The first name of a type is the one that is written.
constexpr DTypeName kDTypes[] = {{"F64", DType::f64},   {"F32", DType::f32}, {"F16", DType::f16},
                                 {"BF16", DType::bf16}, {"I64", DType::i64}, {"I32", DType::i32},
                                 {"U8", DType::u8},     {"BOOL", DType::u8}};

const char* written_name(DType dtype) {
  return std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](auto& d) { return d.dtype == dtype; })
      ->name;
}

struct Header {
  std::map<std::string, std::string> metadata;
  std::vector<SafeTensorInfo> tensors;
};

/// Receives the header's JSON token by token: a fixed three-level form, so nothing nests deeper and nothing
/// unknown is stored.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(std::string file, std::uint64_t data_begin, std::uint64_t data_bytes)
      : file_(std::move(file)), data_begin_(data_begin), data_bytes_(data_bytes) {}

  Header take() { return std::move(header_); }

  bool start_object(std::size_t) override {
    if (place_ == Place::start) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = key_ == kMetadata ? Place::metadata : Place::tensor;
      dtype_.reset(), shape_.reset(), offsets_.reset();
    } else {
      fail_token("an object");
    }
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::top) {
      key_ = key;
      check(names_.insert(key).second, file_, ": the name '", printable(key), "' comes twice", kDamaged);
    } else {
      field_ = key;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) finish_tensor();
    place_ = place_ == Place::top ? Place::end : Place::top;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      check(header_.metadata.emplace(field_, value).second, file_, ": the metadata key '", printable(field_),
            "' comes twice", kDamaged);
      return true;
    }
    if (place_ != Place::tensor || field_ != "dtype" || dtype_) fail_token("a string");
    const auto* known =
        std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](auto& d) { return value == d.name; });
    check(known != std::end(kDTypes), where(), "unknown element type '", printable(value, 20),
          "'; known are F64, F32, F16, BF16, I64, I32, U8 and BOOL");
    dtype_ = known->dtype;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::tensor && field_ == "shape" && !shape_) {
      shape_.emplace();
      place_ = Place::shape;
    } else if (place_ == Place::tensor && field_ == "data_offsets" && !offsets_) {
      offsets_.emplace();
      place_ = Place::offsets;
    } else {
      fail_token("an array");
    }
    return true;
  }

  bool end_array() override {
    place_ = Place::tensor;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      check(shape_->size() < Shape::kMaxRank, where(), "has more than ", Shape::kMaxRank, " dimensions");
      check(value <= std::numeric_limits<std::int64_t>::max(), where(), "a size of ", value, kDamaged);
      shape_->push_back(static_cast<std::int64_t>(value));
    } else if (place_ == Place::offsets) {
      check(offsets_->size() < 2, where(), "data_offsets has more than two entries", kDamaged);
      offsets_->push_back(value);
    } else {
      fail_token("a number");
    }
    return true;
  }

  bool number_integer(number_integer_t) override { fail_token("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { fail_token("a fraction"); }
  bool boolean(bool) override { fail_token("a truth value"); }
  bool null() override { fail_token("null"); }
  bool binary(binary_t&) override { fail_token("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail(file_, ": the header is no valid JSON at its byte ", position, kDamaged);
  }

 private:
  enum class Place { start, top, metadata, tensor, shape, offsets, end };

  std::string where() const { return file_ + ": tensor '" + printable(key_) + "': "; }

  [[noreturn]] void fail_token(const char* token) const {
    const bool in_tensor = place_ == Place::tensor || place_ == Place::shape || place_ == Place::offsets;
    if (in_tensor) fail(where(), "found ", token, " under '", printable(field_, 40), '\'', kDamaged);
    if (place_ == Place::metadata)
      fail(file_, ": metadata '", printable(field_, 40), "' is ", token, ", not a string", kDamaged);
    fail(file_, ": found ", token, " where the header must have none", kDamaged);
  }

  void finish_tensor() {
    check(dtype_ && shape_ && offsets_ && offsets_->size() == 2, where(),
          "dtype, shape or the two data_offsets are missing", kDamaged);
    const std::uint64_t begin = (*offsets_)[0], end = (*offsets_)[1];
    check(begin <= end && end <= data_bytes_, where(), "data_offsets [", begin, ", ", end,
          "] lie outside of the ", data_bytes_, " bytes of data; the file is truncated or damaged");
    const std::uint64_t bytes = checked_bytes(where() + "shape", *dtype_, *shape_);
    const Shape shape{std::span<const std::int64_t>(*shape_)};
    check(bytes == end - begin, where(), *dtype_, ' ', shape, " needs ", bytes, " bytes, data_offsets give ",
          end - begin, kDamaged);
    header_.tensors.push_back({key_, *dtype_, shape, data_begin_ + begin, bytes});
  }

  const std::string file_;
  const std::uint64_t data_begin_, data_bytes_;
  Place place_ = Place::start;
  std::string key_, field_;
  std::set<std::string, std::less<>> names_;
  std::optional<DType> dtype_;
  std::optional<std::vector<std::int64_t>> shape_;
  std::optional<std::vector<std::uint64_t>> offsets_;
  Header header_;
};

/// Length of the JSON header, checked against the size of the file.
std::uint64_t header_length(std::span<const std::byte> first_bytes, std::uint64_t file_bytes,
                            const std::string& file) {
  check(first_bytes.size() == kLengthBytes, file, ": has ", file_bytes,
        " bytes, too few for a safetensors file");
  std::uint64_t length = 0;
  std::memcpy(&length, first_bytes.data(), kLengthBytes);
  check(length <= kMaxHeaderBytes && length <= file_bytes - kLengthBytes, file, ": announces a header of ",
        length, " bytes, the file has ", file_bytes, kDamaged);
  return length;
}

Header parse_header(std::string_view json, std::uint64_t file_bytes, const std::string& file) {
  check(json.starts_with('{'), file, ": the header does not begin with '{'", kDamaged);
  const std::uint64_t data_begin = kLengthBytes + json.size();
  HeaderReader reader(file, data_begin, file_bytes - data_begin);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  Header header = reader.take();
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  std::uint64_t covered = data_begin;
  for (const SafeTensorInfo& info : header.tensors) {
    check(info.offset == covered, file, ": tensor '", printable(info.name), "' begins at byte ", info.offset,
          ", the one before it ends at ", covered, kDamaged);
    covered += info.bytes;
  }
  check(covered == file_bytes, file, ": the tensors end at byte ", covered, ", the file at ", file_bytes,
        kDamaged);
  return header;
}

std::string json_text(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    fail("safetensors: the text '", printable(text, 60), "' is not UTF-8");
  }
}

/// The JSON header, padded with blanks to a multiple of eight bytes so that the data are aligned.
std::string header_text(std::span<const SafeTensorView> entries, std::span<const std::size_t> order,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += '"' + std::string(kMetadata) + "\":{";
    for (const auto& [key, value] : metadata)
      text += (text.back() == '{' ? "" : ",") + json_text(key) + ':' + json_text(value);
    text += '}';
  }
  std::set<std::string_view> names{kMetadata};
  std::uint64_t offset = 0;
  for (const std::size_t i : order) {
    const SafeTensorView& entry = entries[i];
    check(names.insert(entry.name).second, "safetensors: the tensor name '", printable(entry.name),
          "' is given twice or reserved");
    const std::uint64_t end =
        offset + checked_bytes(entry.name, entry.dtype, std::span(entry.shape.begin(), entry.shape.end()));
    text += (text.size() > 1 ? "," : "") + json_text(entry.name) + ":{\"dtype\":\"" +
            written_name(entry.dtype) + "\",\"shape\":[";
    for (int d = 0; d < entry.shape.rank(); ++d) text += (d ? "," : "") + std::to_string(entry.shape[d]);
    text += "],\"data_offsets\":[" + std::to_string(offset) + ',' + std::to_string(end) + "]}";
    offset = end;
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

SafeTensorsFile::SafeTensorsFile(const std::filesystem::path& path) : file_(path) {
  std::vector<std::byte> first(std::min(kLengthBytes, file_.size()));
  file_.read_at(0, first);
  std::string json(header_length(first, file_.size(), name()), '\0');
  file_.read_at(kLengthBytes, std::as_writable_bytes(std::span(json)));
  Header header = parse_header(json, file_.size(), name());
  metadata_ = std::move(header.metadata);
  tensors_ = std::move(header.tensors);
  for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const SafeTensorInfo* SafeTensorsFile::find(std::string_view tensor) const {
  const auto found = index_.find(tensor);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void SafeTensorsFile::read(const SafeTensorInfo& info, std::span<std::byte> out) const {
  check(out.size() == info.bytes, name(), ": tensor '", printable(info.name), "' has ", info.bytes,
        " bytes, asked to fill ", out.size());
  file_.read_at(info.offset, out);
}

Array SafeTensorsFile::read(const SafeTensorInfo& info) const {
  Array array{info.dtype, info.shape, std::vector<std::byte>(info.bytes)};
  read(info, array.bytes);
  return array;
}

SafeTensors load_safetensors(const std::filesystem::path& path) {
  const SafeTensorsFile file(path);
  SafeTensors content{{}, file.metadata()};
  for (const SafeTensorInfo& info : file.tensors()) content.tensors.emplace(info.name, file.read(info));
  return content;
}

SafeTensors parse_safetensors(std::span<const std::byte> bytes, const std::string& name) {
  const std::uint64_t length =
      header_length(bytes.first(std::min<std::size_t>(kLengthBytes, bytes.size())), bytes.size(), name);
  const std::string_view json(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  Header header = parse_header(json, bytes.size(), name);
  SafeTensors content{{}, std::move(header.metadata)};
  for (const SafeTensorInfo& info : header.tensors) {
    const auto data = bytes.subspan(info.offset, info.bytes);
    content.tensors.emplace(info.name, Array{info.dtype, info.shape, {data.begin(), data.end()}});
  }
  return content;
}

void save_safetensors(const std::filesystem::path& path, std::span<const SafeTensorView> entries,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<std::size_t> order(entries.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return size_of(entries[a].dtype) > size_of(entries[b].dtype);
  });
  const std::string header = header_text(entries, order, metadata);
  check(header.size() <= kMaxHeaderBytes, path.string(), ": names, shapes and metadata take ", header.size(),
        " bytes, more than the ", kMaxHeaderBytes, " of a safetensors header");
  const std::uint64_t length = header.size();
  AtomicFile file(path);
  file.write(&length, kLengthBytes);
  file.write(header);
  for (const std::size_t i : order)
    file.write(entries[i].data,
               static_cast<std::size_t>(entries[i].shape.numel()) * size_of(entries[i].dtype));
  file.commit();
}

}  // namespace sgm
