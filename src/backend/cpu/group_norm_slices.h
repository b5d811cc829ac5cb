#pragma once
// What both directions of the group normalisation share: how the work is cut up, sums over pixels, dropout.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backend/cpu/philox_blocks.h"
#include "kernels/group_norm.h"

namespace sgm {

/// Columns of a slice that one input holds.
struct SlicePart {
  int input;                 // 0: x, 1: x2
  std::int64_t begin, size;  // in channels of the slice
  std::int64_t ld, column;   // channels of the input, and which of them the part begins with

  /// The part's first channel in the first pixel of sample n of a tensor shaped like the input.
  template <class T>
  T* at(T* tensor, std::int64_t n, std::int64_t hw) const {
    return tensor + n * hw * ld + column;
  }
};

/// Some whole groups of one sample.
struct Slice {
  std::int64_t n, c0, width;  // channels c0 .. c0 + width - 1
  std::int64_t g0, groups;
  SlicePart part[2];
  int parts = 0;

  const SlicePart* begin() const { return part; }
  const SlicePart* end() const { return part + parts; }
};

/// A thread's share is one slice: whole samples where those keep all threads busy and are not too large for
/// the last cache, so that memory is read in order and rows do not compete for the same lines of a cache;
/// else parts of at least 64 channels.
class Slices {
 public:
  Slices(std::int64_t n, std::int64_t hw, std::int64_t c, std::int64_t c2, std::int64_t groups)
      : c1_(c - c2), c2_(c2), groups_(groups), per_group_(c / groups) {
    const std::int64_t threads = omp_get_max_threads(), fewest = (64 + per_group_ - 1) / per_group_;
    std::int64_t per_sample = 1;
    while (per_sample < groups && ((n * per_sample % threads != 0 && n * per_sample < 4 * threads) ||
                                   c / per_sample * hw > kMostElements))
      ++per_sample;
    groups_per_slice_ = std::min(std::max((groups + per_sample - 1) / per_sample, fewest), groups);
  }

  std::int64_t per_sample() const { return (groups_ + groups_per_slice_ - 1) / groups_per_slice_; }
  std::int64_t most_channels() const { return groups_per_slice_ * per_group_; }
  std::int64_t per_group() const { return per_group_; }

  Slice at(std::int64_t n, std::int64_t s) const {
    Slice slice{};
    slice.n = n, slice.g0 = s * groups_per_slice_;
    slice.groups = std::min(groups_per_slice_, groups_ - slice.g0);
    slice.c0 = slice.g0 * per_group_, slice.width = slice.groups * per_group_;
    const std::int64_t first = std::clamp<std::int64_t>(c1_ - slice.c0, 0, slice.width);
    if (first > 0) slice.part[slice.parts++] = {0, 0, first, c1_, slice.c0};
    if (first < slice.width)
      slice.part[slice.parts++] = {1, first, slice.width - first, c2_, slice.c0 + first - c1_};
    return slice;
  }

 private:
  static constexpr std::int64_t kMostElements = std::int64_t{1} << 20;

  std::int64_t c1_, c2_, groups_, per_group_, groups_per_slice_;
};

/// Rows whose sums are formed in the accumulator's type before they are added up in double.
inline constexpr std::int64_t kSummedRows = 64;

inline double sum_of(const double* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

/// factors[i] = factor / (1 - rate) or 0 for elements first .. first + count - 1 of a sample.
template <class A>
void keep_factors(const DropoutMask& dropout, std::int64_t sample, std::int64_t first, std::int64_t count,
                  double factor, A* factors) {
  if (dropout.rate == 0.0) {
    std::fill_n(factors, count, A(factor));
    return;
  }
  const A keep = A(factor / (1.0 - dropout.rate));
  const auto threshold = static_cast<std::uint32_t>(dropout.rate * 4294967296.0);
  const PhiloxBlocks blocks(dropout.key, static_cast<std::uint32_t>(sample));
  constexpr std::int64_t kWords = PhiloxBlocks::kWords;
  const auto factors_of = [&](const std::uint32_t* words, auto size, A* to) {
#pragma omp simd
    for (std::int64_t i = 0; i < size; ++i) to[i] = words[i] >= threshold ? keep : A(0);
  };
  std::uint32_t words[kWords];
  for (std::int64_t at = first / 4 * 4; at < first + count; at += kWords) {
    blocks.eight(static_cast<std::uint32_t>(at / 4), words);
    const std::int64_t begin = std::max(first, at), end = std::min(first + count, at + kWords);
    if (end - begin == kWords)
      factors_of(words, std::integral_constant<std::int64_t, kWords>(), factors + begin - first);
    else
      factors_of(words + begin - at, end - begin, factors + begin - first);
  }
}

}  // namespace sgm
