#include "sgm/core/bytes.h"

#include <cstdio>

namespace sgm {

std::string format_bytes(std::size_t bytes) {
  const double mebibytes = static_cast<double>(bytes) / 1048576.0;
  char text[32];
  if (mebibytes < 1.0)
    std::snprintf(text, sizeof text, "%.0f KiB", mebibytes * 1024.0);
  else if (mebibytes < 1000.0)
    std::snprintf(text, sizeof text, "%.*f MiB", mebibytes < 10.0 ? 2 : 0, mebibytes);
  else
    std::snprintf(text, sizeof text, "%.2f GiB", mebibytes / 1024.0);
  return text;
}

}  // namespace sgm
