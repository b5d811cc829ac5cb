// Figures and animations: what is drawn where, and what reads back.

#include <gif_lib.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "expect_error.h"
#include "plot/ticks.h"
#include "sgm/plot/figure.h"
#include "sgm/plot/gif.h"
#include "temp_folder.h"

namespace sgm {
namespace {

Color pixel_at(const Image& image, const Figure::Place& place) {
  const auto x = static_cast<std::size_t>(place.x), y = static_cast<std::size_t>(place.y);
  const std::size_t i = (y * static_cast<std::size_t>(image.width) + x) * 3;
  return {image.pixels[i] / 255.0, image.pixels[i + 1] / 255.0, image.pixels[i + 2] / 255.0};
}

void expect_color(const Color& actual, const Color& expected, double tolerance = 0.01) {
  EXPECT_NEAR(actual.red, expected.red, tolerance);
  EXPECT_NEAR(actual.green, expected.green, tolerance);
  EXPECT_NEAR(actual.blue, expected.blue, tolerance);
}

std::vector<std::string> texts(const std::vector<Tick>& ticks) {
  std::vector<std::string> numbered;
  for (const Tick& tick : ticks)
    if (!tick.text.empty()) numbered.push_back(tick.text);
  return numbered;
}

TEST(Ticks, AreRoundNumbersInside) {
  EXPECT_EQ(texts(linear_ticks(0, 1, 5)), (std::vector<std::string>{"0", "0.2", "0.4", "0.6", "0.8", "1"}));
  EXPECT_EQ(texts(linear_ticks(-3.2, 3.2, 3)), (std::vector<std::string>{"\u22122", "0", "2"}));
  EXPECT_EQ(texts(linear_ticks(0.0501, 0.0512, 2)), (std::vector<std::string>{"0.0505", "0.051"}));
  for (const double scale : {1e-6, 0.37, 1.0, 8123.0})
    for (const int count : {2, 5, 8})
      for (const Tick& tick : linear_ticks(-scale, 2 * scale, count)) {
        EXPECT_GE(tick.value, -scale * (1 + 1e-6));
        EXPECT_LE(tick.value, 2 * scale * (1 + 1e-6));
      }
}

TEST(Ticks, OfLogarithmicAxesArePowers) {
  EXPECT_EQ(texts(log_ticks(0.01, 50, 8)),
            (std::vector<std::string>{"10\u207b\u00b2", "10\u207b\u00b9", "10\u2070", "10\u00b9"}));
  EXPECT_EQ(log_ticks(0.01, 50, 8).size(), 9u + 9 + 9 + 5);  // 0.01 to 0.09, ..., 10 to 50
  EXPECT_EQ(texts(log_ticks(1.5, 7, 8)), (std::vector<std::string>{"2", "5"}));
  EXPECT_EQ(texts(log_ticks(1e-12, 1, 6)).size(), 5u);  // every third of 13 powers
}

TEST(Figure, MapsDataToPixels) {
  Figure figure({.width = 600, .height = 400, .rows = 2, .columns = 3});
  Axes& axes = figure.at(4);
  axes.x = {.label = "x", .low = 1e-3, .high = 1e3, .is_log = true};
  axes.y = {.label = "y", .low = -2, .high = 6};
  const Figure::Place low = figure.place(4, 1e-3, -2), high = figure.place(4, 1e3, 6);
  const Figure::Place middle = figure.place(4, 1, 2), quarter = figure.place(4, std::pow(10, -1.5), 0);
  EXPECT_GT(low.x, 200);
  EXPECT_LT(high.x, 400);
  EXPECT_LT(low.y, 400);
  EXPECT_GT(high.y, 195);
  EXPECT_NEAR(middle.x, (low.x + high.x) / 2, 1e-9);
  EXPECT_NEAR(middle.y, (low.y + high.y) / 2, 1e-9);
  EXPECT_NEAR(quarter.x, low.x + (high.x - low.x) / 4, 1e-9);
  EXPECT_NEAR(quarter.y, low.y + (high.y - low.y) / 4, 1e-9);
}

TEST(Figure, EqualScalesAreEqual) {
  Figure figure({.width = 700, .height = 300});
  figure.at(0).has_equal_scales = true;
  figure.at(0).x = {.low = -1, .high = 4};
  figure.at(0).y = {.low = 0, .high = 5};
  const Figure::Place from = figure.place(0, 0, 0), to = figure.place(0, 1, 1);
  EXPECT_GT(to.x - from.x, 10);
  EXPECT_NEAR(to.x - from.x, from.y - to.y, 1e-9);
}

TEST(Figure, EveryMarkIsDrawnAtItsPlaceInItsColour) {
  const Color red{0.8, 0.1, 0.1};
  Figure figure({.width = 900, .height = 600, .rows = 2, .columns = 3});
  for (int i = 0; i < 6; ++i) {
    figure.at(i).x = {.low = 0, .high = 4};
    figure.at(i).y = {.low = 0, .high = 4};
  }
  figure.at(0).add(Line{.x = {0, 2, 3, NAN, 3.5, 4}, .y = {1.1, 1.1, 1.1, 1, 1.1, 1.1}, .width = 6});
  figure.at(1).add(Scatter{.x = {2, NAN}, .y = {3, 1}, .color = red, .radius = 5, .alpha = 1});
  figure.at(2).add(HeatMap{.values = {0, 1, 2, 3, 4, 5, 6, 7},
                           .rows = 2,
                           .columns = 4,
                           .x_low = 0,
                           .x_high = 4,
                           .y_low = 0,
                           .y_high = 4});
  figure.at(3).add(Arrows{.x = {1.1, 2.3},
                          .y = {1.1, 2.3},
                          .u = {1, 0},
                          .v = {0, -0.5},
                          .color = red,
                          .width = 6,
                          .longest = 40});
  figure.at(4).add(Histogram{
      .values = {0.5, 0.5, 0.5, 2.5, 3.5, 3.6, 5}, .color = red, .bins = 4, .low = 0, .high = 4, .alpha = 1});
  figure.at(5).add(Band{.x = {0, 2, 4}, .low = {1, 1, 1}, .high = {2, 3, 2}, .color = red, .alpha = 0.5});
  const Image image = figure.draw();
  const auto color = [&](int axes, double x, double y) { return pixel_at(image, figure.place(axes, x, y)); };

  expect_color(color(0, 1.3, 1.1), series_color(0));
  expect_color(color(0, 3.7, 1.1), series_color(0));
  expect_color(color(0, 3.3, 1.1), kWhite);  // interrupted
  expect_color(color(0, 1.3, 1.4), kWhite);
  expect_color(color(1, 2, 3), red);
  for (int row = 0; row < 2; ++row)
    for (int column = 0; column < 4; ++column)
      expect_color(color(2, column + 0.5, 2 * row + 1),
                   map_color(ColorMap::sequential, (4 * row + column) / 7.0), 0.02);
  const Figure::Place first = figure.place(3, 1.1, 1.1), second = figure.place(3, 2.3, 2.3);
  expect_color(pixel_at(image, {first.x + 30, first.y}), red);    // to the right
  expect_color(pixel_at(image, {second.x, second.y + 10}), red);  // downwards, half as long
  expect_color(pixel_at(image, {second.x, second.y + 30}), kWhite);
  // Three of seven values in the first bar of width 1: height 3/7; one lies outside.
  expect_color(color(4, 1.3, 0.3), kWhite);  // an empty bar
  expect_color(color(4, 0.5, 0.2), red);
  expect_color(color(4, 3.5, 0.2), red);
  expect_color(color(5, 2.3, 2.4), {0.9, 0.55, 0.55});
  expect_color(color(5, 0.3, 2.8), kWhite);
}

TEST(Figure, HistogramsAreDensities) {
  Figure figure({});
  figure.at(0).add(Histogram{.values = {1, 1, 1, 3}, .bins = 2, .low = 0, .high = 4});
  // The axis ends a little above the highest bar: 3/4 of the values on a width of 2.
  const Figure::Place top = figure.place(0, 0, 3.0 / 8), frame = figure.place(0, 0, 3.0 / 8 * 1.04);
  EXPECT_NEAR(top.y - frame.y, (figure.place(0, 0, 0).y - frame.y) * 0.04 / 1.04, 1.0);
}

TEST(Figure, RefusesWhatCannotBeDrawn) {
  EXPECT_THROW(Figure({.width = 0}), Error);
  EXPECT_THROW(Figure({.width = 100'000}), Error);
  EXPECT_THROW(Figure({.rows = 0}), Error);
  Figure figure({});
  expect_error({"axes 1 of 1"}, [&] { figure.at(1); });
  expect_error({"one length"}, [&] { figure.at(0).add(Line{.x = {1, 2}, .y = {1}}); });
  expect_error({"one length"}, [&] { figure.at(0).add(HeatMap{{1, 2, 3}, 2, 2, 0, 1, 0, 1}); });
  figure.at(0).y = {.label = "loss", .low = -1, .is_log = true};
  expect_error({"loss", "positive"}, [&] { figure.draw(); });
  figure.at(0).y = {.low = 1, .high = 1};
  expect_error({"must rise"}, [&] { figure.draw(); });
}

TEST(Figure, EmptyAndConstantDataAreDrawn) {
  Figure figure({.width = 300, .height = 200, .columns = 2});
  figure.set_title("nothing");
  figure.at(0).add(Line{.x = {}, .y = {}, .label = "none"});
  figure.at(1).add(Scatter{.x = {3}, .y = {7}, .color = kBlack, .radius = 4, .alpha = 1});
  expect_color(pixel_at(figure.draw(), figure.place(1, 3, 7)), kBlack);
}

TEST(Colors, SequentialMapRisesInLightness) {
  const auto lightness = [](const Color& c) { return 0.2126 * c.red + 0.7152 * c.green + 0.0722 * c.blue; };
  for (int i = 0; i < 100; ++i)
    EXPECT_LT(lightness(map_color(ColorMap::sequential, i / 100.0)),
              lightness(map_color(ColorMap::sequential, (i + 1) / 100.0)));
  EXPECT_EQ(map_color(ColorMap::sequential, -1), map_color(ColorMap::sequential, 0));
  EXPECT_EQ(map_color(ColorMap::sequential, NAN), kGrey);
  const Color low = map_color(ColorMap::diverging, 0), high = map_color(ColorMap::diverging, 1);
  EXPECT_GT(low.blue, low.red + 0.2);
  EXPECT_GT(high.red, high.blue + 0.2);
}

/// Plays a GIF back: the screen after each frame.
std::vector<Image> play(const std::filesystem::path& path) {
  int code = 0;
  GifFileType* const gif = DGifOpenFileName(path.c_str(), &code);
  if (gif == nullptr || DGifSlurp(gif) != GIF_OK) return {};
  Image screen{gif->SHeight, gif->SWidth, 3, {}};
  screen.pixels.resize(static_cast<std::size_t>(gif->SHeight) * static_cast<std::size_t>(gif->SWidth) * 3);
  std::vector<Image> frames;
  for (int f = 0; f < gif->ImageCount; ++f) {
    const SavedImage& saved = gif->SavedImages[f];
    const GifImageDesc& at = saved.ImageDesc;
    GraphicsControlBlock control{};
    EXPECT_EQ(DGifSavedExtensionToGCB(gif, f, &control), GIF_OK);
    EXPECT_EQ(control.DelayTime, 7);
    for (int y = 0; y < at.Height; ++y)
      for (int x = 0; x < at.Width; ++x) {
        const int index = saved.RasterBits[y * at.Width + x];
        if (index == control.TransparentColor) continue;
        const GifColorType& color = gif->SColorMap->Colors[index];
        std::uint8_t* const to =
            &screen.pixels[static_cast<std::size_t>((y + at.Top) * gif->SWidth + x + at.Left) * 3];
        to[0] = color.Red;
        to[1] = color.Green;
        to[2] = color.Blue;
      }
    frames.push_back(screen);
  }
  DGifCloseFile(gif, &code);
  return frames;
}

TEST(Gif, ReadsBackFrameByFrame) {
  const TempFolder folder;
  std::vector<Image> images;
  for (int f = 0; f < 4; ++f) {
    Image image{13, 17, 3, std::vector<std::uint8_t>(13 * 17 * 3, 255)};
    for (int i = 0; i < 3; ++i)  // a dark square that moves
      for (int j = 0; j < 3; ++j) image.pixels[static_cast<std::size_t>((2 * f + i) * 17 + f + j) * 3] = 8;
    images.push_back(image);
  }
  images.push_back(images.back());  // nothing changes
  write_gif(folder.path() / "a.gif", images, 7);
  EXPECT_EQ(play(folder.path() / "a.gif"), images);  // two colours: nothing is lost
}

TEST(Gif, ManyColoursStayClose) {
  const TempFolder folder;
  std::vector<Image> images(2, Image{64, 64, 3, {}});
  for (Image& image : images)
    for (int y = 0; y < 64; ++y)
      for (int x = 0; x < 64; ++x)
        for (const int value : {4 * x, 4 * y, 128}) image.pixels.push_back(static_cast<std::uint8_t>(value));
  write_gif(folder.path() / "a.gif", images, 7);
  const std::vector<Image> read = play(folder.path() / "a.gif");
  ASSERT_EQ(read.size(), 2u);
  double error = 0;
  for (std::size_t i = 0; i < read[1].pixels.size(); ++i)
    error += std::abs(read[1].pixels[i] - images[1].pixels[i]);
  EXPECT_LT(error / static_cast<double>(read[1].pixels.size()), 4.0);
}

TEST(Gif, RefusesUnequalImagesAndLeavesNothing) {
  const TempFolder folder;
  const Image small{1, 2, 3, std::vector<std::uint8_t>(6)}, large{2, 2, 3, std::vector<std::uint8_t>(12)};
  expect_error({"b.gif", "at least one"}, [&] { write_gif(folder.path() / "b.gif", {}); });
  expect_error({"b.gif", "one size"}, [&] {
    write_gif(folder.path() / "b.gif", std::vector<Image>{small, large});
  });
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "b.gif"));
}

}  // namespace
}  // namespace sgm
