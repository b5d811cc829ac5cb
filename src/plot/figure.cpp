#include "sgm/plot/figure.h"

#include <algorithm>
#include <cmath>

#include "plot/canvas.h"
#include "plot/marks.h"
#include "plot/ticks.h"
#include "sgm/core/error.h"

namespace sgm {
namespace {

constexpr double kTickSize = 10.0, kLabelSize = 11.5, kTitleSize = 12.5, kPageTitleSize = 14.0;
constexpr double kTickLength = 4.0, kGap = 4.0, kBarWidth = 11.0, kMargin = 0.04;
constexpr Stroke kFrame{kBlack, 0.8}, kGridLine{kBlack, 0.6, 0.08};

/// Axes with the ranges and ticks that were chosen for them.
struct Plan {
  const Axes* axes;
  Interval x, y;
  std::vector<Tick> x_ticks, y_ticks;
  const HeatMap* bar = nullptr;  // the heat map that the colour bar explains
  std::vector<Tick> bar_ticks = {};
};

/// Room around the frames of one row or column of axes: above and below, or left and right.
struct Room {
  double before, after;
};

std::vector<Tick> ticks(const Interval& range, int count) {
  return range.is_log ? log_ticks(range.low, range.high, count) : linear_ticks(range.low, range.high, count);
}

Interval chosen(const Extent& extent, const Axis& axis, bool is_tight, const char* name) {
  const Interval range = extent.range(axis, is_tight ? 0.0 : kMargin);
  check(range.high > range.low && (!axis.is_log || range.low > 0), "figure: the ", name, " axis '",
        axis.label, "' runs from ", range.low, " to ", range.high,
        axis.is_log ? "; a logarithmic axis needs positive, rising ends" : "; it must rise");
  return range;
}

Plan plan(const Axes& axes, double width, double height) {
  Extent x(axes.x.is_log), y(axes.y.is_log);
  bool is_tight = false;
  Plan plan{&axes, {}, {}, {}, {}};
  for (const Mark& mark : axes.marks) {
    is_tight = extend(mark, x, y) || is_tight;
    const auto* const map = std::get_if<HeatMap>(&mark);
    if (map != nullptr && map->has_bar) plan.bar = map;
  }
  plan.x = chosen(x, axes.x, is_tight, "x");
  plan.y = chosen(y, axes.y, is_tight, "y");
  plan.x_ticks = ticks(plan.x, std::clamp(static_cast<int>(width / 75), 2, 8));
  plan.y_ticks = ticks(plan.y, std::clamp(static_cast<int>(height / 55), 2, 8));
  if (plan.bar != nullptr)
    plan.bar_ticks = linear_ticks(color_range(*plan.bar).low, color_range(*plan.bar).high, 5);
  return plan;
}

double widest(Canvas& canvas, std::span<const Tick> ticks) {
  double width = 0;
  for (const Tick& tick : ticks) width = std::max(width, canvas.text_width(tick.text, kTickSize));
  return width;
}

/// The room that a line of text takes.
double room(const std::string& text, double size) { return text.empty() ? 0.0 : 1.5 * size; }

/// Frames of equal size, in lines; each row and column of the grid has room for its own labels.
struct Layout {
  std::vector<Plan> plans;
  std::vector<View> views;
};

/// Grows the room of the row and the column that these axes are in.
void make_room(Canvas& canvas, const Plan& p, Room& row, Room& column) {
  const double ticks = widest(canvas, p.y_ticks) + kTickLength + kGap;
  column.before = std::max(column.before, 6 + ticks + room(p.axes->y.label, kLabelSize));
  if (p.bar != nullptr)
    column.after =
        std::max(column.after, 12 + kBarWidth + kTickLength + 2 * kGap + widest(canvas, p.bar_ticks));
  row.before = std::max(row.before, 8 + room(p.axes->title, kTitleSize));
  row.after = std::max(row.after, 6 + kTickSize + kTickLength + kGap + room(p.axes->x.label, kLabelSize));
}

/// The largest part of `area` in which both coordinates have the same scale, in its middle.
Rect equally_scaled(Rect area, const Plan& p) {
  const double x = p.x.high - p.x.low, y = p.y.high - p.y.low;
  const double unit = std::min(area.width / x, area.height / y);
  return {area.left + (area.width - unit * x) / 2, area.top + (area.height - unit * y) / 2, unit * x,
          unit * y};
}

Layout layout(Canvas& canvas, const FigureSize& size, const std::string& title, std::span<const Axes> all) {
  Layout layout;
  std::vector<Room> rows(size.rows, {8, 6}), columns(size.columns, {6, 14});
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double width = static_cast<double>(size.width) / size.columns;
    layout.plans.push_back(plan(all[i], width, static_cast<double>(size.height) / size.rows));
    make_room(canvas, layout.plans[i], rows[i / size.columns], columns[i % size.columns]);
  }
  const double above = title.empty() ? 0.0 : 2.0 * kPageTitleSize;
  double width = size.width, height = size.height - above;
  for (const Room& room : columns) width -= room.before + room.after;
  for (const Room& room : rows) height -= room.before + room.after;
  width = std::max(8.0, width / size.columns);
  height = std::max(8.0, height / size.rows);
  double top = above;
  for (int row = 0; row < size.rows; ++row) {
    double left = 0;
    for (int column = 0; column < size.columns; ++column) {
      const Plan& p = layout.plans[static_cast<std::size_t>(row) * size.columns + column];
      const Rect area{left + columns[column].before, top + rows[row].before, width, height};
      layout.views.push_back({p.axes->has_equal_scales ? equally_scaled(area, p) : area, p.x, p.y});
      left += columns[column].before + width + columns[column].after;
    }
    top += rows[row].before + height + rows[row].after;
  }
  return layout;
}

void draw_ticks(Canvas& canvas, const Plan& plan, const View& view) {
  const Rect& r = view.area;
  for (const Tick& tick : plan.x_ticks) {
    const double x = view.at(tick.value, plan.y.low).x, length = tick.text.empty() ? 2.0 : kTickLength;
    const Point mark[] = {{x, r.bottom()}, {x, r.bottom() + length}};
    canvas.line(mark, kFrame);
    canvas.text({x, r.bottom() + kTickLength + 1}, tick.text, kTickSize, {0.5, 0.0});
  }
  for (const Tick& tick : plan.y_ticks) {
    const double y = view.at(plan.x.low, tick.value).y, length = tick.text.empty() ? 2.0 : kTickLength;
    const Point mark[] = {{r.left, y}, {r.left - length, y}};
    canvas.line(mark, kFrame);
    canvas.text({r.left - kTickLength - kGap, y}, tick.text, kTickSize, {1.0, 0.5});
  }
}

void draw_grid(Canvas& canvas, const Plan& plan, const View& view) {
  const Rect& r = view.area;
  for (const Tick& tick : plan.x_ticks) {
    const double x = view.at(tick.value, plan.y.low).x;
    const Point line[] = {{x, r.top}, {x, r.bottom()}};
    if (!tick.text.empty()) canvas.line(line, kGridLine);
  }
  for (const Tick& tick : plan.y_ticks) {
    const double y = view.at(plan.x.low, tick.value).y;
    const Point line[] = {{r.left, y}, {r.right(), y}};
    if (!tick.text.empty()) canvas.line(line, kGridLine);
  }
}

void draw_bar(Canvas& canvas, const Plan& plan, const Rect& beside) {
  const Interval ends = color_range(*plan.bar);
  const Rect area{beside.right() + 2 * kGap, beside.top, kBarWidth, beside.height};
  std::vector<Color> colors;
  for (int i = 0; i < 256; ++i) colors.push_back(map_color(plan.bar->map, i / 255.0));
  canvas.picture(area, colors, 256, 1);
  canvas.frame(area, kFrame);
  for (const Tick& tick : plan.bar_ticks) {
    const double y = area.bottom() - ends.fraction(tick.value) * area.height;
    const Point mark[] = {{area.right(), y}, {area.right() + 3, y}};
    canvas.line(mark, kFrame);
    canvas.text({area.right() + 3 + kGap / 2, y}, tick.text, kTickSize, {0.0, 0.5});
  }
}

/// Entries of the legend with the colours that their marks were drawn in.
using Legend = std::vector<std::pair<const Mark*, Color>>;

/// In the corner that hides the fewest points.
void draw_legend(Canvas& canvas, const View& view, const Axes& axes, const Legend& entries) {
  constexpr double kLine = 15.0, kSample = 20.0, kPad = 6.0;
  double text = 0;
  for (const auto& [mark, color] : entries)
    text = std::max(text, canvas.text_width(label_of(*mark), kTickSize));
  const double width = 2 * kPad + kSample + kGap + text,
               height = kPad + kLine * static_cast<double>(entries.size());
  const Rect& r = view.area;
  const double left = r.left + kPad, right = r.right() - kPad - width, top = r.top + kPad,
               bottom = r.bottom() - kPad - height;
  Rect best{};
  std::int64_t fewest = -1;
  for (const Rect& corner : {Rect{right, top, width, height}, Rect{left, top, width, height},
                             Rect{right, bottom, width, height}, Rect{left, bottom, width, height}}) {
    std::int64_t hidden = 0;
    for (const Mark& mark : axes.marks)
      for (const Point& p : points_of(view, mark)) hidden += corner.contains(p);
    if (fewest >= 0 && hidden >= fewest) continue;
    fewest = hidden;
    best = corner;
  }
  canvas.fill(best, kWhite, 0.85);
  canvas.frame(best, {kBlack, 0.5, 0.3});
  double y = best.top + kPad / 2;
  for (const auto& [mark, color] : entries) {
    draw_sample(canvas, {best.left + kPad, y, kSample, kLine}, *mark, color);
    canvas.text({best.left + kPad + kSample + kGap, y + kLine / 2}, label_of(*mark), kTickSize, {0.0, 0.5});
    y += kLine;
  }
}

void draw_axes(Canvas& canvas, const Plan& plan, const View& view) {
  const Axes& axes = *plan.axes;
  if (axes.is_hidden) return;
  const Rect& r = view.area;
  draw_grid(canvas, plan, view);
  canvas.clip(r);
  Legend legend;
  int series = 0;
  for (const Mark& mark : axes.marks) {
    const Color color = series_color(series);
    if (takes_series_color(mark)) ++series;
    draw_mark(canvas, view, mark, color);
    if (!label_of(mark).empty()) legend.emplace_back(&mark, color);
  }
  canvas.unclip();
  canvas.frame(r, kFrame);
  draw_ticks(canvas, plan, view);
  if (plan.bar != nullptr) draw_bar(canvas, plan, r);
  if (!legend.empty()) draw_legend(canvas, view, axes, legend);
  canvas.text({r.left + r.width / 2, r.top - 5}, axes.title, kTitleSize, {0.5, 1.0});
  canvas.text({r.left + r.width / 2, r.bottom() + kTickLength + kTickSize + kGap}, axes.x.label, kLabelSize,
              {0.5, 0.0});
  const double across = r.left - kTickLength - 2 * kGap - widest(canvas, plan.y_ticks);
  canvas.text({across, r.top + r.height / 2}, axes.y.label, kLabelSize, {0.5, 1.0}, true);
}

/// Columns of a mark that must be of one length.
struct Lengths {
  bool operator()(const HeatMap& m) const {
    return m.rows > 0 && m.columns > 0 &&
           static_cast<std::int64_t>(m.values.size()) == static_cast<std::int64_t>(m.rows) * m.columns;
  }
  bool operator()(const Histogram& m) const { return m.bins > 0; }
  bool operator()(const Band& m) const { return m.low.size() == m.x.size() && m.high.size() == m.x.size(); }
  bool operator()(const Arrows& m) const {
    return m.y.size() == m.x.size() && m.u.size() == m.x.size() && m.v.size() == m.x.size();
  }
  template <class Points>
  bool operator()(const Points& m) const {
    return m.y.size() == m.x.size();
  }
};

}  // namespace

