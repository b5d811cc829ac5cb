#pragma once
// One process at a time.

#include <filesystem>

namespace sgm {

/// Holds <folder>/.lock for this process; the system lets go of it when the process ends, however it ends.
/// Throws Error when another process holds it, or when the folder cannot be written to.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace sgm
