#include "data/source.h"

#include <algorithm>
#include <cstring>

#include "sgm/core/error.h"
#include "sgm/io/printable.h"

namespace sgm {

ByteStore::ByteStore(const std::filesystem::path& path)
    : name_(printable(path.native())), file_(std::make_unique<InputFile>(path)) {}

void ByteStore::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  if (file_) return file_->read_at(offset, out);
  check(offset <= bytes_.size() && out.size() <= bytes_.size() - offset, name_, ": has ", bytes_.size(),
        " bytes, expected ", offset + out.size(), " or more; the file is truncated");
  if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
}

Labels checked_labels(std::vector<int> classes, std::int64_t images, std::vector<std::string> names,
                      const std::string& where) {
  check(static_cast<std::int64_t>(classes.size()) == images, where, ": ", classes.size(), " labels for ",
        images, " images; images and labels must belong together");
  int count = static_cast<int>(names.size());
  for (std::size_t i = 0; i < classes.size(); ++i) {
    check(classes[i] >= 0 && classes[i] < kMaxClasses, where, ": label ", i, " is ", classes[i],
          "; classes are numbered from 0 and fewer than ", kMaxClasses);
    check(names.empty() || classes[i] < static_cast<int>(names.size()), where, ": label ", i, " is class ",
          classes[i], ", but only ", names.size(), " classes have names");
    count = std::max(count, classes[i] + 1);
  }
  return {std::move(classes), count, std::move(names)};
}

}  // namespace sgm
