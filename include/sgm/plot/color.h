#pragma once
// Colours of figures: a palette for series and maps from numbers.

namespace sgm {

/// sRGB, each in [0, 1].
struct Color {
  double red = 0, green = 0, blue = 0;

  bool operator==(const Color&) const = default;
};

inline constexpr Color kBlack{0, 0, 0}, kGrey{0.45, 0.45, 0.45}, kWhite{1, 1, 1};

/// Colour of series i: six that readers with any colour vision tell apart, then the same again.
Color series_color(int i);

enum class ColorMap {
  sequential,  // dark violet to light yellow, lightness in proportion to the value
  diverging    // blue, white in the middle, red
};

/// The colour of a value in [0, 1]; values outside take the nearest end, NaN is grey.
Color map_color(ColorMap map, double value);

}  // namespace sgm
