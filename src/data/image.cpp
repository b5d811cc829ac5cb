#include "sgm/data/image.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "data/jpeg.h"
#include "data/pnm.h"
#include "data/stb.h"
#include "sgm/core/error.h"
#include "sgm/io/atomic_file.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

/// Walks the chunks of a PNG file and compares their checksums, which the decoder does not.
void check_png(std::span<const std::byte> file, const std::string& name) {
  const auto word_at = [&](std::size_t at) {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 4; ++i) word = word << 8 | std::to_integer<std::uint32_t>(file[at + i]);
    return word;
  };
  constexpr std::size_t kSignature = 8, kFrame = 12;  // length, type, checksum: four bytes each
  constexpr std::uint32_t kEnd = 0x49454e44;          // "IEND"
  for (std::size_t at = kSignature;;) {
    check(file.size() - at >= kFrame && file.size() - at - kFrame >= word_at(at), name,
          ": the PNG image is truncated; fetch it again");
    const std::size_t length = word_at(at);
    const uLong sum = crc32_z(0, reinterpret_cast<const Bytef*>(file.data() + at + 4), length + 4);
    check(sum == word_at(at + 8 + length), name, ": a PNG checksum at byte ", at,
          " does not match; the file is damaged, fetch it again");
    if (word_at(at + 4) == kEnd) return;
    at += kFrame + length;
  }
}

/// Lays an image with alpha as its last channel over white and drops the alpha.
Image over_white(const Image& image) {
  const std::size_t in_channels = static_cast<std::size_t>(image.channels), channels = in_channels - 1;
  const std::size_t count = image.pixels.size() / in_channels;
  Image out{image.height, image.width, image.channels - 1, std::vector<std::uint8_t>(count * channels)};
  for (std::size_t i = 0; i < count; ++i) {
    const int alpha = image.pixels[i * in_channels + channels];
    for (std::size_t c = 0; c < channels; ++c) {
      const int value = image.pixels[i * in_channels + c];
      out.pixels[i * channels + c] =
          static_cast<std::uint8_t>((value * alpha + 255 * (255 - alpha) + 127) / 255);
    }
  }
  return out;
}

Image decode_png(std::span<const std::byte> file, const std::string& name) {
  check_png(file, name);
  return decode_with_stb(file, name);
}

Image decode_jpeg(std::span<const std::byte> file, const std::string& name) {
  check_jpeg(file, name);
  return decode_with_stb(file, name);
}

struct ImageFormat {
  std::string_view magic;
  Image (*decode)(std::span<const std::byte> file, const std::string& name);
};
constexpr std::array<ImageFormat, 5> kImageFormats{{{"\x89PNG\r\n\x1a\n", decode_png},
                                                    {"\xff\xd8\xff", decode_jpeg},
                                                    {"BM", decode_with_stb},
                                                    {"P5", decode_pnm},
                                                    {"P6", decode_pnm}}};
constexpr std::array<std::string_view, 6> kExtensions{".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm"};

}  // namespace

Image decode_image(std::span<const std::byte> file, const std::string& name) {
  check(!file.empty(), name, ": the file is empty; fetch it again");
  check(file.size() <= kMaxImageFileBytes, name, ": ", file.size(),
        " bytes are too many for an image; shrink it");
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  for (const ImageFormat& format : kImageFormats) {
    if (!text.starts_with(format.magic)) continue;
    Image image = format.decode(file, name);
    return image.channels % 2 == 0 ? over_white(image) : image;
  }
  fail(name, ": not a PNG, JPEG, BMP or binary PPM/PGM image; convert it to PNG");
}

Image read_image(const std::filesystem::path& path) {
  return decode_image(read_file(path, kMaxImageFileBytes), printable(path.native()));
}

bool has_image_extension(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::ranges::find(kExtensions, extension) != kExtensions.end();
}

std::string image_extensions() {
  std::string list;
  for (const std::string_view extension : kExtensions) (list += list.empty() ? "" : " ") += extension;
  return list;
}

