// safetensors files: contents, order, lazy reading, damage, full disks.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "expect_error.h"
#include "sgm/io/append_file.h"
#include "sgm/io/safetensors.h"
#include "temp_folder.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

std::string file_of(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + std::string(data_bytes, '\x3f');
}

std::string safetensors_error(const std::string& file) {
  return error_of([&] { parse_safetensors(std::as_bytes(std::span(file)), "x.safetensors"); });
}

/// While it lives, files of this process cannot grow beyond `bytes`: writing fails as on a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
};

class Files : public testing::Test {
 protected:
  std::size_t file_count() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }

  const TempFolder temporary_;
  const fs::path folder_ = temporary_.path();
};
using SafeTensorsFiles = Files;

const std::vector<float> kWeights = {1.5f, -2.0f, 0.0f, 3.25f, 1e-30f, 7.0f};
const std::vector<std::uint8_t> kPixels = {0, 127, 255};
const std::vector<double> kScalar = {0.1};
const std::vector<std::int64_t> kSteps = {-1, 1ll << 40};

std::vector<SafeTensorView> small_entries() {
  return {{"pixels \"\\ü", DType::u8, {3}, kPixels.data()},
          {"model.w", DType::f32, {1, 2, 3, 1}, kWeights.data()},
          {"empty", DType::f32, {0, 5}, nullptr},
          {"scalar", DType::f64, {}, kScalar.data()},
          {"steps", DType::i64, {2}, kSteps.data()}};
}

const std::map<std::string, std::string> kMetadata = {{"config", "[sde]\nname = \"vesde\"\n"}, {"step", "7"}};

void expect_small_entries(const SafeTensors& file) {
  EXPECT_EQ(file.metadata, kMetadata);
  ASSERT_EQ(file.tensors.size(), 5u);
  for (const SafeTensorView& entry : small_entries()) {
    ASSERT_TRUE(file.tensors.count(entry.name)) << entry.name;
    const Array& array = file.tensors.at(entry.name);
    EXPECT_EQ(array.dtype, entry.dtype);
    EXPECT_EQ(array.shape, entry.shape);
    ASSERT_EQ(array.bytes.size(), static_cast<std::size_t>(entry.shape.numel()) * size_of(entry.dtype));
    const std::string_view read(reinterpret_cast<const char*>(array.bytes.data()), array.bytes.size());
    EXPECT_EQ(read, std::string_view(static_cast<const char*>(entry.data), array.bytes.size()));
  }
}

TEST_F(SafeTensorsFiles, ReadBackWhatWasWritten) {
  const fs::path path = folder_ / "a.safetensors";
  save_safetensors(path, small_entries(), kMetadata);
  expect_small_entries(load_safetensors(path));
  const std::string bytes = text_of_file(path);
  expect_small_entries(parse_safetensors(std::as_bytes(std::span(bytes)), "memory"));
  EXPECT_EQ(file_count(), 1u);
  save_safetensors(path, {}, {});  // replaces
  EXPECT_EQ(text_of_file(path), std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
  EXPECT_TRUE(load_safetensors(path).tensors.empty());
}

TEST_F(SafeTensorsFiles, AreReadOneTensorAtATime) {
  const fs::path path = folder_ / "a.safetensors";
  save_safetensors(path, small_entries(), kMetadata);
  const SafeTensorsFile file(path);
  EXPECT_EQ(file.metadata(), kMetadata);
  ASSERT_EQ(file.tensors().size(), 5u);
  for (const SafeTensorInfo& info : file.tensors())
    EXPECT_EQ(info.offset % size_of(info.dtype), 0u) << info.name << " is not aligned";
  EXPECT_EQ(file.tensors().back().name, "pixels \"\\ü");
  EXPECT_EQ(file.find("nothing"), nullptr);
  const SafeTensorInfo* info = file.find("model.w");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->shape, (Shape{1, 2, 3, 1}));
  std::vector<float> values(6);
  file.read(*info, std::as_writable_bytes(std::span(values)));
  EXPECT_EQ(values, kWeights);
  expect_contains(error_of([&] { file.read(*info, std::as_writable_bytes(std::span(values).first(5))); }),
                  "tensor 'model.w' has 24 bytes, asked to fill 20");
}

