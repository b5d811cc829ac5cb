#pragma once
// Reading files: whole, or at any position from any thread.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace sgm {

using Bytes = std::vector<std::byte>;

/// A regular file open for reading. read_at() keeps no position, so threads may share one object.
/// Every failure is an Error naming the file, the system's reason and a remedy.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& name() const { return name_; }  // for messages
  std::uint64_t size() const { return size_; }       // when it was opened

  /// Fills `out` from byte `offset` on; a file that ends earlier is an Error.
  void read_at(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string name_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// The whole file. Throws Error when it cannot be read or is larger than max_bytes.
Bytes read_file(const std::filesystem::path& path, std::uint64_t max_bytes);

/// The same as text.
std::string read_text(const std::filesystem::path& path, std::uint64_t max_bytes);

}  // namespace sgm
