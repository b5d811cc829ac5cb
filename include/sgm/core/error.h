#pragma once
// Errors: one exception type, one line of text.

#include <sstream>
#include <stdexcept>
#include <string>

namespace sgm {

/// Bad input or environment. The text is one line: the op, file or field; what was expected; what came; the
/// remedy. The command line prints it and exits with code 2.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws Error with the parts streamed one after the other.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(text.str());
}

/// check(x.rank() == 4, "conv2d: x must be [N, H, W, C], got ", x.shape());
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}

}  // namespace sgm
