#pragma once
// The stb image codecs: PNG, JPEG and BMP in, PNG out.

#include <span>
#include <string>

#include "sgm/data/image.h"

namespace sgm {

/// Decodes to 1 to 4 channels (the even ones end with alpha). A read beyond the end of the file is an Error,
/// which stb itself lets pass.
Image decode_with_stb(std::span<const std::byte> file, const std::string& name);

Bytes encode_png_with_stb(const Image& image);

/// Throws Error unless an image of this size may be decoded from a file of `file_bytes` bytes.
void check_image_size(std::int64_t width, std::int64_t height, std::size_t file_bytes,
                      const std::string& name);

}  // namespace sgm
