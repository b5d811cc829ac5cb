#pragma once
// What each kind of mark covers and how it is drawn.

#include <cmath>

#include "plot/canvas.h"
#include "sgm/plot/figure.h"

namespace sgm {

/// The interval of one coordinate that axes show.
struct Interval {
  double low, high;
  bool is_log = false;

  /// 0 at low, 1 at high; NaN for what a logarithmic axis cannot show.
  double fraction(double value) const;
};

/// From data to pixels.
struct View {
  Rect area;
  Interval x, y;

  Point at(double px, double py) const;
};

/// Collects the values that an axis must show.
class Extent {
 public:
  explicit Extent(bool is_log) : is_log_(is_log) {}

  void include(double value);
  void include(std::span<const double> values);
  /// Widened by `margin` of its width on both sides unless it is `tight`.
  Interval range(const Axis& axis, double margin) const;
  bool is_empty() const { return !(low_ <= high_); }

 private:
  bool is_log_;
  double low_ = INFINITY, high_ = -INFINITY;
};

/// Adds the mark's values. Returns whether the mark wants the axes to end where it does.
bool extend(const Mark& mark, Extent& x, Extent& y);

/// The mark's legend entry; empty: none.
const std::string& label_of(const Mark& mark);
/// The mark's own color, or `automatic`.
Color color_of(const Mark& mark, Color automatic);
/// Whether the mark takes the next of the series' colours.
bool takes_series_color(const Mark& mark);

/// Values at the ends of a heat map's colours.
Interval color_range(const HeatMap& map);

void draw_mark(Canvas& canvas, const View& view, const Mark& mark, Color automatic);
/// The mark's picture in the legend.
void draw_sample(Canvas& canvas, const Rect& area, const Mark& mark, Color automatic);
/// Points that a legend should not hide.
std::vector<Point> points_of(const View& view, const Mark& mark);

}  // namespace sgm
