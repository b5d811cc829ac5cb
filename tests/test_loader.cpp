// Batches: values, order, augmentation, and independence from how they are asked for.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <set>

#include "expect_error.h"
#include "sgm/data/loader.h"

namespace sgm {
namespace {

/// Image i: every pixel of row y, column x, channel c is a different function of i; the label is i modulo 3.
class Numbered : public Dataset {
 public:
  explicit Numbered(std::int64_t size, int height = 3, int width = 5, int channels = 1)
      : size_(size), height_(height), width_(width), channels_(channels) {}

  std::int64_t size() const override { return size_; }
  int height() const override { return height_; }
  int width() const override { return width_; }
  int channels() const override { return channels_; }
  int label(std::int64_t i) const override { return static_cast<int>(i % 3); }
  int num_classes() const override { return 3; }
  const std::vector<std::string>& class_names() const override { return names_; }
  bool is_in_memory() const override { return in_memory; }
  std::string describe() const override { return "numbers"; }
  void read(std::int64_t i, std::span<std::uint8_t> out) const override {
    check(i != broken, "image ", i, " is broken");
    for (std::size_t e = 0; e < out.size(); ++e) out[e] = byte(i, e);
  }
  static std::uint8_t byte(std::int64_t i, std::size_t element) {
    return static_cast<std::uint8_t>((static_cast<std::size_t>(i) + 41 * element) % 256);
  }

  bool in_memory = true;
  std::atomic<std::int64_t> broken{-1};

 private:
  std::int64_t size_;
  int height_, width_, channels_;
  std::vector<std::string> names_;
};

LoaderOptions plain(int batch_size) { return {.batch_size = batch_size, .seed = 7, .shuffle = false}; }

/// Which image entry j of a batch is, from its first pixel, for sets of up to 256 images.
int image_at(const Batch& batch, std::int64_t j) {
  const std::int64_t per_image = batch.shape[1] * batch.shape[2] * batch.shape[3];
  return static_cast<int>(std::lround(255.0 * batch.images[static_cast<std::size_t>(j * per_image)]));
}

std::vector<int> order_of(const Loader& loader, std::int64_t batches) {
  std::vector<int> order;
  for (std::int64_t k = 0; k < batches; ++k) {
    const Batch batch = loader.at(k);
    for (std::int64_t j = 0; j < batch.shape[0]; ++j) order.push_back(image_at(batch, j));
  }
  return order;
}

void expect_same(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.images, b.images);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.first, b.first);
  EXPECT_EQ(a.shape, b.shape);
}

TEST(Loader, ValuesAreBytesOver255InOrder) {
  for (const int channels : {1, 3}) {
    const Numbered set(5, 3, 5, channels);
    const Batch batch = Loader(set, plain(4)).at(1);
    EXPECT_EQ(batch.shape, (Shape{4, 3, 5, channels}));
    EXPECT_EQ(batch.first, 4);
    ASSERT_EQ(batch.images.size(), static_cast<std::size_t>(batch.shape.numel()));
    for (std::int64_t j = 0; j < 4; ++j) {
      const std::int64_t i = (4 + j) % 5;  // the batch runs into the second epoch
      EXPECT_EQ(batch.labels[static_cast<std::size_t>(j)], i % 3);
      for (std::int64_t e = 0; e < set.image_bytes(); ++e)
        EXPECT_EQ(batch.images[static_cast<std::size_t>(j * set.image_bytes() + e)],
                  static_cast<float>(Numbered::byte(i, static_cast<std::size_t>(e))) / 255.0f);
    }
  }
}

TEST(Loader, CenteredDataLieInMinusOneToOne) {
  const Numbered set(256, 1, 1);
  LoaderOptions options = plain(256);
  options.centered = true;
  const Batch batch = Loader(set, options).at(0);
  EXPECT_EQ(batch.images[0], -1.0f);
  EXPECT_EQ(batch.images[255], 1.0f);
  for (std::size_t i = 0; i < 256; ++i)
    EXPECT_EQ(batch.images[i], 2.0f * (static_cast<float>(i) / 255.0f) - 1.0f);
}

TEST(Loader, EveryEpochIsAnotherPermutation) {
  for (const std::int64_t size : {1, 2, 7, 100}) {
    const Numbered set(size);
    const Loader loader(set, {.batch_size = 1, .seed = 7});
    std::set<std::vector<int>> epochs;
    const std::vector<int> order = order_of(loader, 6 * size);
    for (std::int64_t epoch = 0; epoch < 6; ++epoch) {
      std::vector<int> part(order.begin() + epoch * size, order.begin() + (epoch + 1) * size);
      epochs.insert(part);
      std::ranges::sort(part);
      for (std::int64_t i = 0; i < size; ++i) EXPECT_EQ(part[static_cast<std::size_t>(i)], i);
    }
    if (size == 100) {
      EXPECT_EQ(epochs.size(), 6u);
    }
  }
}