void Axes::add(Mark mark) {
  check(std::visit(Lengths(), mark), "figure: the columns of a mark must be of one length");
  marks.push_back(std::move(mark));
}

Figure::Figure(const FigureSize& size) : size_(size) {
  check(size.width > 0 && size.height > 0 && size.width <= kMaxImageSide && size.height <= kMaxImageSide &&
            size.rows > 0 && size.columns > 0,
        "figure: ", size.width, " x ", size.height, " pixels in ", size.rows, " rows and ", size.columns,
        " columns: sizes must be 1 to ", kMaxImageSide);
  axes_.resize(static_cast<std::size_t>(size.rows) * size.columns);
}

Axes& Figure::at(int i) {
  check(i >= 0 && static_cast<std::size_t>(i) < axes_.size(), "figure: axes ", i, " of ", axes_.size());
  return axes_[static_cast<std::size_t>(i)];
}

Image Figure::draw() const {
  Canvas canvas(size_.width, size_.height);
  const Layout all = layout(canvas, size_, title_, axes_);
  for (std::size_t i = 0; i < axes_.size(); ++i) draw_axes(canvas, all.plans[i], all.views[i]);
  canvas.text({size_.width / 2.0, 7.0}, title_, kPageTitleSize, {0.5, 0.0});
  return canvas.image();
}

Figure::Place Figure::place(int i, double x, double y) const {
  Canvas canvas(size_.width, size_.height);
  const Point p = layout(canvas, size_, title_, axes_).views.at(static_cast<std::size_t>(i)).at(x, y);
  return {p.x, p.y};
}

}  // namespace sgm
