#pragma once
// Every format that open_dataset() knows, as small sets written to a folder.

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "sgm/data/dataset.h"
#include "sgm/data/image.h"
#include "temp_folder.h"

namespace sgm {

/// A set written to a folder: how, and what opening `path` in it must give.
struct DataFormat {
  const char* name;
  std::function<void(const TempFolder&)> write;
  const char* path;
  std::vector<Image> images;
  std::vector<int> labels;
  int num_classes;
};

std::vector<DataFormat> data_formats();

/// Image i of a set.
Image image_of(const Dataset& set, std::int64_t i);

inline void PrintTo(const DataFormat& format, std::ostream* out) { *out << format.name; }

}  // namespace sgm
