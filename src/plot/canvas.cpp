#include "plot/canvas.h"

#include <cmath>
#include <numbers>

#include "sgm/core/error.h"

#ifdef __SANITIZE_ADDRESS__
/// What fontconfig keeps until the program ends is no leak of ours.
extern "C" const char* __lsan_default_suppressions() { return "leak:libfontconfig\n"; }
#endif

namespace sgm {

Canvas::Canvas(int width, int height)
    : surface_(cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height)),
      cairo_(cairo_create(surface_.get())) {
  check(cairo_status(cairo_.get()) == CAIRO_STATUS_SUCCESS, "figure: ", width, " x ", height,
        " pixels: ", cairo_status_to_string(cairo_status(cairo_.get())));
  cairo_select_font_face(cairo_.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_line_join(cairo_.get(), CAIRO_LINE_JOIN_ROUND);
  set(kWhite, 1.0);
  cairo_paint(cairo_.get());
}

void Canvas::set(Color color, double alpha) {
  cairo_set_source_rgba(cairo_.get(), color.red, color.green, color.blue, alpha);
}

void Canvas::clip(const Rect& area) {
  cairo_save(cairo_.get());
  cairo_rectangle(cairo_.get(), area.left, area.top, area.width, area.height);
  cairo_clip(cairo_.get());
}

void Canvas::unclip() { cairo_restore(cairo_.get()); }

void Canvas::path(std::span<const Point> points) {
  cairo_new_path(cairo_.get());
  bool is_interrupted = true;
  for (const Point& p : points) {
    const bool is_point = std::isfinite(p.x) && std::isfinite(p.y);
    if (is_point && is_interrupted) cairo_move_to(cairo_.get(), p.x, p.y);
    if (is_point && !is_interrupted) cairo_line_to(cairo_.get(), p.x, p.y);
    is_interrupted = !is_point;
  }
}

void Canvas::line(std::span<const Point> points, const Stroke& stroke) {
  set(stroke.color, stroke.alpha);
  const double dash[] = {4.0, 3.0};
  cairo_set_dash(cairo_.get(), dash, stroke.dashed ? 2 : 0, 0.0);
  cairo_set_line_width(cairo_.get(), stroke.width);
  path(points);
  cairo_stroke(cairo_.get());
}

void Canvas::fill(std::span<const Point> corners, Color color, double alpha) {
  set(color, alpha);
  path(corners);
  cairo_fill(cairo_.get());
}

void Canvas::fill(const Rect& r, Color color, double alpha) {
  const Point corners[] = {
      {r.left, r.top}, {r.right(), r.top}, {r.right(), r.bottom()}, {r.left, r.bottom()}};
  fill(corners, color, alpha);
}

void Canvas::frame(const Rect& r, const Stroke& stroke) {
  const Point corners[] = {
      {r.left, r.top}, {r.right(), r.top}, {r.right(), r.bottom()}, {r.left, r.bottom()}, {r.left, r.top}};
  line(corners, stroke);
}

void Canvas::dot(Point center, double radius, Color color, double alpha) {
  if (!std::isfinite(center.x) || !std::isfinite(center.y)) return;
  set(color, alpha);
  cairo_new_path(cairo_.get());
  cairo_arc(cairo_.get(), center.x, center.y, radius, 0.0, 2.0 * std::numbers::pi);
  cairo_fill(cairo_.get());
}

void Canvas::picture(const Rect& area, std::span<const Color> colors, int rows, int columns) {
  const std::unique_ptr<cairo_surface_t, Free<cairo_surface_destroy>> cells(
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, columns, rows));
  cairo_surface_flush(cells.get());
  unsigned char* const bytes = cairo_image_surface_get_data(cells.get());
  check(bytes != nullptr, "figure: a heat map of ", rows, " x ", columns, " cells is too large");
  const int stride = cairo_image_surface_get_stride(cells.get());
  const auto byte = [](double v) { return static_cast<std::uint32_t>(std::lround(255.0 * v)); };
  for (int row = 0; row < rows; ++row) {
    auto* const out =
        reinterpret_cast<std::uint32_t*>(bytes + static_cast<std::ptrdiff_t>(rows - 1 - row) * stride);
    for (int column = 0; column < columns; ++column) {
      const Color& c = colors[static_cast<std::size_t>(row) * columns + column];
      out[column] = byte(c.red) << 16 | byte(c.green) << 8 | byte(c.blue);
    }
  }
  cairo_surface_mark_dirty(cells.get());
  cairo_save(cairo_.get());
  cairo_rectangle(cairo_.get(), area.left, area.top, area.width, area.height);
  cairo_clip(cairo_.get());
  cairo_translate(cairo_.get(), area.left, area.top);
  cairo_scale(cairo_.get(), area.width / columns, area.height / rows);
  cairo_set_source_surface(cairo_.get(), cells.get(), 0.0, 0.0);
  cairo_pattern_set_extend(cairo_get_source(cairo_.get()), CAIRO_EXTEND_PAD);
  cairo_pattern_set_filter(cairo_get_source(cairo_.get()), CAIRO_FILTER_BILINEAR);
  cairo_paint(cairo_.get());
  cairo_restore(cairo_.get());
}

void Canvas::text(Point at, const std::string& text, double size, Anchor anchor, bool upright) {
  cairo_set_font_size(cairo_.get(), size);
  cairo_font_extents_t font;
  cairo_font_extents(cairo_.get(), &font);
  const double width = text_width(text, size), height = font.ascent + font.descent;
  cairo_save(cairo_.get());
  set(kBlack, 1.0);
  cairo_translate(cairo_.get(), at.x, at.y);
  if (upright) cairo_rotate(cairo_.get(), -std::numbers::pi / 2);
  cairo_move_to(cairo_.get(), -anchor.x * width, font.ascent - anchor.y * height);
  cairo_show_text(cairo_.get(), text.c_str());
  cairo_restore(cairo_.get());
}

double Canvas::text_width(const std::string& text, double size) {
  cairo_set_font_size(cairo_.get(), size);
  cairo_text_extents_t extents;
  cairo_text_extents(cairo_.get(), text.c_str(), &extents);
  return extents.x_advance;
}

Image Canvas::image() const {
  cairo_surface_flush(surface_.get());
  const int width = cairo_image_surface_get_width(surface_.get());
  const int height = cairo_image_surface_get_height(surface_.get());
  const int stride = cairo_image_surface_get_stride(surface_.get());
  const unsigned char* const bytes = cairo_image_surface_get_data(surface_.get());
  Image image{height, width, 3, {}};
  image.pixels.reserve(static_cast<std::size_t>(height) * width * 3);
  for (int y = 0; y < height; ++y) {
    const auto* const row =
        reinterpret_cast<const std::uint32_t*>(bytes + static_cast<std::ptrdiff_t>(y) * stride);
    for (int x = 0; x < width; ++x)
      for (const int shift : {16, 8, 0}) image.pixels.push_back(static_cast<std::uint8_t>(row[x] >> shift));
  }
  return image;
}

}  // namespace sgm