TEST(SafeTensors, OrderAndTypesOfOtherWritersAreAccepted) {
  // Data order differs from the header's, BOOL, blanks at the end, an empty tensor between two others.
  const std::string file = file_of(
      R"({"b":{"shape":[2],"data_offsets":[4,6],"dtype":"BOOL"},"a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},)"
      R"("e":{"dtype":"I32","shape":[0],"data_offsets":[4,4]}}    )",
      6);
  const SafeTensors content = parse_safetensors(std::as_bytes(std::span(file)), "x");
  EXPECT_EQ(content.tensors.at("b").dtype, DType::u8);
  EXPECT_EQ(content.tensors.at("a").dtype, DType::f16);
  EXPECT_EQ(content.tensors.at("a").shape, (Shape{2, 1}));
  EXPECT_EQ(content.tensors.at("e").bytes.size(), 0u);
}

TEST(SafeTensors, DamagedHeadersAreRefusedWithTheReason) {
  struct Case {
    std::string header;
    std::size_t data;
    const char* reason;
  };
  const std::string ok = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  const Case cases[] = {
      {"[]", 0, "does not begin with '{'"},
      {" {}", 0, "does not begin with '{'"},
      {"", 0, "does not begin with '{'"},
      {"{", 0, "no valid JSON"},
      {"{}x", 0, "no valid JSON"},
      {"{} {}", 0, "no valid JSON"},
      {"{\"\xff\":{}}", 0, "no valid JSON"},
      {R"({"w":5})", 0, "found a number"},
      {R"({"w":null})", 0, "found null"},
      {R"({"w":[1]})", 0, "found an array"},
      {R"({"w":{"dtype":{}}})", 0, "found an object under 'dtype'"},
      {R"({"w":{}})", 0, "tensor 'w': dtype, shape or the two data_offsets are missing"},
      {R"({"w":{"dtype":"F32","shape":[2]}})", 8, "missing"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "missing"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", 8, "more than two"},
      {R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8,
       "found a string under 'dtype'"},
      {R"({"w":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", 8,
       "found an array under 'shape'"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":"y"}})", 8, "found a string under 'x'"},
      {R"({"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "found a fraction"},
      {R"({"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "found a negative number"},
      {R"({"w":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8, "found an array under 'shape'"},
      {R"({"w":{"dtype":"F32","shape":[true],"data_offsets":[0,8]}})", 8, "found a truth value"},
      {R"({"w":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", 8, "unknown element type 'F8_E4M3'"},
      {R"({"w":{"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]}})", 8, "more than 4 dimensions"},
      {R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8,
       "f32 [3] needs 12 bytes, data_offsets give 8"},
      {R"({"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8,
       "larger than any memory"},
      {R"({"w":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "larger than any memory"},
      {R"({"w":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", 8, "a size of"},
      {R"({"w":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})", 8, "found a fraction"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "lie outside"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7, "lie outside of the 7 bytes of data"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,0]}})", 8, "lie outside"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9, "the tensors end at byte"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "tensor 'w' begins at byte"},
      {"{\"v\":{" + ok + "},\"w\":{" + ok + "}}", 8, "the one before it ends"},
      {R"({"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       12, "the one before it ends"},
      {"{\"w\":{" + ok + "},\"w\":{" + ok + "}}", 8, "the name 'w' comes twice"},
      {R"({"__metadata__":{"a":1}})", 0, "metadata 'a' is a number, not a string"},
      {R"({"__metadata__":{"a":{}}})", 0, "metadata 'a' is an object"},
      {R"({"__metadata__":{"a":"x","a":"y"}})", 0, "the metadata key 'a' comes twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "'__metadata__' comes twice"},
      {R"({"__metadata__":"x"})", 0, "found a string"},
      {"{\"w\":" + std::string(100000, '['), 0, "found an array"},
      {R"({"a\nb":{"dtype":"F32"}})", 0, "tensor 'a?b'"},
  };
  for (const Case& c : cases) {
    const std::string message = safetensors_error(file_of(c.header, c.data));
    expect_contains(message, c.reason);
    expect_contains(message, "x.safetensors: ");
  }
}

TEST(SafeTensors, HugeHeaderLengthsAreRefusedBeforeAllocating) {
  for (const std::uint64_t length :
       {std::uint64_t{3}, std::uint64_t{1} << 40, ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    std::string file = file_of("{}", 0);
    std::memcpy(file.data(), &length, sizeof length);
    expect_contains(safetensors_error(file), "announces a header of " + std::to_string(length));
  }
  for (std::size_t size = 0; size < 8; ++size)
    expect_contains(safetensors_error(std::string(size, '\0')), "too few for a safetensors file");
}

TEST_F(SafeTensorsFiles, EveryTruncationIsRefused) {
  const fs::path path = folder_ / "a.safetensors";
  save_safetensors(path, small_entries(), kMetadata);
  const std::string whole = text_of_file(path);
  const fs::path cut = folder_ / "cut.safetensors";
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(safetensors_error(whole.substr(0, size)), "") << size;
    std::ofstream(cut, std::ios::binary) << whole.substr(0, size);
    expect_contains(error_of([&] { load_safetensors(cut); }), "cut.safetensors: ");
  }
  EXPECT_NE(safetensors_error(whole + '\0'), "");
}

