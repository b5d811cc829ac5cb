#include "plot/palette.h"

#include <algorithm>
#include <array>

namespace sgm {
namespace {

constexpr int kBits = 5, kCells = 1 << (3 * kBits);

using Rgb = std::array<std::uint8_t, 3>;

Rgb pixel(const Image& image, std::size_t i) {
  if (image.channels == 1) return {image.pixels[i], image.pixels[i], image.pixels[i]};
  return {image.pixels[3 * i], image.pixels[3 * i + 1], image.pixels[3 * i + 2]};
}

std::size_t count_pixels(const Image& image) {
  return static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
}

int cell_of(const Rgb& c) {
  constexpr int kDrop = 8 - kBits;
  return (c[0] >> kDrop) << (2 * kBits) | (c[1] >> kDrop) << kBits | c[2] >> kDrop;
}

/// Coordinate `axis` (red, green, blue) of a cell.
int coordinate(int cell, int axis) { return cell >> ((2 - axis) * kBits) & ((1 << kBits) - 1); }

/// What fell into a cell of the colour cube.
struct Content {
  std::int64_t count = 0;
  std::array<std::int64_t, 3> sum{};
};

/// Cells [first, last) of the list that is being cut.
struct Box {
  std::size_t first, last;
  std::int64_t count;
  int axis, side;  // the longest

  std::int64_t weight() const { return last - first > 1 ? count * side : 0; }
};

Box box(const std::vector<int>& cells, const std::vector<Content>& contents, std::size_t first,
        std::size_t last) {
  Box box{first, last, 0, 0, -1};
  for (std::size_t i = first; i < last; ++i) box.count += contents[cells[i]].count;
  for (int axis = 0; axis < 3; ++axis) {
    int low = 1 << kBits, high = -1;
    for (std::size_t i = first; i < last; ++i) {
      low = std::min(low, coordinate(cells[i], axis));
      high = std::max(high, coordinate(cells[i], axis));
    }
    if (high - low > box.side) {
      box.side = high - low;
      box.axis = axis;
    }
  }
  return box;
}

/// Where a box, sorted along its axis, has half of its pixels on either side; never an end.
std::size_t median(const std::vector<int>& cells, const std::vector<Content>& contents, const Box& box) {
  std::int64_t below = 0;
  std::size_t at = box.first;
  while (at + 1 < box.last && 2 * below < box.count) below += contents[cells[at++]].count;
  return std::max(at, box.first + 1);
}

}  // namespace

Palette::Palette(std::span<const Image> images, int size) : index_of_(kCells) {
  std::vector<Content> contents(kCells);
  for (const Image& image : images)
    for (std::size_t i = 0; i < count_pixels(image); ++i) {
      const Rgb color = pixel(image, i);
      Content& content = contents[cell_of(color)];
      ++content.count;
      for (std::size_t c = 0; c < 3; ++c) content.sum[c] += color[c];
    }
  std::vector<int> cells;
  for (int cell = 0; cell < kCells; ++cell)
    if (contents[cell].count > 0) cells.push_back(cell);

  std::vector<Box> boxes{box(cells, contents, 0, cells.size())};
  while (static_cast<int>(boxes.size()) < size) {
    const auto heaviest = std::max_element(
        boxes.begin(), boxes.end(), [](const Box& a, const Box& b) { return a.weight() < b.weight(); });
    if (heaviest->weight() == 0) break;
    const Box cut = *heaviest;
    std::sort(cells.begin() + static_cast<std::ptrdiff_t>(cut.first),
              cells.begin() + static_cast<std::ptrdiff_t>(cut.last), [&](int a, int b) {
                const int at_a = coordinate(a, cut.axis), at_b = coordinate(b, cut.axis);
                return at_a != at_b ? at_a < at_b : a < b;
              });
    const std::size_t middle = median(cells, contents, cut);
    *heaviest = box(cells, contents, cut.first, middle);
    boxes.push_back(box(cells, contents, middle, cut.last));
  }

  for (const Box& b : boxes) {
    Content all;
    for (std::size_t i = b.first; i < b.last; ++i) {
      index_of_[cells[i]] = static_cast<std::uint8_t>(entries_.size());
      for (std::size_t c = 0; c < 3; ++c) all.sum[c] += contents[cells[i]].sum[c];
    }
    const auto mean = [&](int c) {
      return static_cast<std::uint8_t>(b.count > 0 ? (all.sum[c] + b.count / 2) / b.count : 0);
    };
    entries_.push_back({mean(0), mean(1), mean(2)});
  }
}

std::vector<std::uint8_t> Palette::indices(const Image& image) const {
  std::vector<std::uint8_t> indices(count_pixels(image));
  for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = index_of_[cell_of(pixel(image, i))];
  return indices;
}

}  // namespace sgm
