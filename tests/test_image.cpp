// Image codecs, resizing, grids, and the two ways to bytes.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "data_samples.h"
#include "expect_error.h"
#include "sgm/core/pixel.h"
#include "sgm/data/image.h"
#include "temp_folder.h"

namespace sgm {
namespace {

Image decode(const std::string& file) { return decode_image(std::as_bytes(std::span(file)), "x.img"); }

/// Sizes that are odd, tall, wide and single.
constexpr int kSizes[][2] = {{1, 1}, {5, 7}, {13, 3}, {32, 32}, {1, 17}};

TEST(Image, LosslessFormatsRoundTrip) {
  for (const auto& [height, width] : kSizes)
    for (const int channels : {1, 3}) {
      const Image image = samples::image(height, width, channels);
      EXPECT_EQ(decode(samples::png(image)), image);
      EXPECT_EQ(decode(samples::pnm(image)), image);
      EXPECT_EQ(decode(samples::bmp(image)), convert_channels(image, 3));
    }
}

TEST(Image, JpegOfAFlatImageIsTheImage) {
  for (const int channels : {1, 3}) {
    Image flat{11, 9, channels, std::vector<std::uint8_t>(11 * 9 * static_cast<std::size_t>(channels), 200)};
    const Image image = convert_channels(decode(samples::jpeg(flat)), channels);
    ASSERT_EQ(image.height, 11);
    ASSERT_EQ(image.width, 9);
    for (const std::uint8_t value : image.pixels) EXPECT_NEAR(value, 200, 2);
  }
}

TEST(Image, OtherMaximaOfPortableMapsAreRescaled) {
  EXPECT_EQ(decode(std::string("P5 3 1 100\n\0\x32\x64", 14)).pixels,
            (std::vector<std::uint8_t>{0, 128, 255}));
  EXPECT_EQ(decode(std::string("P5\t2#two\n1\n65535\n\x80\x00\xff\xff", 21)).pixels,
            (std::vector<std::uint8_t>{128, 255}));
}

/// A PNG of two grey pixels with alpha: black at alpha 0 and value 100 at alpha 51 (a fifth).
TEST(Image, TransparencyIsLaidOverWhite) {
  const unsigned char file[] = {0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d,
                                0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x01,
                                0x08, 0x04, 0x00, 0x00, 0x00, 0x5e, 0x2b, 0xb7, 0x01, 0x00, 0x00, 0x00,
                                0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0xda, 0x63, 0x60, 0x60, 0x48, 0x31,
                                0x06, 0x00, 0x01, 0x00, 0x00, 0x98, 0x34, 0x64, 0xa1, 0xc3, 0x00, 0x00,
                                0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82};
  const Image image = decode({reinterpret_cast<const char*>(file), sizeof file});
  EXPECT_EQ(image.channels, 1);
  EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{255, 224}));
}

TEST(Image, FilesRoundTripAndErrorsNameThem) {
  const TempFolder folder;
  const Image image = samples::image(4, 6, 3);
  write_png(folder.path() / "a.png", image);
  EXPECT_EQ(read_image(folder.path() / "a.png"), image);
  expect_error({"b.png"}, [&] { read_image(folder.path() / "b.png"); });
  EXPECT_THROW(write_png(folder.path() / "c.png", Image{2, 2, 3, {1}}), Error);
  EXPECT_THROW(write_png(folder.path() / "c.png", Image{}), Error);
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "c.png"));
}

TEST(Image, EveryTruncationIsAnError) {
  const Image image = samples::image(5, 7, 3);
  for (const std::string& whole :
       {samples::png(image), samples::jpeg(image), samples::bmp(image), samples::pnm(image)})
    for (std::size_t size = 0; size < whole.size(); ++size)
      expect_error({"x.img"}, [&] { decode(whole.substr(0, size)); });
}

TEST(Image, EveryFlippedBitOfAPngIsAnError) {
  const std::string whole = samples::png(samples::image(5, 7, 3));
  for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    expect_error({"x.img"}, [&] { decode(damaged); });
  }
}

