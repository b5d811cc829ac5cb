#include "data/stb.h"

#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "sgm/core/error.h"
#include "sgm/io/printable.h"

#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_STDIO
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS 32768
// Zeroed memory: a damaged JPEG uses tables that it never defined. And its assertions are no way to report
// one.
#define STBI_MALLOC(size) std::calloc(1, size)
#define STBI_REALLOC(memory, size) std::realloc(memory, size)
#define STBI_FREE(memory) std::free(memory)
#define STBI_ASSERT(condition) static_cast<void>(0)
#include <stb_image.h>
static_assert(STBI_MAX_DIMENSIONS == sgm::kMaxImageSide);

namespace {

/// zlib makes smaller files than the encoder's own compression. The encoder frees the result.
unsigned char* compress_png(unsigned char* data, int size, int* compressed_size, int) {
  uLongf capacity = compressBound(static_cast<uLong>(size));
  auto* const out = static_cast<unsigned char*>(std::malloc(capacity));
  if (out == nullptr ||
      compress2(out, &capacity, data, static_cast<uLong>(size), Z_BEST_COMPRESSION) != Z_OK) {
    std::free(out);
    return nullptr;
  }
  *compressed_size = static_cast<int>(capacity);
  return out;
}

}  // namespace

#define STBIW_ZLIB_COMPRESS compress_png
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>

namespace sgm {
namespace {

/// The file as a stream that remembers whether anybody asked for more than there is.
struct Cursor {
  std::span<const std::byte> file;
  std::size_t at = 0;
  bool overran = false;

  static Cursor& of(void* user) { return *static_cast<Cursor*>(user); }

  static int read(void* user, char* out, int size) {
    Cursor& cursor = of(user);
    const std::size_t left = cursor.file.size() - cursor.at;
    cursor.overran = cursor.overran || left == 0;
    const std::size_t count = std::min(left, static_cast<std::size_t>(size));
    std::copy_n(reinterpret_cast<const char*>(cursor.file.data()) + cursor.at, count, out);
    cursor.at += count;
    return static_cast<int>(count);
  }
  static void skip(void* user, int count) {
    Cursor& cursor = of(user);
    const std::int64_t wanted = static_cast<std::int64_t>(cursor.at) + count;
    const std::int64_t end = static_cast<std::int64_t>(cursor.file.size());
    cursor.overran = cursor.overran || wanted > end;
    cursor.at = static_cast<std::size_t>(std::clamp<std::int64_t>(wanted, 0, end));
  }
  static int eof(void* user) { return of(user).at >= of(user).file.size(); }
};
constexpr stbi_io_callbacks kCallbacks{Cursor::read, Cursor::skip, Cursor::eof};

std::string stb_reason() {
  const char* reason = stbi_failure_reason();
  return reason ? printable(reason) : "unknown reason";
}

}  // namespace

void check_image_size(std::int64_t width, std::int64_t height, std::size_t file_bytes,
                      const std::string& name) {
  check(width >= 1 && height >= 1, name, ": an image of ", width, " x ", height,
        " pixels; the file is damaged");
  check(width <= kMaxImageSide && height <= kMaxImageSide && width * height <= kMaxImagePixels, name,
        ": an image of ", width, " x ", height, " pixels is larger than what is read (", kMaxImagePixels,
        " pixels); shrink it first");
  // No format packs more 1-bit pixels into a byte than deflate, at 1032 bytes a byte.
  constexpr std::int64_t kMaxPixelsPerByte = 8 * 1032;
  check(width * height / kMaxPixelsPerByte <= static_cast<std::int64_t>(file_bytes), name, ": claims ", width,
        " x ", height, " pixels in ", file_bytes, " bytes; the file is damaged");
}

Image decode_with_stb(std::span<const std::byte> file, const std::string& name) {
  int width = 0, height = 0, channels = 0;
  Cursor header{file};
  check(stbi_info_from_callbacks(&kCallbacks, &header, &width, &height, &channels) != 0, name,
        ": cannot be decoded (", stb_reason(), "); the file is damaged");
  check_image_size(width, height, file.size(), name);

  Cursor cursor{file};
  const std::unique_ptr<stbi_uc, decltype([](stbi_uc* p) { stbi_image_free(p); })> pixels(
      stbi_load_from_callbacks(&kCallbacks, &cursor, &width, &height, &channels, 0));
  check(pixels != nullptr, name, ": cannot be decoded (", stb_reason(), "); the file is damaged");
  check(!cursor.overran, name, ": the image is truncated; fetch it again");
  const std::size_t count = static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * channels;
  return {height, width, channels, std::vector<std::uint8_t>(pixels.get(), pixels.get() + count)};
}

Bytes encode_png_with_stb(const Image& image) {
  Bytes out;
  const auto append = [](void* user, void* data, int size) {
    const std::byte* bytes = static_cast<const std::byte*>(data);
    static_cast<Bytes*>(user)->insert(static_cast<Bytes*>(user)->end(), bytes, bytes + size);
  };
  const int done = stbi_write_png_to_func(append, &out, image.width, image.height, image.channels,
                                          image.pixels.data(), image.width * image.channels);
  check(done != 0, "png: an image of ", image.width, " x ", image.height, " pixels cannot be encoded");
  return out;
}

}  // namespace sgm
