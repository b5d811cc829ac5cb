#pragma once
// The structure of JPEG files, checked before the decoder sees them.

#include <cstddef>
#include <span>
#include <string>

namespace sgm {

/// Walks the segments of a JPEG file up to its end marker. Throws Error when it is truncated, a Huffman table
/// is impossible (stb_image 2.27 writes and reads outside its arrays on those), or it has more scans than any
/// encoder writes (a small file of thousands of scans would keep the decoder busy for hours).
void check_jpeg(std::span<const std::byte> file, const std::string& name);

}  // namespace sgm
