#pragma once
// The one place that knows the drawing library: shapes and text in pixels, origin at the top left.

#include <cairo.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sgm/data/image.h"
#include "sgm/plot/color.h"

namespace sgm {

struct Point {
  double x, y;
};

struct Rect {
  double left, top, width, height;

  double right() const { return left + width; }
  double bottom() const { return top + height; }
  bool contains(Point p) const { return p.x >= left && p.x <= right() && p.y >= top && p.y <= bottom(); }
};

struct Stroke {
  Color color = kBlack;
  double width = 1.0, alpha = 1.0;
  bool dashed = false;
};

/// How a text lies about its point: the fraction of its width to the left and of its height above.
struct Anchor {
  double x = 0.5, y = 0.5;
};

class Canvas {
 public:
  Canvas(int width, int height);

  /// Marks drawn from here on stay inside; nothing restricts them at first.
  void clip(const Rect& area);
  void unclip();

  void line(std::span<const Point> points, const Stroke& stroke);
  void fill(std::span<const Point> corners, Color color, double alpha = 1.0);
  void fill(const Rect& area, Color color, double alpha = 1.0);
  void frame(const Rect& area, const Stroke& stroke);
  void dot(Point center, double radius, Color color, double alpha = 1.0);
  /// A picture of [rows, columns] colours over `area`, interpolated; the first row lies at the bottom.
  void picture(const Rect& area, std::span<const Color> colors, int rows, int columns);

  void text(Point at, const std::string& text, double size, Anchor anchor = {}, bool upright = false);
  double text_width(const std::string& text, double size);

  Image image() const;

 private:
  template <auto free>
  struct Free {
    template <class T>
    void operator()(T* handle) const {
      free(handle);
    }
  };

  void set(Color color, double alpha);
  void path(std::span<const Point> points);

  std::unique_ptr<cairo_surface_t, Free<cairo_surface_destroy>> surface_;
  std::unique_ptr<cairo_t, Free<cairo_destroy>> cairo_;
};

}  // namespace sgm
