#include "data/pnm.h"

#include <algorithm>

#include "data/stb.h"
#include "sgm/core/error.h"

namespace sgm {
namespace {

/// The header: magic, width, height and maximum, separated by white space and comments (# to the end of the
/// line).
class PnmHeader {
 public:
  PnmHeader(std::span<const std::byte> file, const std::string& name) : file_(file), name_(name) {}

  std::int64_t number() {
    for (; is_space(peek()) || peek() == '#'; ++at_)
      if (peek() == '#')
        while (peek() != '\n') ++at_;
    std::int64_t value = 0;
    check(peek() >= '0' && peek() <= '9', name_, ": the PPM header is damaged at byte ", at_);
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = 10 * value + (peek() - '0');
      check(value <= 1000000, name_, ": the PPM header holds a number above a million; the file is damaged");
    }
    return value;
  }

  /// Where the pixels begin: one white space character after the last number.
  std::size_t end() {
    check(is_space(peek()), name_, ": the PPM header is damaged at byte ", at_);
    return at_ + 1;
  }

 private:
  static bool is_space(int c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
  int at(std::size_t i) const {
    check(i < file_.size(), name_, ": the PPM header is truncated; fetch the file again");
    return std::to_integer<int>(file_[i]);
  }
  int peek() const { return at(at_); }

  std::span<const std::byte> file_;
  const std::string& name_;
  std::size_t at_ = 2;
};

}  // namespace

Image decode_pnm(std::span<const std::byte> file, const std::string& name) {
  PnmHeader header(file, name);
  const std::int64_t width = header.number(), height = header.number(), maximum = header.number();
  const std::size_t start = header.end();
  check_image_size(width, height, file.size(), name);
  check(maximum >= 1 && maximum <= 65535, name, ": maximum value ", maximum, " is not in 1 to 65535");

  const int channels = std::to_integer<char>(file[1]) == '6' ? 3 : 1;
  const std::size_t count = static_cast<std::size_t>(width * height * channels),
                    width_of_value = maximum > 255 ? 2 : 1;
  check(file.size() - start >= count * width_of_value, name, ": needs ", count * width_of_value,
        " bytes of pixels, the file has ", file.size() - start, "; it is truncated");
  Image image{static_cast<int>(height), static_cast<int>(width), channels, std::vector<std::uint8_t>(count)};
  for (std::size_t i = 0; i < count; ++i) {
    std::int64_t value = 0;  // two-byte values come with the high byte first
    for (std::size_t b = 0; b < width_of_value; ++b)
      value = value << 8 | std::to_integer<std::int64_t>(file[start + i * width_of_value + b]);
    image.pixels[i] = static_cast<std::uint8_t>((255 * std::min(value, maximum) + maximum / 2) / maximum);
  }
  return image;
}

}  // namespace sgm
