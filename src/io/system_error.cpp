#include "io/system_error.h"

#include <cerrno>

namespace sgm {

const char* remedy_for(int error) {
  switch (error) {
    case ENOENT: return "check that the path, or the folder to write to, exists";
    case ENOTDIR: return "a part of the path is a file, not a folder";
    case EISDIR: return "name a file, not a folder";
    case EACCES:
    case EPERM:
    case EROFS: return "check the permissions or choose another folder";
    case ENOSPC:
    case EDQUOT: return "free some space or choose another disk";
    case EFBIG: return "the file system or the shell limits file sizes (ulimit -f)";
    case EMFILE:
    case ENFILE: return "too many open files (ulimit -n)";
    case ENAMETOOLONG:
    case ELOOP: return "choose a shorter path";
    default: return "check the disk and the path";
  }
}

}  // namespace sgm
