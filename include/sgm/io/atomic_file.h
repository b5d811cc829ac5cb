#pragma once
// Files that are either complete or absent.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "sgm/io/input_file.h"

namespace sgm {

/// Writes beside the target and renames over it at commit(): a killed run, a full disk or an exception leaves
/// the old file (or none), never half a new one. Only regular files are replaced; a symbolic link is
/// followed. Every failure is an Error naming the file, the system's reason and a remedy.
///
///   AtomicFile file(path);
///   file.write(data, size);
///   file.commit();
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();  // without commit(): removes what was written
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }

  /// Writes everything through to the disk and puts the file in its place. Call once, last.
  void commit();

 private:
  void flush();
  void write_through(const std::byte* data, std::size_t size);

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  std::vector<std::byte> buffer_;
};

}  // namespace sgm
