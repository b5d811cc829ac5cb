#include "sgm/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "io/system_error.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

std::string shown(const std::filesystem::path& path) { return printable(path.native()); }

std::filesystem::path folder_of(const std::filesystem::path& file) {
  const std::filesystem::path folder = file.parent_path();
  return folder.empty() ? "." : folder;
}

/// The file that writing to `path` replaces: links followed, anything but a regular file refused.
std::filesystem::path resolved_target(const std::filesystem::path& path) {
  check(path.has_filename(), "cannot write '", shown(path), "': it names no file; give a file name");
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return path;
  if (S_ISDIR(status.st_mode)) fail_system(shown(path), "cannot write", EISDIR);
  check(S_ISREG(status.st_mode), shown(path), ": cannot write: not a regular file; name a regular file");
  std::error_code error;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  return error ? path : target;
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& path) : target_(resolved_target(path)) {
  // The name carries the process, not the target: it stays short whatever the target is called.
  const std::string stem = ".sgm-" + std::to_string(::getpid()) + "-";
  for (int attempt = 0; descriptor_ < 0; ++attempt) {
    temporary_ = folder_of(target_) / (stem + std::to_string(attempt) + ".tmp");
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) fail_system(shown(target_), "cannot write", errno);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t size) {
  const std::byte* bytes = static_cast<const std::byte*>(data);
  if (buffer_.size() + size > kBufferBytes) flush();
  if (size >= kBufferBytes) return write_through(bytes, size);
  buffer_.insert(buffer_.end(), bytes, bytes + size);
}

void AtomicFile::flush() {
  write_through(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void AtomicFile::write_through(const std::byte* data, std::size_t size) {
  check(descriptor_ >= 0, shown(target_), ": written after commit");
  while (size > 0) {
    const ssize_t count = ::write(descriptor_, data, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system(shown(target_), "cannot write", errno);
    data += count;
    size -= static_cast<std::size_t>(count);
  }
}

void AtomicFile::commit() {
  flush();
  if (::fsync(descriptor_) != 0) fail_system(shown(target_), "cannot write to the disk", errno);
  const int closed = ::close(descriptor_);
  const int close_error = errno;
  descriptor_ = -1;
  if (closed != 0 || ::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int error = closed != 0 ? close_error : errno;
    ::unlink(temporary_.c_str());
    fail_system(shown(target_), "cannot write", error);
  }
  // The rename itself must survive a power cut. Some file systems cannot sync folders: that is not an error.
  const int folder = ::open(folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  ::fsync(folder);
  ::close(folder);
}

}  // namespace sgm
