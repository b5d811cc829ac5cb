#include "sgm/io/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "io/system_error.h"
#include "sgm/io/printable.h"

namespace sgm {

AppendFile::AppendFile(const std::filesystem::path& path, bool must_be_new)
    : name_(printable(path.native())) {
  const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (must_be_new ? O_EXCL : 0);
  descriptor_ = ::open(path.c_str(), flags, 0666);
  if (descriptor_ < 0) fail_system(name_, "cannot write", errno);
}

AppendFile::~AppendFile() { ::close(descriptor_); }

void AppendFile::append(std::string_view record) {
  const off_t end = ::lseek(descriptor_, 0, SEEK_END);
  for (std::size_t done = 0; done < record.size();) {
    const ssize_t count = ::write(descriptor_, record.data() + done, record.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      if (end < 0 || ::ftruncate(descriptor_, end) != 0)
        fail_system(name_, "cannot append; its end is torn", error);
      fail_system(name_, "cannot append", error);
    }
    done += static_cast<std::size_t>(count);
  }
}

}  // namespace sgm
