#include "sgm/plot/gif.h"

#include <gif_lib.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "plot/palette.h"
#include "sgm/core/error.h"
#include "sgm/io/atomic_file.h"

namespace sgm {
namespace {

constexpr int kMaxSide = 65535;
constexpr int kColors = 255, kUnchanged = 255;  // the last of 256 indices is transparent

/// Collects the file in memory: the encoder is C, and errors of a disk are exceptions.
int collect(GifFileType* gif, const GifByteType* bytes, int count) {
  static_cast<std::string*>(gif->UserData)
      ->append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count));
  return count;
}

struct CloseGif {
  void operator()(GifFileType* gif) const { EGifCloseFile(gif, nullptr); }
};
using Encoder = std::unique_ptr<GifFileType, CloseGif>;

void require(int status, const Encoder& gif) {
  check(status == GIF_OK, "gif: the encoder failed: ",
        GifErrorString(gif->Error) != nullptr ? GifErrorString(gif->Error) : "unknown reason");
}

void put_header(const Encoder& gif, const Image& first, const Palette& palette, int loops) {
  std::vector<GifColorType> colors(256);
  for (std::size_t i = 0; i < palette.entries().size(); ++i) {
    const Palette::Entry& entry = palette.entries()[i];
    colors[i] = {entry.red, entry.green, entry.blue};
  }
  const std::unique_ptr<ColorMapObject, decltype(&GifFreeMapObject)> map(GifMakeMapObject(256, colors.data()),
                                                                         GifFreeMapObject);
  EGifSetGifVersion(gif.get(), true);
  require(EGifPutScreenDesc(gif.get(), first.width, first.height, 8, 0, map.get()), gif);
  const GifByteType repeat[] = {1, static_cast<GifByteType>(loops & 255),
                                static_cast<GifByteType>(loops >> 8)};
  require(EGifPutExtensionLeader(gif.get(), APPLICATION_EXT_FUNC_CODE), gif);
  require(EGifPutExtensionBlock(gif.get(), 11, "NETSCAPE2.0"), gif);
  require(EGifPutExtensionBlock(gif.get(), sizeof repeat, repeat), gif);
  require(EGifPutExtensionTrailer(gif.get()), gif);
}

/// The part of a frame that differs from the one before.
struct Change {
  int left, top, right, bottom;  // right and bottom excluded
};

Change changed(const std::vector<std::uint8_t>& before, const std::vector<std::uint8_t>& now, int width,
               int height) {
  Change c{width, height, 0, 0};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const std::size_t i = static_cast<std::size_t>(y) * width + x;
      if (!before.empty() && before[i] == now[i]) continue;
      c = {std::min(c.left, x), std::min(c.top, y), std::max(c.right, x + 1), std::max(c.bottom, y + 1)};
    }
  return c.right > 0 ? c : Change{0, 0, 1, 1};  // a frame of no size is no frame
}

void put_frame(const Encoder& gif, const std::vector<std::uint8_t>& before,
               const std::vector<std::uint8_t>& now, int width, int height, int delay) {
  const GraphicsControlBlock control{DISPOSE_DO_NOT, false, delay,
                                     before.empty() ? NO_TRANSPARENT_COLOR : kUnchanged};
  GifByteType extension[4];
  const std::size_t size = EGifGCBToExtension(&control, extension);
  require(EGifPutExtension(gif.get(), GRAPHICS_EXT_FUNC_CODE, static_cast<int>(size), extension), gif);
  const Change c = changed(before, now, width, height);
  require(EGifPutImageDesc(gif.get(), c.left, c.top, c.right - c.left, c.bottom - c.top, false, nullptr),
          gif);
  std::vector<GifPixelType> row(static_cast<std::size_t>(c.right - c.left));
  for (int y = c.top; y < c.bottom; ++y) {
    for (int x = c.left; x < c.right; ++x) {
      const std::size_t i = static_cast<std::size_t>(y) * width + x;
      const bool is_same = !before.empty() && before[i] == now[i];
      row[static_cast<std::size_t>(x - c.left)] = is_same ? kUnchanged : now[i];
    }
    require(EGifPutLine(gif.get(), row.data(), static_cast<int>(row.size())), gif);
  }
}

}  // namespace

void write_gif(const std::filesystem::path& path, std::span<const Image> images, int delay, int loops) {
  check(!images.empty(), path.string(), ": an animation needs at least one image");
  const int width = images[0].width, height = images[0].height;
  check(width <= kMaxSide && height <= kMaxSide, path.string(), ": ", width, " x ", height,
        " pixels; a GIF has at most 65535 on a side");
  for (const Image& image : images)
    check(image.width == width && image.height == height && image.channels == images[0].channels,
          path.string(), ": the images of an animation must be of one size, got ", width, " x ", height,
          " and ", image.width, " x ", image.height);
  const Palette palette(images, kColors);
  std::string file;
  int code = 0;
  Encoder gif(EGifOpen(&file, collect, &code));
  check(gif != nullptr, path.string(), ": the GIF encoder could not start");
  put_header(gif, images[0], palette, loops);
  std::vector<std::uint8_t> before;
  for (const Image& image : images) {
    std::vector<std::uint8_t> now = palette.indices(image);
    put_frame(gif, before, now, width, height, delay);
    before = std::move(now);
  }
  gif.reset();  // writes the end
  AtomicFile out(path);
  out.write(file);
  out.commit();
}

}  // namespace sgm
