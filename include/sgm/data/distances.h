#pragma once
// How far apart the images of a set lie.

#include <cstdint>

#include "sgm/data/dataset.h"

namespace sgm {

struct LargestDistance {
  double distance = 0.0;    // Euclidean, of pixels in [0, 1]
  std::int64_t images = 0;  // compared, each with each
};

/// The largest distance between two images: of all, or of a random subset where there are more than `limit`
/// or their pixels would not fit into 1 GiB. Exact: computed in integers.
LargestDistance largest_distance(const Dataset& dataset, std::int64_t limit = 10'000);

}  // namespace sgm
