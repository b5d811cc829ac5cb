#pragma once
// Figures: a grid of axes with lines, points, heat maps and arrows, drawn into an Image.
//
//   Figure figure({.width = 800, .height = 400, .columns = 2});
//   Axes& left = figure.at(0);
//   left.x.label = "t";
//   left.add(Line{.x = times, .y = losses, .label = "loss"});
//   write_png("losses.png", figure.draw());

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "sgm/data/image.h"
#include "sgm/plot/color.h"

namespace sgm {

/// A curve through points; a point that is not finite interrupts it.
struct Line {
  std::vector<double> x, y;
  std::string label = {};           // in the legend, unless empty
  std::optional<Color> color = {};  // default: the next of the series' colours
  double width = 1.4, alpha = 1.0;  // pixels
  double marker = 0.0;              // radius of a dot at every point
  bool dashed = false;
};

/// Dots.
struct Scatter {
  std::vector<double> x, y;
  std::string label = {};
  std::optional<Color> color = {};
  double radius = 1.2, alpha = 0.5;
};

/// Values on a regular grid of cells, row by row; the first row is the one of smallest y.
struct HeatMap {
  std::vector<double> values;
  int rows, columns;
  double x_low, x_high, y_low, y_high;        // outer edges of the outer cells
  std::optional<double> low = {}, high = {};  // values at the ends of the colour map; default: the extremes
  ColorMap map = ColorMap::sequential;
  bool has_bar = true;  // a colour bar beside the axes
};

/// An arrow (u, v) at every point.
struct Arrows {
  std::vector<double> x, y, u, v;
  std::string label = {};
  std::optional<Color> color = {};
  double width = 1.0, alpha = 1.0;
  double longest = 22.0;            // length in pixels of the longest arrow
  std::optional<double> unit = {};  // |(u, v)| of an arrow of that length; default: the largest that occurs
};

/// The density of values: bars of equal width whose areas add up to the part of the values between low and
/// high.
struct Histogram {
  std::vector<double> values;
  std::string label = {};
  std::optional<Color> color = {};
  int bins = 60;
  std::optional<double> low = {}, high = {};  // default: the extremes
  double alpha = 0.35;                        // of the filled area
};

/// The area between two curves.
struct Band {
  std::vector<double> x, low, high;
  std::string label = {};
  std::optional<Color> color = {};
  double alpha = 0.2;
};

using Mark = std::variant<Line, Scatter, HeatMap, Arrows, Histogram, Band>;

/// One coordinate of the axes.
struct Axis {
  std::string label = {};
  std::optional<double> low = {}, high = {};  // default: what holds all marks
  bool is_log = false;                        // values that are not positive are left out
};

/// Marks over a pair of axes, in the order in which they were added.
struct Axes {
  std::string title = {};
  Axis x = {}, y = {};
  bool has_equal_scales = false;  // one unit of x is as long as one of y
  bool is_hidden = false;         // nothing is drawn
  std::vector<Mark> marks = {};

  /// Throws Error when the mark's columns differ in length.
  void add(Mark mark);
};

struct FigureSize {
  int width = 640, height = 420;  // pixels, of the whole figure
  int rows = 1, columns = 1;
};

/// A white page with a grid of axes of equal size.
class Figure {
 public:
  /// Throws Error for sizes that no image has.
  explicit Figure(const FigureSize& size);

  /// Axes number i, row by row; throws Error when there are fewer.
  Axes& at(int i);
  /// Above all axes.
  void set_title(std::string title) { title_ = std::move(title); }

  /// RGB. Throws Error for a logarithmic axis without positive values.
  Image draw() const;

  struct Place {
    double x, y;  // pixels from the top left corner of the image
  };
  /// Where draw() puts the point (x, y) of axes i.
  Place place(int i, double x, double y) const;

 private:
  FigureSize size_;
  std::string title_;
  std::vector<Axes> axes_;
};

}  // namespace sgm