TEST_F(SafeTensorsFiles, EveryFlippedHeaderBitIsRefusedOrHarmless) {
  const fs::path path = folder_ / "a.safetensors";
  save_safetensors(path, small_entries(), kMetadata);
  const std::string whole = text_of_file(path);
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), sizeof header);
  int refused = 0;
  for (std::size_t i = 0; i < 8 + header; ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      refused += !safetensors_error(damaged).empty();
    }
  // Names and metadata may change silently; structure, types, shapes and ranges may not.
  EXPECT_GT(refused, static_cast<int>(8 * header) / 2);
}

TEST_F(SafeTensorsFiles, SavingRefusesWhatItCouldNotReadBack) {
  const fs::path path = folder_ / "a.safetensors";
  const SafeTensorView w{"w", DType::f32, {6}, kWeights.data()};
  expect_contains(error_of([&] { save_safetensors(path, std::vector{w, w}); }), "'w' is given twice");
  SafeTensorView reserved = w, broken = w;
  reserved.name = "__metadata__";
  broken.name = "\xff";
  expect_contains(error_of([&] { save_safetensors(path, std::vector{reserved}); }), "reserved");
  expect_contains(error_of([&] { save_safetensors(path, std::vector{broken}); }), "not UTF-8");
  expect_contains(error_of([&] { save_safetensors(path, {}, {{"a", "\xc3"}}); }), "not UTF-8");
  EXPECT_EQ(file_count(), 0u);
}

TEST_F(SafeTensorsFiles, UnwritablePlacesAreNamedAndNothingIsLeft) {
  const SafeTensorView w{"w", DType::f32, {6}, kWeights.data()};
  const auto save_error = [&](const fs::path& path) {
    return error_of([&] { save_safetensors(path, std::vector{w}); });
  };
  expect_contains(save_error(folder_ / "nowhere" / "a.safetensors"), "a.safetensors: cannot write");
  std::ofstream(folder_ / "file") << "x";
  EXPECT_NE(save_error(folder_ / "file" / "a.safetensors"), "");
  EXPECT_NE(save_error(folder_), "");
  EXPECT_NE(save_error("/dev/full"), "");
  EXPECT_NE(error_of([&] { load_safetensors(folder_ / "absent"); }), "");
  EXPECT_NE(error_of([&] { load_safetensors(folder_); }), "");
  EXPECT_EQ(file_count(), 1u);
}

TEST_F(SafeTensorsFiles, AFullDiskKeepsTheOldFile) {
  const fs::path path = folder_ / "a.safetensors";
  save_safetensors(path, small_entries(), kMetadata);
  const std::vector<float> large(1 << 20, 1.0f);
  const SafeTensorView entry{"large", DType::f32, {1 << 20}, large.data()};
  {
    const FullDisk full(1 << 16);
    expect_contains(error_of([&] { save_safetensors(path, std::vector{entry}); }),
                    "a.safetensors: cannot write");
  }
  EXPECT_EQ(file_count(), 1u);
  expect_small_entries(load_safetensors(path));
}

TEST_F(SafeTensorsFiles, AReadOnlyFolderIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_NE(error_of([&] { save_safetensors(folder_ / "a", {}); }), "");
  fs::permissions(folder_, fs::perms::owner_all);
}

using AppendFiles = Files;

TEST_F(AppendFiles, GrowByWholeRecords) {
  const fs::path path = folder_ / "log";
  AppendFile(path).append("one\n");
  AppendFile again(path);
  again.append("two\n");
  EXPECT_EQ(text_of_file(path), "one\ntwo\n");
  {
    const FullDisk full(10);
    expect_contains(error_of([&] { again.append("three\n"); }), "log: cannot append");
  }
  EXPECT_EQ(text_of_file(path), "one\ntwo\n") << "half a record was left";
  again.append("four\n");
  EXPECT_EQ(text_of_file(path), "one\ntwo\nfour\n");
  expect_contains(error_of([&] { AppendFile(path, true); }), "log: cannot write");
  expect_contains(error_of([&] { AppendFile(folder_ / "no" / "log"); }), "log: cannot write");
  expect_contains(error_of([&] { AppendFile("/dev/full").append("x"); }), "/dev/full: cannot append");
}

}  // namespace
}  // namespace sgm