Bytes encode_png(const Image& image) {
  const bool is_whole =
      image.height >= 1 && image.width >= 1 && (image.channels == 1 || image.channels == 3) &&
      image.pixels.size() == static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width) *
                                 static_cast<std::size_t>(image.channels);
  check(is_whole, "png: ", image.pixels.size(), " bytes are no image [", image.height, ", ", image.width,
        ", ", image.channels, "] of 1 or 3 channels");
  return encode_png_with_stb(image);
}

void write_png(const std::filesystem::path& path, const Image& image) {
  const Bytes content = encode_png(image);
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

Image convert_channels(Image image, int channels) {
  check((channels == 1 || channels == 3) && (image.channels == 1 || image.channels == 3),
        "image: cannot convert ", image.channels, " channels to ", channels, "; 1 and 3 are known");
  if (image.channels == channels) return image;
  Image out{image.height, image.width, channels, {}};
  if (channels == 3) {
    out.pixels.reserve(3 * image.pixels.size());
    for (const std::uint8_t value : image.pixels) out.pixels.insert(out.pixels.end(), 3, value);
    return out;
  }
  out.pixels.resize(image.pixels.size() / 3);
  for (std::size_t i = 0; i < out.pixels.size(); ++i) {
    const std::uint8_t* rgb = image.pixels.data() + 3 * i;
    out.pixels[i] = static_cast<std::uint8_t>((299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] + 500) / 1000);
  }
  return out;
}

Image make_grid(std::span<const Image> images, int columns, int padding) {
  check(!images.empty() && columns >= 0 && padding >= 0,
        "grid: needs at least one image, columns and padding >= 0");
  if (images.size() == 1) return images[0];
  const Image& first = images[0];
  const std::size_t count = images.size();
  const std::size_t per_row = columns > 0 ? std::min<std::size_t>(columns, count)
                                          : static_cast<std::size_t>(std::sqrt(static_cast<double>(count)));
  const std::size_t rows = (count + per_row - 1) / per_row, gap = static_cast<std::size_t>(padding);
  const std::size_t cell_height = first.height + gap, cell_width = first.width + gap,
                    channels = first.channels;
  const std::size_t height = rows * cell_height + gap, width = per_row * cell_width + gap;
  check(height <= INT32_MAX && width <= INT32_MAX && height * width <= INT32_MAX, "grid: ", count,
        " images are too many for one picture; draw fewer");

  Image grid{static_cast<int>(height), static_cast<int>(width), first.channels, {}};
  grid.pixels.resize(height * width * channels);
  const std::size_t row_bytes = first.width * channels;
  for (std::size_t i = 0; i < count; ++i) {
    const Image& image = images[i];
    check(image.height == first.height && image.width == first.width && image.channels == first.channels &&
              image.pixels.size() == first.height * row_bytes,
          "grid: image ", i, " is [", image.height, ", ", image.width, ", ", image.channels,
          "], the first is [", first.height, ", ", first.width, ", ", first.channels, "]");
    const std::size_t top = gap + i / per_row * cell_height, left = gap + i % per_row * cell_width;
    for (std::size_t y = 0; y < static_cast<std::size_t>(first.height); ++y)
      std::copy_n(image.pixels.data() + y * row_bytes, row_bytes,
                  grid.pixels.data() + ((top + y) * width + left) * channels);
  }
  return grid;
}

std::vector<Image> to_images(std::span<const std::uint8_t> pixels, const Shape& shape) {
  check(shape.rank() == 4 && shape.numel() == static_cast<std::int64_t>(pixels.size()),
        "to_images: expected [N, H, W, C], got shape ", shape, " and ", pixels.size(), " values");
  const std::size_t per_image = static_cast<std::size_t>(shape[1] * shape[2] * shape[3]);
  std::vector<Image> images(static_cast<std::size_t>(shape[0]));
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto part = pixels.subspan(i * per_image, per_image);
    images[i] = {static_cast<int>(shape[1]), static_cast<int>(shape[2]), static_cast<int>(shape[3]),
                 std::vector<std::uint8_t>(part.begin(), part.end())};
  }
  return images;
}

}  // namespace sgm