TEST(Loader, TheSequenceDoesNotDependOnTheBatchSize) {
  const Numbered set(10);
  const LoaderOptions base{.batch_size = 1, .seed = 3, .random_flip = true, .uniform_dequantization = true};
  std::vector<float> expected;
  for (std::int64_t k = 0; k < 60; ++k) {
    const Batch batch = Loader(set, base).at(k);
    expected.insert(expected.end(), batch.images.begin(), batch.images.end());
  }
  for (const int size : {3, 4, 10, 30}) {  // 30: a batch of three epochs
    LoaderOptions options = base;
    options.batch_size = size;
    const Loader loader(set, options);
    std::vector<float> actual;
    for (std::int64_t k = 0; k < 60 / size; ++k) {
      const Batch batch = loader.at(k);
      actual.insert(actual.end(), batch.images.begin(), batch.images.end());
    }
    EXPECT_EQ(actual, expected) << size;
  }
}

TEST(Loader, SeedsGiveDifferentOrders) {
  const Numbered set(100);
  const std::vector<int> a = order_of(Loader(set, {.batch_size = 10, .seed = 1}), 10);
  EXPECT_EQ(a, order_of(Loader(set, {.batch_size = 10, .seed = 1}), 10));
  EXPECT_NE(a, order_of(Loader(set, {.batch_size = 10, .seed = 2}), 10));
}

/// Each of the 24 orders of four images must come up; chi-square with 23 degrees of freedom stays below 49.7
/// with probability 0.999.
TEST(Loader, OrdersAreEquallyLikely) {
  const Numbered set(4, 1, 1);
  constexpr int kEpochs = 4800;
  const std::vector<int> order = order_of(Loader(set, {.batch_size = 4, .seed = 11}), kEpochs);
  std::map<std::vector<int>, int> counts;
  for (std::size_t at = 0; at < order.size(); at += 4)
    ++counts[{order.begin() + static_cast<std::ptrdiff_t>(at),
              order.begin() + static_cast<std::ptrdiff_t>(at + 4)}];
  ASSERT_EQ(counts.size(), 24u);
  double chi_square = 0;
  for (const auto& [permutation, count] : counts) chi_square += (count - 200.0) * (count - 200.0) / 200.0;
  EXPECT_LT(chi_square, 49.7);
}

TEST(Loader, NextPrefetchesWhatAtReturns) {
  for (const bool in_memory : {true, false}) {
    Numbered set(23, 4, 3, 3);
    set.in_memory = in_memory;
    const LoaderOptions options{
        .batch_size = 5, .seed = 9, .random_flip = true, .uniform_dequantization = true, .centered = true};
    Loader loader(set, options);
    const Loader reference(set, options);
    for (std::int64_t k = 0; k < 12; ++k) {
      EXPECT_EQ(loader.position(), k);
      expect_same(loader.next(), reference.at(k));
    }
    loader.set_position(3);
    for (std::int64_t k = 3; k < 6; ++k) expect_same(loader.next(), reference.at(k));
    loader.set_position(1000000);
    expect_same(loader.next(), reference.at(1000000));
    expect_same(loader.at(2), reference.at(2));
  }
}

TEST(Loader, FlipsMirrorHalfOfTheImages) {
  const Numbered set(1, 2, 5, 3);
  LoaderOptions options = plain(2000);
  const Batch straight = Loader(set, options).at(0);
  options.random_flip = true;
  const Batch flipped = Loader(set, options).at(0);
  int mirrored = 0;
  for (std::size_t j = 0; j < 2000; ++j) {
    const float* from = straight.images.data() + j * 30;
    const float* to = flipped.images.data() + j * 30;
    const bool is_mirrored = to[0] != from[0];
    mirrored += is_mirrored;
    for (std::size_t y = 0; y < 2; ++y)
      for (std::size_t x = 0; x < 5; ++x)
        for (std::size_t c = 0; c < 3; ++c)
          ASSERT_EQ(to[(y * 5 + x) * 3 + c], from[(y * 5 + (is_mirrored ? 4 - x : x)) * 3 + c]);
  }
  EXPECT_NEAR(mirrored, 1000, 100);  // 4.5 standard deviations
}

