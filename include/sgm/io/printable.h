#pragma once
// Names that come from files and command lines, made fit for a one-line message.

#include <string>
#include <string_view>

namespace sgm {

/// The text with control bytes replaced by '?', shortened to `limit` bytes, so that a hostile name cannot
/// break a message into lines or flood the terminal.
inline std::string printable(std::string_view text, std::size_t limit = 300) {
  std::string out(text.substr(0, limit));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  if (text.size() > limit) out += "...";
  return out;
}

}  // namespace sgm