TEST(Image, HeadersThatPromiseTooMuchAreRefused) {
  expect_error({"x.img", "damaged"}, [] { decode("P6 30000 2000 255\n"); });
  expect_error({"x.img", "larger"}, [] { decode("P6 40000 10 255\n" + std::string(1 << 21, 'x')); });
  expect_error({"x.img"}, [] { decode("P6 0 10 255\nxxx"); });
  expect_error({"x.img"}, [] { decode("P6 1 1 0\nxxx"); });
  expect_error({"x.img"}, [] { decode("P6 99999999999999999999 1 255\nxxx"); });
  expect_error({"x.img", "empty"}, [] { decode(""); });
  expect_error({"x.img", "PNG"}, [] { decode("GIF89a and so on"); });
  std::string bmp = samples::bmp(samples::image(4, 4, 3));
  bmp[20] = '\x7f';  // third byte of the width
  expect_error({"x.img"}, [&] { decode(bmp); });
}

TEST(Image, JpegsThatWouldHarmTheDecoderAreRefused) {
  const std::string whole = samples::jpeg(samples::image(5, 7, 3));
  std::string damaged = whole;
  damaged[damaged.find("\xff\xc4") + 5 + 15] = '\xff';  // 255 more codes of 16 bits
  expect_error({"x.img", "Huffman"}, [&] { decode(damaged); });
  const std::size_t scan = whole.find("\xff\xda");
  std::string repeated = whole;
  for (int i = 0; i < 300; ++i) repeated.insert(scan, whole.substr(scan, whole.size() - 2 - scan));
  expect_error({"x.img", "scans"}, [&] { decode(repeated); });
}

TEST(Image, ChannelsConvert) {
  const Image rgb{1, 3, 3, {255, 0, 0, 0, 255, 0, 10, 20, 30}};
  const Image grey = convert_channels(rgb, 1);
  EXPECT_EQ(grey.pixels, (std::vector<std::uint8_t>{76, 150, 18}));  // 76.245, 149.685, 18.15
  EXPECT_EQ(convert_channels(grey, 3).pixels,
            (std::vector<std::uint8_t>{76, 76, 76, 150, 150, 150, 18, 18, 18}));
  EXPECT_EQ(convert_channels(rgb, 3), rgb);
  EXPECT_THROW(convert_channels(rgb, 2), Error);
}

/// The resize as its definition reads: a weighted mean over all pixels, weights from the distance of the
/// centres.
std::vector<double> resize_by_definition(const Image& image, int size) {
  const int shorter = std::min(image.height, image.width);
  const auto full = [&](int side) {
    return static_cast<int>(std::floor(static_cast<double>(side) * size / shorter + 0.5));
  };
  const int full_height = full(image.height), full_width = full(image.width);
  const auto weight = [](int in, int out, int i, int j) {
    const double scale = static_cast<double>(in) / out, radius = std::max(1.0, scale);
    return std::max(0.0, 1 - std::abs(j + 0.5 - (i + 0.5) * scale) / radius);
  };
  std::vector<double> result;
  for (int y = (full_height - size) / 2; y < (full_height - size) / 2 + size; ++y)
    for (int x = (full_width - size) / 2; x < (full_width - size) / 2 + size; ++x)
      for (int c = 0; c < image.channels; ++c) {
        double sum = 0, weights = 0;
        for (int v = 0; v < image.height; ++v)
          for (int u = 0; u < image.width; ++u) {
            const double w = weight(image.height, full_height, y, v) * weight(image.width, full_width, x, u);
            sum += w * image.pixels[static_cast<std::size_t>((v * image.width + u) * image.channels + c)];
            weights += w;
          }
        result.push_back(sum / weights);
      }
  return result;
}

