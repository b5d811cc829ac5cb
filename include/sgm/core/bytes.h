#pragma once
// Sizes of memory for people.

#include <cstddef>
#include <string>

namespace sgm {

/// "1.92 GiB", "312 MiB", "64 KiB".
std::string format_bytes(std::size_t bytes);

}  // namespace sgm
