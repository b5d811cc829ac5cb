#pragma once
// NumPy's .npy arrays and .npz archives of them.

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "sgm/io/array.h"
#include "sgm/io/input_file.h"

namespace sgm {

/// The beginning of a .npy file.
struct NpyHeader {
  DType dtype;
  Shape shape;
  std::size_t offset;  // of the first element
  std::size_t bytes;   // of all elements
};

/// What parse_npy_header() needs at most.
inline constexpr std::size_t kMaxNpyHeader = std::size_t{1} << 16;

/// Reads the header from the first bytes of a file (kMaxNpyHeader or all of them); versions 1 to 3. Element
/// types u1, i4, i8, f4 and f8, little-endian, C order, rank <= 4; objects (pickles), structures, big-endian
/// and Fortran order are Errors that say how to save the array instead. `name` stands for the file in
/// messages.
NpyHeader parse_npy_header(std::span<const std::byte> head, const std::string& name);

/// A whole .npy file from memory; its length must be exactly what the header says.
Array parse_npy(std::span<const std::byte> file, const std::string& name);
Array read_npy(const std::filesystem::path& path);

/// The array as a .npy file (version 1).
Bytes to_npy(const Array& array);
void write_npy(const std::filesystem::path& path, const Array& array);

/// The arrays of an .npz archive by name (without ".npy").
using NamedArrays = std::map<std::string, Array>;
NamedArrays parse_npz(Bytes archive, const std::string& name);
NamedArrays read_npz(const std::filesystem::path& path);
void write_npz(const std::filesystem::path& path, const NamedArrays& arrays, bool compress = false);

}  // namespace sgm
