#include "sgm/io/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sgm/core/error.h"

namespace sgm {

FolderLock::FolderLock(const std::filesystem::path& folder)
    : descriptor_(open((folder / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  check(descriptor_ >= 0, folder.string(), ": cannot be written to: ", std::strerror(errno),
        "; choose another folder");
  if (flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  close(descriptor_);
  fail(folder.string(),
       ": another process is training in this folder; wait for it, or choose another --workdir");
}

FolderLock::~FolderLock() { close(descriptor_); }

}  // namespace sgm
