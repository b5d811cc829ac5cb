#include "sgm/io/npy.h"

#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <sstream>
#include <string_view>

#include "sgm/core/error.h"
#include "sgm/io/archive.h"
#include "sgm/io/atomic_file.h"
#include "sgm/io/printable.h"

static_assert(std::endian::native == std::endian::little,
              "array files are little-endian and read as they are");

namespace sgm {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 36;
constexpr std::size_t kMaxDimensions = 32;  // NumPy's own limit

struct NpyType {
  std::string_view code;  // without the byte order
  DType dtype;
};
constexpr std::array<NpyType, 5> kTypes{
    {{"u1", DType::u8}, {"i4", DType::i32}, {"i8", DType::i64}, {"f4", DType::f32}, {"f8", DType::f64}}};

/// The header is a Python dictionary literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  void parse() {
    expect('{');
    while (!accept('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr" && !dtype_) {
        dtype_ = type();
      } else if (key == "fortran_order" && !fortran_order_) {
        fortran_order_ = boolean();
      } else if (key == "shape" && !sizes_) {
        sizes_ = tuple();
      } else {
        damaged();
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size() || !dtype_ || !fortran_order_ || !sizes_) damaged();
    check(!*fortran_order_, name_, ": the array is in Fortran order; save numpy.ascontiguousarray(x)");
  }

  DType dtype() const { return *dtype_; }
  const std::vector<std::int64_t>& sizes() const { return *sizes_; }

 private:
  [[noreturn]] void damaged() const {
    fail(name_, ": the .npy header cannot be read at byte ", at_, "; save the array again with numpy.save");
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) damaged();
  }
  std::string_view quoted() {
    skip_space();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) damaged();
    const std::size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos) damaged();
    const std::string_view content = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return content;
  }
  bool boolean() {
    skip_space();
    for (const std::string_view word : {"True", "False"}) {
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return word == "True";
    }
    damaged();
  }
  DType type() {
    skip_space();
    check(at_ >= text_.size() || text_[at_] != '[', name_, ": holds structures; save plain number arrays");
    const std::string_view code = quoted();
    check(code.find('O') == std::string_view::npos, name_,
          ": holds pickled Python objects, which are never loaded; save plain number arrays");
    check(!code.starts_with('>'), name_, ": is big-endian (", printable(code, 20),
          "); save x.astype(x.dtype.newbyteorder('<'))");
    for (const NpyType& known : kTypes)
      if (code.size() == 3 && code.find_first_of("<|=") == 0 && code.substr(1) == known.code)
        return known.dtype;
    fail(name_, ": element type '", printable(code, 20), "' is not supported; use u1, i4, i8, f4 or f8");
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> sizes;
    expect('(');
    while (!accept(')')) {
      skip_space();
      std::int64_t size = 0;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), size);
      if (error != std::errc() || sizes.size() == kMaxDimensions) damaged();
      at_ = static_cast<std::size_t>(end - text_.data());
      accept('L');  // as Python 2 wrote it
      sizes.push_back(size);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
  std::optional<DType> dtype_;
  std::optional<bool> fortran_order_;
  std::optional<std::vector<std::int64_t>> sizes_;
};

std::string_view type_code(DType dtype) {
  for (const NpyType& known : kTypes)
    if (known.dtype == dtype) return known.code;
  fail("npy: element type ", dtype, " cannot be saved; use u8, i32, i64, f32 or f64");
}

NamedArrays arrays_of(const ZipReader& zip, const std::string& name) {
  constexpr std::string_view kSuffix = ".npy";
  NamedArrays arrays;
  for (const std::string& entry : zip.names()) {
    check(entry.ends_with(kSuffix), name, ": entry '", printable(entry),
          "' is no .npy array; is this an .npz file?");
    const Bytes content = zip.read(entry, kMaxFileBytes);
    arrays[entry.substr(0, entry.size() - kSuffix.size())] =
        parse_npy(content, name + ": " + printable(entry));
  }
  return arrays;
}

}  // namespace

