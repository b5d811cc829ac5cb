#pragma once
// Few colours that stand for many.

#include <cstdint>
#include <span>
#include <vector>

#include "sgm/data/image.h"

namespace sgm {

/// 8-bit colours and, for every colour of the images they were made for, which of them is nearest its box.
class Palette {
 public:
  struct Entry {
    std::uint8_t red, green, blue;
  };

  /// At most `size` colours for the pixels of all images (1 or 3 channels), by median cut over colours
  /// rounded to 5 bits a channel: the box of colours with the most pixels times its longest side is halved
  /// at its median until there are enough boxes; each stands for the mean of its pixels.
  Palette(std::span<const Image> images, int size);

  const std::vector<Entry>& entries() const { return entries_; }
  /// The index of every pixel of an image.
  std::vector<std::uint8_t> indices(const Image& image) const;

 private:
  std::vector<Entry> entries_;
  std::vector<std::uint8_t> index_of_;  // of a colour rounded to 15 bits
};

}  // namespace sgm
