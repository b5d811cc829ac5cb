#pragma once
// safetensors files: eight bytes of header length, a JSON header of names, types, shapes and byte ranges,
// then the raw little-endian data. Nothing in them is executed.
//
// Every reader checks the whole header against the size of the file before it allocates: known types, rank at
// most 4, byte ranges that fit type and shape and cover the data without gap or overlap, no name twice. What
// does not fit is an Error naming the file and the tensor.

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sgm/core/types.h"
#include "sgm/io/array.h"
#include "sgm/io/input_file.h"

namespace sgm {

/// One tensor of a file. Types F64, F32, F16, BF16, I64, I32 and U8 are known; BOOL is read as u8.
struct SafeTensorInfo {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::uint64_t offset = 0;  // of the first byte in the file
  std::uint64_t bytes = 0;
};

/// A file of which only the header is in memory; tensors are read one at a time, into the caller's memory.
class SafeTensorsFile {
 public:
  explicit SafeTensorsFile(const std::filesystem::path& path);

  const std::string& name() const { return file_.name(); }
  std::uint64_t size() const { return file_.size(); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// In the order of their data.
  const std::vector<SafeTensorInfo>& tensors() const { return tensors_; }
  /// Null when the file has no such tensor.
  const SafeTensorInfo* find(std::string_view tensor) const;

  /// Fills `out`, whose size must be info.bytes.
  void read(const SafeTensorInfo& info, std::span<std::byte> out) const;
  Array read(const SafeTensorInfo& info) const;

 private:
  InputFile file_;
  std::map<std::string, std::string> metadata_;
  std::vector<SafeTensorInfo> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

/// A whole file in memory.
struct SafeTensors {
  std::map<std::string, Array> tensors;
  std::map<std::string, std::string> metadata;
};

SafeTensors load_safetensors(const std::filesystem::path& path);

/// The same from bytes in memory; `name` stands for the file in messages.
SafeTensors parse_safetensors(std::span<const std::byte> bytes, const std::string& name);

/// A tensor to be written: `data` points at shape.numel() elements in native order and is read once.
struct SafeTensorView {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  const void* data = nullptr;
};

/// Writes through AtomicFile, without copying the tensors. Wider types come first, so that every tensor is
/// aligned; among equals the order is that of `entries`. Throws Error for names given twice, text that is not
/// UTF-8 and everything that AtomicFile reports.
void save_safetensors(const std::filesystem::path& path, std::span<const SafeTensorView> entries,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace sgm
