// Damaged sets of images of every format: each is an Error of one line that names the file.

#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "data_formats.h"
#include "data_samples.h"
#include "expect_error.h"
#include "sgm/data/dataset.h"
#include "sgm/io/input_file.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;
using samples::image;

class DamagedFormats : public testing::TestWithParam<DataFormat> {};
INSTANTIATE_TEST_SUITE_P(All, DamagedFormats, testing::ValuesIn(data_formats()),
                         [](const auto& test) { return std::string(test.param.name); });

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() != ".txt") files.push_back(entry.path());
  return files;
}

std::string contents(const fs::path& path) { return read_text(path, 1 << 28); }
void overwrite(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// The set as one value, for comparison.
std::string snapshot(const fs::path& path) {
  const auto set = open_dataset(path);
  std::string text = std::to_string(set->size()) + ":" + std::to_string(set->num_classes());
  for (std::int64_t i = 0; i < set->size(); ++i) {
    const Image image = image_of(*set, i);
    (text += std::to_string(set->label(i)) + ":").append(image.pixels.begin(), image.pixels.end());
  }
  return text;
}

/// What is checked of any damage: success, or Error with one line that names the file.
bool opens_or_names(const fs::path& path, const std::string& name) {
  try {
    snapshot(path);
    return true;
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(name), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return false;
  }
}

TEST_P(DamagedFormats, TruncatedFilesAreErrorsThatNameThem) {
  const DataFormat& format = GetParam();
  const TempFolder folder;
  format.write(folder);
  for (const fs::path& file : files_of(folder.path())) {
    const std::string whole = contents(file), name = file.filename().string();
    const bool is_used =
        name.find("t10k") == std::string::npos && !(name == "test_batch.bin" && *format.path == '\0');
    if (!is_used) continue;
    const bool is_cifar = name.ends_with(".bin");
    const std::size_t step = whole.size() / 300 + 1;
    for (std::size_t size = 0; size < whole.size(); size += step) {
      if (is_cifar && size > 0 && size % 3073 == 0) continue;  // fewer records, but whole ones
      overwrite(file, whole.substr(0, size));
      EXPECT_FALSE(opens_or_names(folder.path() / format.path, name)) << name << " cut to " << size;
    }
    overwrite(file, whole);
  }
}

TEST_P(DamagedFormats, FlippedBitsOfPixelsWithChecksumsAreNoticed) {
  const DataFormat& format = GetParam();
  const TempFolder folder;
  format.write(folder);
  const fs::path path = folder.path() / format.path;
  const std::string good = snapshot(path);
  for (const fs::path& file : files_of(folder.path())) {
    const std::string whole = contents(file), name = file.filename().string();
    const std::size_t step = whole.size() / 300 + 1;
    for (std::size_t at = 0; at < whole.size(); at += step) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
      overwrite(file, damaged);
      const bool has_checksum = file.extension() == ".png" || file.extension() == ".gz";
      const bool opens = opens_or_names(path, has_checksum ? name : folder.path().filename().string());
      if (opens && has_checksum) {
        EXPECT_EQ(snapshot(path), good) << name << " at " << at;
      }
    }
    overwrite(file, whole);
  }
}

/// One bad file and what the message must say beside its name.
struct BadFile {
  const char* path;
  std::string content;
  const char* reason;
};

