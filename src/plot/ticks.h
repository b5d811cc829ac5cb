#pragma once
// Where axes carry numbers.

#include <string>
#include <vector>

namespace sgm {

struct Tick {
  double value;
  std::string text;  // empty: a short tick without a number
};

/// Multiples of 1, 2 or 5 times a power of ten in [low, high], about `count` of them.
std::vector<Tick> linear_ticks(double low, double high, int count);

/// Powers of ten in [low, high], thinned out to about `count`, with short ticks at their multiples; with
/// fewer than two powers also their multiples by 2 and 5 carry numbers. low > 0.
std::vector<Tick> log_ticks(double low, double high, int count);

}  // namespace sgm
