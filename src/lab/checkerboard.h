#pragma once
// The uniform density on every other square of a board.

#include <memory>
#include <optional>
#include <string>

#include "sgm/lab/density.h"

namespace sgm {

inline constexpr int kMaxCells = 32;

/// cells x cells squares, `size` wide together and centred at the origin. Half of them, those whose row and
/// column add up to an even number, share the probability equally; the corner of least coordinates is one.
std::unique_ptr<Density> checkerboard(std::string name, int cells, double size,
                                      std::optional<Density::Range> range);

}  // namespace sgm