std::vector<BadFile> bad_files() {
  const std::string png = samples::png(image(2, 2, 1)),
                    byte = samples::npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1)}", "x");
  const auto array = [](const char* type, const char* shape, const std::string& data) {
    return samples::npy(
        "{'descr': '" + std::string(type) + "', 'fortran_order': False, 'shape': " + shape + "}", data);
  };
  const auto labelled = [&](const std::string& json) {
    return samples::zip({{"a.png", png}, {"dataset.json", json}});
  };
  const auto labels = [&](const std::string& y) { return samples::zip({{"x.npy", byte}, {"y.npy", y}}); };
  const float two = 2.0f, nan = std::numeric_limits<float>::quiet_NaN();
  const auto bytes_of = [](float value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  };
  return {
      {"x.idx", samples::idx({3}, "abc"), "labels"},
      {"x.idx", samples::idx({1, 3}, "abc"), "rank 2"},
      {"x.idx", samples::idx({0, 2, 2}, ""), "size 0 is 0"},
      {"x.idx", samples::idx({4000000000u, 4000000000u, 4000000000u}, "abc"), "larger than any file"},
      {"x.idx", samples::idx({2, 2, 2}, std::string(9, 'x')), "promises 8 bytes"},
      {"x.idx", samples::idx({1, 2, 2}, std::string(16, 'x'), 13), "element type 13"},
      {"x.idx", samples::idx({1, 1, 1, 4}, std::string(4, 'x')), "1 or 3 channels"},
      {"x.idx", samples::idx({1, 1, 1, 1, 1}, "x"), "rank 5"},
      {"images.gz", samples::gzip("just text"), "not an IDX file"},
      {"images.gz", "just text", "not an IDX file"},
      {"x.bin", std::string(3000, '\0'), "3073"},
      {"x.bin", std::string(3073, '\x0a'), "label 10"},
      {"x.npy", "just text", ".npy"},
      {"x.npy", png, ".npy"},
      {"x.npy", array("<i4", "(1, 1, 1)", "1234"), "i32"},
      {"x.npy", array("|u1", "(4,)", "1234"), "[N, H, W]"},
      {"x.npy", array("|u1", "(1, 3, 2, 2)", std::string(12, 'x')), "channels"},
      {"x.npy", array("|u1", "(0, 2, 2)", ""), "no images"},
      {"x.npy", array("|u1", "(1, 0, 2)", ""), "no images"},
      {"x.npy", array("|u1", "(1000000, 100000, 100000)", "x"), "bytes"},
      {"x.npy", array("<f4", "(1, 1, 1)", bytes_of(two)), "[0, 1]"},
      {"x.npy", array("<f4", "(1, 1, 1)", bytes_of(nan)), "[0, 1]"},
      {"x.npz", "just text", "not a zip"},
      {"x.npz", samples::zip({{"z.npy", byte}}), "arr_0"},
      {"x.npz", samples::zip({{"a.png", png}}), "a.png"},
      {"x.npz", labels(array("|u1", "(2,)", "ab")), "2 labels for 1 images"},
      {"x.npz", labels(array("<f4", "(1,)", "abcd")), "integers"},
      {"x.npz", labels(array("<i8", "(1,)", std::string(8, '\xff'))), "label 0 is -1"},
      {"x.npz", labels(array("<i8", "(1,)", std::string("\0\0\0\0\1\0\0\0", 8))), "label 0 is"},
      {"x.zip", "just text", "not a zip"},
      {"x.zip", samples::zip({}), "x.zip"},
      {"x.zip", samples::zip({{"readme.txt", "hello"}}), "no images"},
      {"x.zip", samples::zip({{"a.png", "hello"}}), "a.png"},
      {"x.zip", samples::zip({{"a.png", ""}}), "a.png"},
      {"x.zip", labelled("{"), "dataset.json"},
      {"x.zip", labelled("\xff\xfe\n\n"), "dataset.json"},
      {"x.zip", labelled("[]"), "object"},
      {"x.zip", labelled(R"({"labels": 3})"), "list"},
      {"x.zip", labelled(R"({"labels": []})"), "no label for 'a.png'"},
      {"x.zip", labelled(R"({"labels": [["a.png"]]})"), "label 0"},
      {"x.zip", labelled(R"({"labels": [["a.png", 1.5]]})"), "label 0"},
      {"x.zip", labelled(R"({"labels": [["a.png", -1]]})"), "a.png"},
      {"x.zip", labelled(R"({"labels": [["a.png", 99999999999999]]})"), "a.png"},
      {"x.zip", labelled(R"({"labels": [["a.png", 1], ["a.png", 1]]})"), "two labels"},
      {"x.zip", labelled(R"({"labels": [["a.png", 1]], "classes": ["only"]})"), "1 classes have names"},
      {"x.zip", labelled(R"({"labels": [["a.png", 0]], "classes": [7]})"), "classes"},
      {"x.zip", labelled(std::string(100000, '[')), "dataset.json"},
      {"x.zip", "", "empty"},
      {"x.png", png, "known are"},
      {"x", "just text", "known are"},
      {"x.tar", std::string(1024, '\0'), "x.tar"},
  };
}

TEST(DamagedData, BadFilesAreErrorsThatSayWhy) {
  int row = 0;
  for (const BadFile& bad : bad_files()) {
    SCOPED_TRACE(row++);
    const TempFolder folder;
    const fs::path path = folder.write(bad.path, bad.content);
    expect_error({bad.path, bad.reason}, [&] { open_dataset(path); });
  }
}

}  // namespace
}  // namespace sgm
