#pragma once
// Small valid files of every data format, for the tests and as seeds of the fuzz targets.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sgm/data/image.h"
#include "sgm/io/array.h"

namespace sgm::samples {

using Entries = std::vector<std::pair<std::string, std::string>>;

/// An image of pixels that all differ from their neighbours; `seed` changes it.
Image image(int height, int width, int channels, int seed = 0);

std::string png(const Image& image);
/// The file with the checksums of its chunks made right, as far as the chunks can be followed.
std::string with_png_checksums(std::string file);
std::string jpeg(const Image& image);
std::string bmp(const Image& image);
/// P5 or P6 with maximum value 255.
std::string pnm(const Image& image);

/// An IDX file with this element type (8: unsigned bytes).
std::string idx(const std::vector<std::uint32_t>& sizes, const std::string& data, char type = 8);
/// Bytes 0, 1, 2, ... modulo 251.
std::string counting_bytes(std::size_t count);

/// CIFAR-10 records with labels 0, 1, 2, ... modulo 10.
std::string cifar10(int records);

/// A .npy file with this header text, whatever it says.
std::string npy(const std::string& header, const std::string& data, char version = 1);
std::string npy(const Array& array);

std::string zip(const Entries& entries, bool deflated = true);
std::string gzip(const std::string& content);

std::string to_string(const Bytes& bytes);

}  // namespace sgm::samples
