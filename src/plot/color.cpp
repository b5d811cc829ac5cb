#include "sgm/plot/color.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace sgm {
namespace {

/// sRGB of a colour of CIELAB (white point D65) given by lightness, chroma and hue in degrees; what no screen
/// shows is cut off.
Color from_lab(double lightness, double chroma, double hue) {
  const double angle = hue * std::numbers::pi / 180.0;
  const double fy = (lightness + 16.0) / 116.0;
  const auto inverse = [](double f) { return f > 6.0 / 29.0 ? f * f * f : (f - 4.0 / 29.0) * 108.0 / 841.0; };
  const double x = 0.95047 * inverse(fy + chroma * std::cos(angle) / 500.0), y = inverse(fy);
  const double z = 1.08883 * inverse(fy - chroma * std::sin(angle) / 200.0);
  const auto encode = [](double linear) {
    const double v = std::clamp(linear, 0.0, 1.0);
    return v <= 0.0031308 ? 12.92 * v : 1.055 * std::pow(v, 1.0 / 2.4) - 0.055;
  };
  return {encode(3.2404542 * x - 1.5371385 * y - 0.4985314 * z),
          encode(-0.9692660 * x + 1.8760108 * y + 0.0415560 * z),
          encode(0.0556434 * x - 0.2040259 * y + 1.0572252 * z)};
}

Color sequential(double value) {
  const double chroma = 36.0 + 36.0 * value * value;
  return from_lab(14.0 + 78.0 * value, chroma, 310.0 - 210.0 * value);
}

Color diverging(double value) {
  const double away = std::abs(2.0 * value - 1.0);
  return from_lab(97.0 - 52.0 * away, 62.0 * away, value < 0.5 ? 270.0 : 30.0);
}

}  // namespace

Color series_color(int i) {
  static constexpr std::array<Color, 6> colors{{{0.00, 0.35, 0.70},
                                                {0.85, 0.37, 0.01},
                                                {0.00, 0.58, 0.45},
                                                {0.72, 0.30, 0.60},
                                                {0.55, 0.42, 0.05},
                                                {0.25, 0.65, 0.90}}};
  return colors[static_cast<std::size_t>(i) % colors.size()];
}

Color map_color(ColorMap map, double value) {
  if (std::isnan(value)) return kGrey;
  const double v = std::clamp(value, 0.0, 1.0);
  return map == ColorMap::sequential ? sequential(v) : diverging(v);
}

}  // namespace sgm