NpyHeader parse_npy_header(std::span<const std::byte> head, const std::string& name) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  check(text.starts_with(kMagic), name, ": not a .npy file; save the array with numpy.save");
  const auto byte_at = [&](std::size_t i) {
    check(i < head.size(), name, ": the .npy header is truncated; fetch or save the file again");
    return std::to_integer<std::size_t>(head[i]);
  };
  const std::size_t version = byte_at(6);
  check(version >= 1 && version <= 3, name, ": .npy version ", version, " is not known (1 to 3 are)");
  const std::size_t start = version == 1 ? 10 : 12;
  std::size_t length = byte_at(8) | byte_at(9) << 8;
  if (version > 1) length |= byte_at(10) << 16 | byte_at(11) << 24;
  check(start + length <= kMaxNpyHeader, name, ": a .npy header of ", length, " bytes; the file is damaged");
  check(start + length <= head.size(), name, ": the .npy header is truncated; fetch or save the file again");

  HeaderParser parser(text.substr(start, length), name);
  parser.parse();
  const std::size_t bytes = checked_bytes(name, parser.dtype(), parser.sizes());
  return {parser.dtype(), Shape(std::span(parser.sizes())), start + length, bytes};
}

Array parse_npy(std::span<const std::byte> file, const std::string& name) {
  const NpyHeader header = parse_npy_header(file.first(std::min(file.size(), kMaxNpyHeader)), name);
  const std::size_t present = file.size() - header.offset;
  check(present == header.bytes, name, ": shape ", header.shape, " of ", header.dtype, " needs ",
        header.bytes, " bytes, the file has ", present, "; fetch or save it again");
  const auto data = file.subspan(header.offset);
  return {header.dtype, header.shape, Bytes(data.begin(), data.end())};
}

Array read_npy(const std::filesystem::path& path) {
  return parse_npy(read_file(path, kMaxFileBytes), printable(path.native()));
}

Bytes to_npy(const Array& array) {
  const std::string_view code = type_code(array.dtype);
  check(array.bytes.size() == checked_bytes("npy", array.dtype, {array.shape.begin(), array.shape.end()}),
        "npy: shape ", array.shape, " of ", array.dtype, " does not fit ", array.bytes.size(), " bytes");
  std::ostringstream header;
  header << "{'descr': '" << (code == "u1" ? '|' : '<') << code << "', 'fortran_order': False, 'shape': (";
  for (int i = 0; i < array.shape.rank(); ++i) header << (i ? ", " : "") << array.shape[i];
  header << (array.shape.rank() == 1 ? ",), }" : "), }");
  std::string text = header.str();
  // NumPy pads with spaces so that the data begins at a multiple of 64, and ends the header with a newline.
  constexpr std::size_t kStart = 10, kAlignment = 64;
  text.append(kAlignment - 1 - (kStart + text.size()) % kAlignment, ' ').push_back('\n');

  Bytes out(kStart + text.size() + array.bytes.size());
  std::memcpy(out.data(), kMagic.data(), kMagic.size());
  out[6] = std::byte{1};
  out[7] = std::byte{0};
  out[8] = static_cast<std::byte>(text.size() & 0xff);
  out[9] = static_cast<std::byte>(text.size() >> 8);
  std::memcpy(out.data() + kStart, text.data(), text.size());
  if (!array.bytes.empty())
    std::memcpy(out.data() + kStart + text.size(), array.bytes.data(), array.bytes.size());
  return out;
}

void write_npy(const std::filesystem::path& path, const Array& array) {
  const Bytes content = to_npy(array);
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

NamedArrays parse_npz(Bytes archive, const std::string& name) {
  return arrays_of(ZipReader(std::move(archive), name), name);
}

NamedArrays read_npz(const std::filesystem::path& path) {
  return arrays_of(ZipReader(path), printable(path.native()));
}

void write_npz(const std::filesystem::path& path, const NamedArrays& arrays, bool compress) {
  ZipWriter zip(path);
  for (const auto& [name, array] : arrays)
    zip.add(name + ".npy", to_npy(array), compress ? Compression::deflated : Compression::stored);
  zip.commit();
}

}  // namespace sgm
