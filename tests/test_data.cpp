// Sets of images: every format opened and checked against what was written, the shipped sets.

#include <gtest/gtest.h>
#include <unistd.h>

#include "data_formats.h"
#include "data_samples.h"
#include "expect_error.h"
#include "sgm/data/dataset.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;
using samples::image;

std::vector<int> labels_of(const Dataset& set) {
  std::vector<int> labels;
  for (std::int64_t i = 0; i < set.size(); ++i) labels.push_back(set.label(i));
  return labels;
}

class Formats : public testing::TestWithParam<DataFormat> {};
INSTANTIATE_TEST_SUITE_P(All, Formats, testing::ValuesIn(data_formats()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(Formats, OpenWithWhatWasWritten) {
  const DataFormat& format = GetParam();
  const TempFolder folder;
  format.write(folder);
  const auto set = open_dataset(folder.path() / format.path);
  ASSERT_EQ(set->size(), static_cast<std::int64_t>(format.images.size()));
  for (std::int64_t i = 0; i < set->size(); ++i)
    EXPECT_EQ(image_of(*set, i), format.images[static_cast<std::size_t>(i)]) << i;
  EXPECT_EQ(labels_of(*set), format.labels);
  EXPECT_EQ(set->num_classes(), format.num_classes);
  EXPECT_TRUE(set->class_names().empty() ||
              static_cast<int>(set->class_names().size()) == set->num_classes());
  EXPECT_TRUE(set->is_in_memory());
  EXPECT_NE(set->describe().find(folder.path().native()), std::string::npos);
  EXPECT_EQ(set->describe().find('\n'), std::string::npos);
}

TEST_P(Formats, ResizeAndConvertChannels) {
  const DataFormat& format = GetParam();
  const TempFolder folder;
  format.write(folder);
  for (const int channels : {1, 3}) {
    const auto set = open_dataset(folder.path() / format.path, 4, channels);
    for (std::int64_t i = 0; i < set->size(); ++i) {
      const Image& original = format.images[static_cast<std::size_t>(i)];
      EXPECT_EQ(image_of(*set, i), resize_and_crop(convert_channels(original, channels), 4)) << i;
    }
  }
}

TEST_P(Formats, ReadingOutsideTheSetOrIntoTheWrongSizeIsAnError) {
  const TempFolder folder;
  GetParam().write(folder);
  const auto set = open_dataset(folder.path() / GetParam().path);
  std::vector<std::uint8_t> buffer(static_cast<std::size_t>(set->image_bytes()) + 1);
  const std::span<std::uint8_t> right(buffer.data(), buffer.size() - 1);
  EXPECT_THROW(set->read(-1, right), Error);
  EXPECT_THROW(set->read(set->size(), right), Error);
  EXPECT_THROW(set->label(set->size()), Error);
  EXPECT_THROW(set->read(0, buffer), Error);
}

TEST(OpenDataset, ShippedMnist) {
  const fs::path data = fs::path(SGM_SOURCE_DIR) / "data";
  for (const fs::path& path : {data / "mnist10k-images-idx3-ubyte.gz", data}) {
    const auto set = open_dataset(path);
    EXPECT_EQ(set->size(), 10000);
    EXPECT_EQ(set->height(), 28);
    EXPECT_EQ(set->width(), 28);
    EXPECT_EQ(set->channels(), 1);
    EXPECT_EQ(set->num_classes(), 10);
    std::vector<int> counts(10);
    for (const int label : labels_of(*set)) ++counts[static_cast<std::size_t>(label)];
    for (const int count : counts) EXPECT_GT(count, 800);
  }
}

TEST(OpenDataset, ShippedTwemoji) {
  const auto set = open_dataset(fs::path(SGM_SOURCE_DIR) / "data" / "twemoji32.zip");
  EXPECT_EQ(set->size(), 3786);
  EXPECT_EQ(set->height(), 32);
  EXPECT_EQ(set->width(), 32);
  EXPECT_EQ(set->channels(), 3);
  EXPECT_EQ(set->num_classes(), 10);
  ASSERT_EQ(set->class_names().size(), 10u);
  EXPECT_EQ(set->class_names()[1], "Animals & Nature");
  EXPECT_EQ(set->label(0), 8);
  EXPECT_EQ(image_of(*set, 0).pixels[0], 255);  // white corner
}

/// Small files pretend to be a set that is too large for memory: a sparse .npy of 600 MB.
TEST(OpenDataset, LargeSetsAreReadPieceByPiece) {
  const TempFolder folder;
  constexpr std::int64_t kCount = 600, kSide = 1000;
  const std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (600, 1000, 1000), }\n";
  const fs::path path = folder.write("big.npy", samples::npy(header, "\x2a"));
  const std::uint64_t start = fs::file_size(path) - 1;
  fs::resize_file(path, start + kCount * kSide * kSide);
  const auto set = open_dataset(path);
  EXPECT_FALSE(set->is_in_memory());
  EXPECT_EQ(set->size(), kCount);
  EXPECT_EQ(image_of(*set, 0).pixels[0], 0x2a);
  EXPECT_EQ(image_of(*set, kCount - 1).pixels.back(), 0);
  EXPECT_TRUE(open_dataset(path, 8)->is_in_memory());
}

TEST(OpenDataset, MixedSizesAndChannelsNeedAnInstruction) {
  const TempFolder folder;
  folder.write("a.png", samples::png(image(4, 6, 3)));
  folder.write("b.png", samples::png(image(6, 4, 1)));
  expect_error({"b.png", "data.num_channels"}, [&] { open_dataset(folder.path()); });
  expect_error({"b.png", "data.image_size"}, [&] { open_dataset(folder.path(), 0, 3); });
  EXPECT_EQ(open_dataset(folder.path(), 4, 3)->size(), 2);
  expect_error({"data.image_size"}, [&] { open_dataset(folder.path(), -1); });
  expect_error({"data.image_size"}, [&] { open_dataset(folder.path(), 1 << 20); });
  expect_error({"data.num_channels"}, [&] { open_dataset(folder.path(), 0, 2); });
}

TEST(OpenDataset, TheFirstImagesOfASet) {
  DataConfig config;
  config.path = std::string(SGM_SOURCE_DIR) + "/data/mnist10k-images-idx3-ubyte.gz";
  config.image_size = 28, config.num_channels = 1;
  const auto whole = open_dataset(config);
  config.count = 900;
  const auto part = open_dataset(config);
  EXPECT_EQ(part->size(), 900);
  EXPECT_EQ(part->num_classes(), 10);
  EXPECT_EQ(part->label(899), whole->label(899));
  std::vector<std::uint8_t> ours(784), theirs(784);
  part->read(899, ours), whole->read(899, theirs);
  EXPECT_EQ(ours, theirs);
  expect_error({"image 900 of 900"}, [&] { part->read(900, ours); });
  config.count = 10001;
  expect_error({"data.count", "10000", "10001"}, [&] { open_dataset(config); });
}

TEST(OpenDataset, PathsThatCannotBeRead) {
  const TempFolder folder;
  expect_error({"data.path"}, [] { open_dataset(""); });
  expect_error({"missing.zip", "No such file"}, [&] { open_dataset(folder.path() / "missing.zip"); });
  expect_error({folder.path().native(), "no images"}, [&] { open_dataset(folder.path()); });
  expect_error({"/dev/null", "not a regular file"}, [] { open_dataset("/dev/null"); });
  fs::create_symlink("loop", folder.path() / "loop");
  expect_error({"loop"}, [&] { open_dataset(folder.path() / "loop"); });
}

TEST(OpenDataset, PathsWithoutPermission) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TempFolder folder;
  const fs::path file = folder.write("set/a.png", samples::png(image(2, 2, 1)));
  fs::permissions(file, fs::perms::none);
  expect_error({"a.png", "Permission denied"}, [&] { open_dataset(file.parent_path()); });
  fs::permissions(file.parent_path(), fs::perms::none);
  expect_error({"set", "Permission denied"}, [&] { open_dataset(file.parent_path()); });
  fs::permissions(file.parent_path(), fs::perms::owner_all);
}

TEST(OpenDataset, LabelsBesideIdxImagesMustFit) {
  const TempFolder folder;
  const fs::path path = folder.write("a-images-idx3-ubyte", samples::idx({2, 1, 1}, "ab"));
  EXPECT_EQ(open_dataset(path)->num_classes(), 0);
  folder.write("a-labels-idx1-ubyte", samples::idx({3}, "abc"));
  expect_error({"a-labels-idx1-ubyte", "3 labels for 2 images"}, [&] { open_dataset(path); });
  folder.write("a-labels-idx1-ubyte", samples::idx({2, 1}, "ab"));
  expect_error({"a-labels-idx1-ubyte", "rank 2"}, [&] { open_dataset(path); });
  folder.write("b-images-idx3-ubyte", samples::idx({2, 1, 1}, "ab"));
  expect_error({folder.path().native(), "several"}, [&] { open_dataset(folder.path()); });
}

}  // namespace
}  // namespace sgm
