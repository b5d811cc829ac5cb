#pragma once
// Logs: files that only grow.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace sgm {

/// A file to which whole records are added. Each append() reaches the operating system before it returns; one
/// that fails (a full disk) takes back what it had written, so the file always ends with a whole record.
/// Every failure is an Error naming the file, the system's reason and a remedy.
class AppendFile {
 public:
  /// Opens or creates the file; with `must_be_new`, an existing one is an Error.
  explicit AppendFile(const std::filesystem::path& path, bool must_be_new = false);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  void append(std::string_view record);

 private:
  std::string name_;  // for messages
  int descriptor_ = -1;
};

}  // namespace sgm
