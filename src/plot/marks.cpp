#include "plot/marks.h"

#include <algorithm>
#include <cmath>

namespace sgm {
namespace {

/// Calls the function for the mark's type.
template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

/// Corners of a histogram's upper outline, from the first bar's foot to the last one's.
struct Outline {
  std::vector<double> x, y;
};

Outline outline(const Histogram& h) {
  Extent extent(false);
  extent.include(h.values);
  if (h.low) extent.include(*h.low);
  if (h.high) extent.include(*h.high);
  if (extent.is_empty()) return {};
  const Interval all = extent.range({.low = h.low, .high = h.high}, 0.0);
  std::vector<double> counts(h.bins);
  for (const double value : h.values) {
    const double place = all.fraction(value) * h.bins;
    if (place >= 0 && place <= h.bins) counts[std::min(h.bins - 1, static_cast<int>(place))] += 1.0;
  }
  const double width = (all.high - all.low) / h.bins;
  Outline out{{all.low}, {0.0}};
  for (int i = 0; i < h.bins; ++i)
    for (const int edge : {i, i + 1}) {
      out.x.push_back(all.low + edge * width);
      out.y.push_back(counts[i] / (static_cast<double>(h.values.size()) * width));
    }
  out.x.push_back(all.high);
  out.y.push_back(0.0);
  return out;
}

std::vector<Point> places(const View& view, std::span<const double> x, std::span<const double> y) {
  std::vector<Point> points(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) points[i] = view.at(x[i], y[i]);
  return points;
}

void draw(Canvas& canvas, const View& view, const Line& mark, Color color) {
  const std::vector<Point> points = places(view, mark.x, mark.y);
  if (mark.width > 0) canvas.line(points, {color, mark.width, mark.alpha, mark.dashed});
  if (mark.marker > 0)
    for (const Point& p : points) canvas.dot(p, mark.marker, color, mark.alpha);
}

void draw(Canvas& canvas, const View& view, const Scatter& mark, Color color) {
  for (const Point& p : places(view, mark.x, mark.y)) canvas.dot(p, mark.radius, color, mark.alpha);
}

void draw(Canvas& canvas, const View& view, const HeatMap& mark, Color) {
  const Interval ends = color_range(mark);
  std::vector<Color> colors;
  colors.reserve(mark.values.size());
  for (const double value : mark.values) colors.push_back(map_color(mark.map, ends.fraction(value)));
  const Point low = view.at(mark.x_low, mark.y_low), high = view.at(mark.x_high, mark.y_high);
  canvas.picture({low.x, high.y, high.x - low.x, low.y - high.y}, colors, mark.rows, mark.columns);
}

void draw(Canvas& canvas, const View& view, const Arrows& mark, Color color) {
  double unit = 0;
  for (std::size_t i = 0; i < mark.x.size(); ++i) {
    const double length = std::hypot(mark.u[i], mark.v[i]);
    if (std::isfinite(length)) unit = std::max(unit, length);
  }
  const double scale = mark.longest / std::max(mark.unit.value_or(unit), 1e-300);
  for (std::size_t i = 0; i < mark.x.size(); ++i) {
    const Point tail = view.at(mark.x[i], mark.y[i]);
    const double du = scale * mark.u[i], dv = -scale * mark.v[i], length = std::hypot(du, dv);
    if (!std::isfinite(length) || length < 0.3) continue;
    const double head = std::min(5.0, 0.5 * length), ex = du / length, ey = dv / length;
    const Point tip{tail.x + du, tail.y + dv}, neck{tip.x - head * ex, tip.y - head * ey};
    const Point shaft[] = {tail, neck};
    const Point triangle[] = {tip,
                              {neck.x - 0.45 * head * ey, neck.y + 0.45 * head * ex},
                              {neck.x + 0.45 * head * ey, neck.y - 0.45 * head * ex}};
    canvas.line(shaft, {color, mark.width, mark.alpha});
    canvas.fill(triangle, color, mark.alpha);
  }
}

void draw(Canvas& canvas, const View& view, const Histogram& mark, Color color) {
  const Outline edge = outline(mark);
  const std::vector<Point> points = places(view, edge.x, edge.y);
  canvas.fill(points, color, mark.alpha);
  canvas.line(points, {color, 1.0});
}

void draw(Canvas& canvas, const View& view, const Band& mark, Color color) {
  std::vector<Point> corners = places(view, mark.x, mark.low);
  const std::vector<Point> upper = places(view, mark.x, mark.high);
  corners.insert(corners.end(), upper.rbegin(), upper.rend());
  canvas.fill(corners, color, mark.alpha);
}

}  // namespace

double Interval::fraction(double value) const {
  if (!is_log) return (value - low) / (high - low);
  return value > 0 ? std::log(value / low) / std::log(high / low) : NAN;
}

Point View::at(double px, double py) const {
  return {area.left + x.fraction(px) * area.width, area.bottom() - y.fraction(py) * area.height};
}

void Extent::include(double value) {
  if (!std::isfinite(value) || (is_log_ && value <= 0)) return;
  low_ = std::min(low_, value);
  high_ = std::max(high_, value);
}

void Extent::include(std::span<const double> values) {
  for (const double value : values) include(value);
}

Interval Extent::range(const Axis& axis, double margin) const {
  Interval range{is_empty() ? (is_log_ ? 0.1 : 0.0) : low_, is_empty() ? 1.0 : high_, is_log_};
  if (is_log_) {
    const double factor = std::max(std::pow(range.high / range.low, margin), 1.0 + 1e-6);
    range = {range.low / factor, range.high * factor, true};
  } else {
    const double width = range.high - range.low;
    const double more = width > 0 ? margin * width : std::max(0.5, 1e-3 * std::abs(range.low));
    range = {range.low - more, range.high + more};
  }
  range.low = axis.low.value_or(range.low);
  range.high = axis.high.value_or(range.high);
  return range;
}

bool extend(const Mark& mark, Extent& x, Extent& y) {
  return std::visit(Overloaded{[&](const HeatMap& m) {
                                 for (const double edge : {m.x_low, m.x_high}) x.include(edge);
                                 for (const double edge : {m.y_low, m.y_high}) y.include(edge);
                                 return true;
                               },
                               [&](const Histogram& m) {
                                 const Outline edge = outline(m);
                                 x.include(edge.x);
                                 y.include(edge.y);
                                 return false;
                               },
                               [&](const Band& m) {
                                 x.include(m.x);
                                 y.include(m.low);
                                 y.include(m.high);
                                 return false;
                               },
                               [&](const auto& m) {
                                 x.include(m.x);
                                 y.include(m.y);
                                 return false;
                               }},
                    mark);
}

const std::string& label_of(const Mark& mark) {
  static const std::string none;
  return std::visit(Overloaded{[](const HeatMap&) -> const std::string& { return none; },
                               [](const auto& m) -> const std::string& { return m.label; }},
                    mark);
}

Color color_of(const Mark& mark, Color automatic) {
  return std::visit(Overloaded{[&](const HeatMap&) { return automatic; },
                               [&](const auto& m) { return m.color.value_or(automatic); }},
                    mark);
}

bool takes_series_color(const Mark& mark) {
  return std::visit(
      Overloaded{[](const HeatMap&) { return false; }, [](const auto& m) { return !m.color.has_value(); }},
      mark);
}

Interval color_range(const HeatMap& map) {
  Extent extent(false);
  extent.include(map.values);
  return extent.range({.low = map.low, .high = map.high}, 0.0);
}

void draw_mark(Canvas& canvas, const View& view, const Mark& mark, Color automatic) {
  std::visit([&](const auto& m) { draw(canvas, view, m, color_of(mark, automatic)); }, mark);
}

void draw_sample(Canvas& canvas, const Rect& area, const Mark& mark, Color automatic) {
  const Color color = color_of(mark, automatic);
  const double middle = area.top + area.height / 2;
  const Point ends[] = {{area.left, middle}, {area.right(), middle}};
  const Point center{area.left + area.width / 2, middle};
  const auto patch = [&](double alpha) {
    canvas.fill(Rect{area.left, middle - 4, area.width, 8}, color, alpha);
  };
  std::visit(Overloaded{[&](const Line& m) {
                          if (m.width > 0) canvas.line(ends, {color, m.width, 1.0, m.dashed});
                          if (m.marker > 0) canvas.dot(center, m.marker, color);
                        },
                        [&](const Scatter&) { canvas.dot(center, 3.0, color); },
                        [&](const Arrows&) {
                          canvas.line(ends, {color, 1.4});
                        },
                        [&](const Histogram& m) {
                          patch(m.alpha);
                          canvas.line(ends, {color, 1.0});
                        },
                        [&](const Band& m) { patch(m.alpha); }, [](const HeatMap&) {}},
             mark);
}

std::vector<Point> points_of(const View& view, const Mark& mark) {
  return std::visit(Overloaded{[&](const Line& m) { return places(view, m.x, m.y); },
                               [&](const Scatter& m) { return places(view, m.x, m.y); },
                               [&](const Histogram& m) {
                                 const Outline edge = outline(m);
                                 return places(view, edge.x, edge.y);
                               },
                               [&](const Band& m) { return places(view, m.x, m.high); },
                               [](const auto&) { return std::vector<Point>(); }},
                    mark);
}

}  // namespace sgm
