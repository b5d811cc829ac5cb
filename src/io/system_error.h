#pragma once
// Failed system calls as one-line errors.

#include <cstring>
#include <string>

#include "sgm/core/error.h"

namespace sgm {

/// What a user can do about an errno value.
const char* remedy_for(int error);

/// Throws Error: "<file>: <action>: <the system's reason>; <remedy>".
[[noreturn]] inline void fail_system(const std::string& file, const char* action, int error) {
  fail(file, ": ", action, ": ", std::strerror(error), "; ", remedy_for(error));
}

}  // namespace sgm