TEST(Resize, FollowsItsDefinition) {
  for (const auto& [height, width] : kSizes)
    for (const int size : {1, 2, 7, 32, 45}) {
      const Image image = samples::image(height, width, 3);
      const std::vector<double> expected = resize_by_definition(image, size);
      const Image actual = resize_and_crop(image, size);
      ASSERT_EQ(actual.height, size);
      ASSERT_EQ(actual.width, size);
      ASSERT_EQ(actual.pixels.size(), expected.size());
      // Rounded to the nearest byte; the sums are formed in float.
      for (std::size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(actual.pixels[i], expected[i], 0.5 + 1e-3)
            << height << " x " << width << " to " << size << " at " << i;
    }
}

TEST(Resize, KnownValues) {
  const Image image{2, 4, 1, {0, 70, 140, 210, 0, 70, 140, 210}};
  EXPECT_EQ(resize_and_crop(image, 2).pixels, (std::vector<std::uint8_t>{70, 140, 70, 140}));  // a pure crop
  // Each half of the row: 3/7 of the nearer two pixels, 1/7 of the third, when 4 become 2.
  const Image row{4, 4, 1, {0, 70, 140, 210, 0, 70, 140, 210, 0, 70, 140, 210, 0, 70, 140, 210}};
  EXPECT_EQ(resize_and_crop(row, 2).pixels, (std::vector<std::uint8_t>{50, 160, 50, 160}));
  EXPECT_EQ(resize_and_crop(row, 4), row);
  EXPECT_THROW(resize_and_crop(row, 0), Error);
  EXPECT_THROW(resize_and_crop(Image{}, 4), Error);
}

TEST(Grid, PlacesImagesRowByRow) {
  const std::vector<Image> images(5, Image{1, 1, 1, {9}});
  const Image grid = make_grid(images, 0, 1);  // floor(sqrt(5)) = 2 columns, 3 rows
  EXPECT_EQ(grid.height, 7);
  EXPECT_EQ(grid.width, 5);
  for (int y = 0; y < 7; ++y)
    for (int x = 0; x < 5; ++x) {
      const bool is_image = y % 2 == 1 && x % 2 == 1 && (y / 2) * 2 + x / 2 < 5;
      EXPECT_EQ(grid.pixels[static_cast<std::size_t>(5 * y + x)], is_image ? 9 : 0) << y << ", " << x;
    }
}

TEST(Grid, DefaultsAndOddCases) {
  const Image image = samples::image(3, 5, 3);
  EXPECT_EQ(make_grid(std::vector<Image>{image}), image);
  const Image grid = make_grid(std::vector<Image>(4, image));
  EXPECT_EQ(grid.height, 2 + 2 * (3 + 2));
  EXPECT_EQ(grid.width, 2 + 2 * (5 + 2));
  EXPECT_EQ(make_grid(std::vector<Image>(3, image), 8, 0).width, 15);  // never wider than the images
  EXPECT_THROW(make_grid({}), Error);
  EXPECT_THROW(make_grid(std::vector<Image>{image, samples::image(5, 3, 3)}), Error);
}

TEST(Pixels, SamplesAreTruncatedAndPicturesRounded) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(to_byte(0.5f, PixelRule::truncate), 127);
  EXPECT_EQ(to_byte(0.5f, PixelRule::round), 128);
  EXPECT_EQ(to_byte(254.999f / 255.0f, PixelRule::truncate), 254);
  EXPECT_EQ(to_byte(254.999f / 255.0f, PixelRule::round), 255);
  for (const PixelRule rule : {PixelRule::truncate, PixelRule::round}) {
    EXPECT_EQ(to_byte(0.0f, rule), 0);
    EXPECT_EQ(to_byte(1.0f, rule), 255);
    EXPECT_EQ(to_byte(-3.0f, rule), 0);
    EXPECT_EQ(to_byte(7.0f, rule), 255);
    EXPECT_EQ(to_byte(nan, rule), 0);
    EXPECT_EQ(to_byte(infinity, rule), 255);
    EXPECT_EQ(to_byte(-infinity, rule), 0);
  }
  for (int k = 0; k < 256; ++k) EXPECT_EQ(to_byte(static_cast<float>(k) / 255.0f, PixelRule::round), k);
}

TEST(Pixels, BatchesAreCutIntoImages) {
  const std::vector<std::uint8_t> pixels{0, 63, 127, 255};
  const std::vector<Image> images = to_images(pixels, {2, 1, 2, 1});
  ASSERT_EQ(images.size(), 2u);
  EXPECT_EQ(images[1], (Image{1, 2, 1, {127, 255}}));
  EXPECT_THROW(to_images(pixels, {2, 1, 2, 3}), Error);
  EXPECT_THROW(to_images(pixels, {4}), Error);
}

}  // namespace
}  // namespace sgm
