#include "sgm/io/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "io/system_error.h"
#include "sgm/io/printable.h"

namespace sgm {

InputFile::InputFile(const std::filesystem::path& path) : name_(printable(path.native())) {
  check(!path.empty(), "the name of the file to read is empty; give a path");
  // Without O_NONBLOCK, opening a pipe that nobody writes would wait for ever.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail_system(name_, "cannot open", errno);
  struct stat status {};
  const int error = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
  if (error == 0 && S_ISREG(status.st_mode)) {
    size_ = static_cast<std::uint64_t>(status.st_size);
    return;
  }
  ::close(descriptor_);
  if (error != 0) fail_system(name_, "cannot read", error);
  if (S_ISDIR(status.st_mode)) fail_system(name_, "cannot read", EISDIR);
  fail(name_, ": not a regular file; copy pipes and devices to a file first");
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t count =
        ::pread(descriptor_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system(name_, "cannot read", errno);
    check(count > 0, name_, ": ends at byte ", offset + done, ", expected ", offset + out.size(),
          " or more; the file is truncated");
    done += static_cast<std::size_t>(count);
  }
}

namespace {

template <class Container>
Container read_whole(const std::filesystem::path& path, std::uint64_t max_bytes) {
  const InputFile file(path);
  check(file.size() <= max_bytes, file.name(), ": has ", file.size(), " bytes, more than the ", max_bytes,
        " that such a file may have; is it the right file?");
  Container content(file.size(), typename Container::value_type{});
  file.read_at(0, std::as_writable_bytes(std::span(content)));
  return content;
}

}  // namespace

Bytes read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return read_whole<Bytes>(path, max_bytes);
}

std::string read_text(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return read_whole<std::string>(path, max_bytes);
}

}  // namespace sgm