TEST(Loader, DequantisationFillsTheBinsUniformly) {
  const Numbered set(256, 4, 4);
  LoaderOptions options = plain(256);
  options.uniform_dequantization = true;
  const Batch batch = Loader(set, options).at(0);
  double sum = 0, squares = 0;
  std::set<float> fractions;
  for (std::size_t at = 0; at < batch.images.size(); ++at) {
    const float scaled = 256.0f * batch.images[at];
    ASSERT_EQ(std::floor(scaled), Numbered::byte(static_cast<std::int64_t>(at / 16), at % 16));
    ASSERT_LT(batch.images[at], 1.0f);
    const double u = scaled - std::floor(scaled);
    sum += u;
    squares += u * u;
    fractions.insert(static_cast<float>(u));
  }
  const double count = static_cast<double>(batch.images.size());
  EXPECT_NEAR(sum / count, 0.5, 0.02);  // the standard deviation of the mean is 0.0045
  EXPECT_NEAR(squares / count, 1.0 / 3.0, 0.02);
  EXPECT_GT(fractions.size(), 3500u);
  // Another epoch draws other values.
  EXPECT_NE(Loader(set, options).at(1).images, batch.images);
}

/// Positions beyond 32 bits must not repeat the draws of small ones.
TEST(Loader, PositionsBeyond32BitsAreDistinct) {
  const Numbered set(2, 4, 4);
  LoaderOptions options = plain(2);
  options.uniform_dequantization = true;
  const Loader loader(set, options);
  const std::int64_t far = std::int64_t{1} << 31;  // batch of position 2^32
  EXPECT_NE(loader.at(0).images, loader.at(far).images);
  EXPECT_EQ(loader.at(far).first, std::int64_t{1} << 32);
}

TEST(Loader, ErrorsInTheBackgroundReachTheCaller) {
  Numbered set(8);
  set.in_memory = false;
  Loader loader(set, plain(2));
  set.broken = 3;
  loader.next();
  expect_error({"image 3"}, [&] { loader.next(); });
  EXPECT_EQ(loader.position(), 1);
  set.broken = -1;
  EXPECT_EQ(loader.next().first, 2);  // the batch can be asked for again
}

TEST(Loader, RefusesWhatMakesNoSense) {
  const Numbered set(8), empty(0), huge(std::int64_t{1} << 33);
  expect_error({"batch size"}, [&] { Loader(set, plain(0)); });
  expect_error({"0 images"}, [&] { Loader(empty, plain(1)); });
  expect_error({"images"}, [&] { Loader(huge, plain(1)); });
  Loader loader(set, plain(2));
  expect_error({"batch -1"}, [&] { loader.at(-1); });
  expect_error({"out of range"}, [&] { loader.at(std::int64_t{1} << 62); });
  expect_error({"-5"}, [&] { loader.set_position(-5); });
}

TEST(ReadImages, AreWhatTheSetHoldsInDataSpace) {
  const auto context = create_context("cpu");
  const Numbered set(9);
  for (const bool centered : {false, true}) {
    const Tensor x = read_images(set, 4, 3, centered, *context);
    EXPECT_EQ(x.shape(), (Shape{3, 3, 5, 1}));
    const std::vector<float> values = x.to_host();
    for (std::int64_t i = 0; i < 3; ++i)
      for (std::size_t e = 0; e < 15; ++e) {
        const float pixel = static_cast<float>(Numbered::byte(4 + i, e)) / 255.0f;
        EXPECT_EQ(values[static_cast<std::size_t>(i) * 15 + e], centered ? 2.0f * pixel - 1.0f : pixel);
      }
  }
  EXPECT_EQ(read_images(set, 9, 0, false, *context).numel(), 0);
  expect_error({"images 8 to 9", "only 9"}, [&] { read_images(set, 8, 2, false, *context); });
  expect_error({"only 9"}, [&] { read_images(set, -1, 2, false, *context); });
}

TEST(ReadImages, AreDequantisedByImageAndDraw) {
  const auto context = create_context("cpu");
  const Numbered set(9);
  const auto read = [&](std::uint32_t draw, std::int64_t first, std::int64_t count, bool centered) {
    return read_images(set, first, count, centered, *context,
                       NoiseKey{3, Purpose::dequantise, draw, static_cast<std::uint32_t>(first)})
        .to_host();
  };
  const std::vector<float> all = read(0, 0, 9, false);
  double sum = 0.0;
  for (std::size_t e = 0; e < all.size(); ++e) {
    const float u =
        256.0f * all[e] - static_cast<float>(Numbered::byte(static_cast<std::int64_t>(e / 15), e % 15));
    EXPECT_TRUE(u >= 0.0f && u < 1.0f) << u;
    sum += static_cast<double>(u);
  }
  EXPECT_NEAR(sum / 135.0, 0.5, 4.0 * 0.29 / std::sqrt(135.0));
  EXPECT_EQ(read(0, 6, 2, false), std::vector<float>(all.begin() + 90, all.begin() + 120));
  EXPECT_NE(read(1, 0, 9, false), all);
  const std::vector<float> centered = read(0, 0, 9, true);
  for (std::size_t e = 0; e < all.size(); ++e) EXPECT_EQ(centered[e], 2.0f * all[e] - 1.0f);
}

}  // namespace
}  // namespace sgm
