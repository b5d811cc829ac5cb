#include "data_samples.h"

#include <zlib.h>

#include <cstring>

#include "sgm/io/archive.h"
#include "sgm/io/npy.h"
#include "temp_folder.h"

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include <stb/stb_image_write.h>

namespace sgm::samples {
namespace {

void append(void* text, void* data, int size) {
  static_cast<std::string*>(text)->append(static_cast<const char*>(data), static_cast<std::size_t>(size));
}

}  // namespace

std::string to_string(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Image image(int height, int width, int channels, int seed) {
  Image out{height, width, channels, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c)
        out.pixels.push_back(static_cast<std::uint8_t>((37 * y + 101 * x + 67 * c + 29 * seed) % 256));
  return out;
}

std::string png(const Image& image) { return to_string(encode_png(image)); }

std::string with_png_checksums(std::string file) {
  const auto word = [&](std::size_t at) {
    std::size_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(file[at + i]);
    return value;
  };
  for (std::size_t at = 8; at + 12 <= file.size() && word(at) <= file.size() - at - 12; at += 12 + word(at)) {
    const std::size_t end = at + 8 + word(at);
    const uLong sum = crc32_z(0, reinterpret_cast<const Bytef*>(file.data() + at + 4), word(at) + 4);
    for (std::size_t i = 0; i < 4; ++i) file[end + i] = static_cast<char>(sum >> (24 - 8 * i) & 0xff);
  }
  return file;
}

std::string jpeg(const Image& image) {
  std::string text;
  stbi_write_jpg_to_func(append, &text, image.width, image.height, image.channels, image.pixels.data(), 90);
  return text;
}

std::string bmp(const Image& image) {
  std::string text;
  stbi_write_bmp_to_func(append, &text, image.width, image.height, image.channels, image.pixels.data());
  return text;
}

std::string pnm(const Image& image) {
  return std::string(image.channels == 3 ? "P6" : "P5") + "\n# a comment\n" + std::to_string(image.width) +
         " " + std::to_string(image.height) + "\n255\n" +
         std::string(image.pixels.begin(), image.pixels.end());
}

std::string idx(const std::vector<std::uint32_t>& sizes, const std::string& data, char type) {
  std::string text{'\0', '\0', type, static_cast<char>(sizes.size())};
  for (const std::uint32_t size : sizes)
    for (int shift = 24; shift >= 0; shift -= 8) text.push_back(static_cast<char>(size >> shift & 0xff));
  return text + data;
}

std::string counting_bytes(std::size_t count) {
  std::string text(count, '\0');
  for (std::size_t i = 0; i < count; ++i) text[i] = static_cast<char>(i % 251);
  return text;
}

std::string cifar10(int records) {
  std::string text;
  for (int i = 0; i < records; ++i) (text += static_cast<char>(i % 10)) += counting_bytes(3072);
  return text;
}

std::string npy(const std::string& header, const std::string& data, char version) {
  std::string text = "\x93NUMPY";
  text += version;
  text += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) text += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return text + header + data;
}

std::string npy(const Array& array) { return to_string(to_npy(array)); }

std::string zip(const Entries& entries, bool deflated) {
  const TempFolder folder;
  ZipWriter writer(folder.path() / "sample.zip");
  for (const auto& [name, content] : entries) {
    const std::byte* data = reinterpret_cast<const std::byte*>(content.data());
    writer.add(name, Bytes(data, data + content.size()),
               deflated ? Compression::deflated : Compression::stored);
  }
  writer.commit();
  return read_text(folder.path() / "sample.zip", 1 << 28);
}

std::string gzip(const std::string& content) {
  z_stream stream{};
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string text(deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  deflate(&stream, Z_FINISH);
  text.resize(stream.total_out);
  deflateEnd(&stream);
  return text;
}

}  // namespace sgm::samples
