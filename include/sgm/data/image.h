#pragma once
// 8-bit images: decoding, encoding, resizing, grids, and the two ways from floats to bytes.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sgm/core/types.h"
#include "sgm/io/input_file.h"

namespace sgm {

/// Pixels in memory order [height, width, channels]; 1 channel (grey) or 3 (RGB).
struct Image {
  int height = 0;
  int width = 0;
  int channels = 0;
  std::vector<std::uint8_t> pixels;

  bool operator==(const Image&) const = default;
};

/// Longest side and most pixels of an image that is read.
inline constexpr int kMaxImageSide = 32768;
inline constexpr std::int64_t kMaxImagePixels = std::int64_t{1} << 26;

/// Largest image file that is read.
inline constexpr std::uint64_t kMaxImageFileBytes = std::uint64_t{1} << 28;

/// Decodes a PNG, JPEG, BMP or binary PPM/PGM file from memory; `name` stands for it in messages. Palettes
/// become colours, 16 bits become 8, transparency is laid over white. Throws Error when the file is none of
/// these, damaged, truncated or too large.
Image decode_image(std::span<const std::byte> file, const std::string& name);
Image read_image(const std::filesystem::path& path);

/// Whether a file name ends like that of an image (.png .jpg .jpeg .bmp .ppm .pgm, in any case).
bool has_image_extension(const std::filesystem::path& path);
/// Those endings, for messages.
std::string image_extensions();

/// The image as a PNG file.
Bytes encode_png(const Image& image);
/// Writes a PNG file, atomically.
void write_png(const std::filesystem::path& path, const Image& image);

/// Grey to RGB by repetition; RGB to grey by the luma of BT.601 (0.299, 0.587, 0.114), rounded.
Image convert_channels(Image image, int channels);

/// Resizes so that the short side becomes `size`, then cuts the central square [size, size]. The filter is
/// the triangle, widened by the scale when shrinking (antialiased bilinear), with pixel centres at
/// half-integers and weights normalised at the border; values are rounded once, at the end. The long side
/// becomes round(long * size / short); of an odd rest the crop drops one pixel more at the right or bottom.
Image resize_and_crop(const Image& image, int size);

/// Images of one shape side by side, row by row, on black: `columns` a row (0: floor(sqrt(n))), `padding`
/// pixels around each. A single image comes back as it is, as torchvision has it.
Image make_grid(std::span<const Image> images, int columns = 0, int padding = 2);

/// Cuts a batch [N, H, W, C] of pixels into images.
std::vector<Image> to_images(std::span<const std::uint8_t> pixels, const Shape& shape);

}  // namespace sgm
