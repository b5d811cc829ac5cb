// Atomic writes, whole and positioned reads, zip, gzip, npy and npz.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>

#include "data_samples.h"
#include "expect_error.h"
#include "sgm/io/archive.h"
#include "sgm/io/atomic_file.h"
#include "sgm/io/npy.h"
#include "temp_folder.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

Bytes to_bytes(const std::string& text) {
  const std::byte* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

std::size_t files_in(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

void write_atomically(const fs::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

TEST(AtomicFile, ReplacesTheTargetOnlyAtCommit) {
  const TempFolder folder;
  const fs::path path = folder.write("a.txt", "old");
  {
    AtomicFile file(path);
    file.write("new");
    EXPECT_EQ(read_text(path, 100), "old");
    file.commit();
  }
  EXPECT_EQ(read_text(path, 100), "new");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
  const TempFolder folder;
  {
    AtomicFile file(folder.path() / "a.txt");
    file.write("new");
    EXPECT_EQ(files_in(folder.path()), 1u);
  }
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(AtomicFile, WritesPiecesSmallerAndLargerThanItsBufferInOrder) {
  const TempFolder folder;
  const fs::path path = folder.path() / "big.bin";
  std::string expected;
  AtomicFile file(path);
  for (const std::size_t size : {3u, 0u, 700000u, 700000u, 3000000u, 1u}) {
    const std::string piece = samples::counting_bytes(size);
    file.write(piece.data(), piece.size());
    expected += piece;
  }
  file.commit();
  EXPECT_TRUE(read_text(path, 1 << 24) == expected);
}

TEST(AtomicFile, FollowsASymbolicLink) {
  const TempFolder folder;
  const fs::path real = folder.write("real/a.txt", "old"), link = folder.path() / "link";
  fs::create_symlink(real, link);
  write_atomically(link, "new");
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(read_text(real, 100), "new");
}

TEST(AtomicFile, TwoWritersOfOneFileDoNotMix) {
  const TempFolder folder;
  const fs::path path = folder.path() / "a.txt";
  AtomicFile first(path), second(path);
  first.write("first");
  second.write("second");
  second.commit();
  first.commit();
  EXPECT_EQ(read_text(path, 100), "first");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, RefusesWhatItCannotReplace) {
  const TempFolder folder;
  expect_error({"no/such/folder/a.txt", "No such file"}, [] { AtomicFile("no/such/folder/a.txt"); });
  expect_error({folder.path().native(), "directory"}, [&] { AtomicFile(folder.path()); });
  expect_error({"/dev/null", "not a regular file"}, [] { AtomicFile("/dev/null"); });
  expect_error({"names no file"}, [] { AtomicFile(""); });
  folder.write("file", "");
  expect_error({"file/a.txt", "Not a directory"}, [&] { AtomicFile(folder.path() / "file" / "a.txt"); });
}

TEST(AtomicFile, RefusesAReadOnlyFolder) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write to read-only folders";
  const TempFolder folder;
  fs::create_directory(folder.path() / "locked");
  fs::permissions(folder.path() / "locked", fs::perms::owner_read | fs::perms::owner_exec);
  expect_error({"locked/a.txt", "Permission denied"},
               [&] { AtomicFile(folder.path() / "locked" / "a.txt"); });
}

/// A small limit on the size of files stands for a full disk.
TEST(AtomicFile, AFullDiskIsAnErrorThatLeavesNothing) {
  const TempFolder folder;
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100000, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error({"a.bin", "File too large"},
               [&] { write_atomically(folder.path() / "a.bin", std::string(300000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(ReadFile, NamesWhatIsWrong) {
  const TempFolder folder;
  const fs::path file = folder.write("ten.bin", "0123456789"), pipe = folder.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  fs::create_symlink("loop", folder.path() / "loop");
  EXPECT_EQ(read_file(file, 10).size(), 10u);
  EXPECT_EQ(read_text(folder.write("empty", ""), 10), "");
  expect_error({"ten.bin", "10 bytes"}, [&] { read_file(file, 9); });
  expect_error({"missing.bin", "No such file"}, [&] { read_file(folder.path() / "missing.bin", 10); });
  expect_error({folder.path().native(), "directory"}, [&] { read_file(folder.path(), 10); });
  expect_error({"pipe", "not a regular file"}, [&] { read_file(pipe, 10); });
  expect_error({"loop"}, [&] { read_file(folder.path() / "loop", 10); });
  expect_error({"empty"}, [] { read_file("", 10); });
  const InputFile input(file);
  std::byte three[3];
  input.read_at(7, three);
  EXPECT_EQ(three[2], std::byte{'9'});
  expect_error({"ten.bin", "truncated"}, [&] { input.read_at(8, three); });
}

TEST(ReadFile, ANameWithNewlinesStaysOnOneLine) {
  expect_error({"no?such"}, [] { read_file("no\nsuch\nfile", 10); });
}

TEST(Zip, RoundTrip) {
  for (const bool deflated : {false, true}) {
    const std::string big = samples::counting_bytes(100000);
    const ZipReader zip(to_bytes(samples::zip({{"b/two", big}, {"a", "one"}, {"empty", ""}}, deflated)),
                        "x.zip");
    EXPECT_EQ(zip.names(), (std::vector<std::string>{"a", "b/two", "empty"}));
    EXPECT_EQ(samples::to_string(zip.read("a", 3)), "one");
    EXPECT_TRUE(samples::to_string(zip.read("b/two", big.size())) == big);
    EXPECT_TRUE(zip.read("empty", 0).empty());
    EXPECT_FALSE(zip.contains("c"));
    expect_error({"x.zip", "'c'", "missing"}, [&] { zip.read("c", 10); });
    expect_error({"x.zip", "'a'", "3 bytes"}, [&] { zip.read("a", 2); });
  }
}

TEST(Zip, SameEntriesGiveTheSameBytes) {
  const samples::Entries entries{{"a", "one"}, {"b", "two"}};
  EXPECT_EQ(samples::zip(entries), samples::zip(entries));
}

TEST(Zip, EveryTruncationIsAnError) {
  const std::string whole = samples::zip({{"a", "one"}, {"b", samples::counting_bytes(300)}});
  for (std::size_t size = 0; size < whole.size(); ++size)
    expect_error({"x.zip"}, [&] { ZipReader(to_bytes(whole.substr(0, size)), "x.zip"); });
}

TEST(Zip, DamagedContentIsAnError) {
  const std::string whole = samples::zip({{"a", "content"}}, false);
  std::string damaged = whole;
  damaged[damaged.find("content")] = 'C';
  const ZipReader zip(to_bytes(damaged), "x.zip");
  expect_error({"x.zip", "'a'", "checksum"}, [&] { zip.read("a", 100); });
}

/// Overwrites the 32-bit word at this offset of the only entry of the central directory.
std::string with_directory_word(std::string zip, std::size_t offset, std::uint32_t word) {
  std::memcpy(zip.data() + zip.find("PK\x01\x02") + offset, &word, sizeof word);
  return zip;
}

TEST(Zip, SizesThatCannotBeTrueAreRefusedBeforeAllocating) {
  const std::string stored = samples::zip({{"a", "content"}}, false),
                    deflated = samples::zip({{"a", "content"}}, true);
  for (const std::string& damaged :
       {with_directory_word(deflated, 24, 0xfffffff0u), with_directory_word(stored, 24, 8),
        with_directory_word(stored, 20, 0x7fffffffu)})
    expect_error({"x.zip"}, [&] { ZipReader(to_bytes(damaged), "x.zip").read("a", ~0ull); });
}

TEST(Zip, EncryptedEntriesAreRefused) {
  std::string zip = samples::zip({{"a", "content"}}, false);
  const std::size_t directory = zip.find("PK\x01\x02");
  zip[6] = static_cast<char>(zip[6] | 1);
  zip[directory + 8] = static_cast<char>(zip[directory + 8] | 1);
  expect_error({"x.zip", "'a'", "encrypted"}, [&] { ZipReader(to_bytes(zip), "x.zip").read("a", 100); });
}

TEST(Zip, TwoEntriesOfOneNameAreRefused) {
  std::string zip = samples::zip({{"aa", "1"}, {"bb", "2"}}, false);
  for (std::size_t at = 0; (at = zip.find("bb", at)) != std::string::npos;) zip.replace(at, 2, "aa");
  expect_error({"x.zip", "'aa'"}, [&] { ZipReader(to_bytes(zip), "x.zip"); });
}

TEST(Gzip, RoundTripOfOneAndTwoMembers) {
  const std::string text = samples::counting_bytes(200000), packed = samples::gzip(text);
  EXPECT_TRUE(samples::to_string(gunzip(to_bytes(packed), text.size(), "x.gz")) == text);
  EXPECT_TRUE(samples::to_string(gunzip(to_bytes(packed + packed), 1 << 20, "x.gz")) == text + text);
  EXPECT_TRUE(gunzip(to_bytes(samples::gzip("")), 0, "x.gz").empty());
}

TEST(Gzip, LimitTruncationDamageAndTrailingBytesAreErrors) {
  const std::string text = samples::counting_bytes(5000), packed = samples::gzip(text);
  expect_error({"x.gz", "4999"}, [&] { gunzip(to_bytes(packed), 4999, "x.gz"); });
  expect_error({"x.gz", "65536"},
               [&] { gunzip(to_bytes(samples::gzip(std::string(1 << 24, 'x'))), 1 << 16, "x.gz"); });
  for (std::size_t size = 0; size < packed.size(); ++size)
    expect_error({"x.gz"}, [&] { gunzip(to_bytes(packed.substr(0, size)), 1 << 20, "x.gz"); });
  for (std::size_t at = packed.size() - 8; at < packed.size(); ++at) {  // checksum and length
    std::string damaged = packed;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    expect_error({"x.gz"}, [&] { gunzip(to_bytes(damaged), 1 << 20, "x.gz"); });
  }
  expect_error({"x.gz"}, [&] { gunzip(to_bytes(packed + "tail"), 1 << 20, "x.gz"); });
}

template <class T>
void expect_npy_round_trip(const Shape& shape) {
  std::vector<T> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(3 * i + 1);
  const Array array = make_array<T>(shape, std::span<const T>(values));
  const Bytes file = to_npy(array);
  EXPECT_EQ((file.size() - array.bytes.size()) % 64, 0u);
  const Array back = parse_npy(file, "x.npy");
  EXPECT_EQ(back.dtype, array.dtype);
  EXPECT_EQ(back.shape, shape);
  EXPECT_EQ(back.bytes, array.bytes);
}

TEST(Npy, RoundTripOfEveryTypeAndRank) {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{1, 7}, Shape{2, 0, 3}, Shape{2, 3, 5, 1}}) {
    expect_npy_round_trip<std::uint8_t>(shape);
    expect_npy_round_trip<std::int32_t>(shape);
    expect_npy_round_trip<std::int64_t>(shape);
    expect_npy_round_trip<float>(shape);
    expect_npy_round_trip<double>(shape);
  }
  EXPECT_THROW(to_npy(Array{DType::bf16, {1}, Bytes(2)}), Error);
  EXPECT_THROW(to_npy(Array{DType::f32, {2}, Bytes(4)}), Error);
}

/// NumPy 2.4's own bytes for arange(6, dtype="<f4").reshape(2, 3), up to the data.
TEST(Npy, WritesTheHeaderThatNumPyWrites) {
  const std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  const std::string expected = samples::npy(text + std::string(118 - text.size() - 1, ' ') + "\n", "");
  const std::vector<float> values{0, 1, 2, 3, 4, 5};
  const std::string written = samples::npy(make_array<float>({2, 3}, std::span<const float>(values)));
  EXPECT_EQ(written.substr(0, 128), expected);
  EXPECT_EQ(parse_npy(to_bytes(written), "x").values<float>()[5], 5.0f);
}

TEST(Npy, ReadsOtherVersionsAndSpellings) {
  const std::string eight(8, '\1');
  for (const char version : {'\1', '\2', '\3'})
    for (const char* header : {"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }   \n",
                               "{\"shape\":(2L,),\"fortran_order\":False,\"descr\":\"=i4\"}"}) {
      const Array array = parse_npy(to_bytes(samples::npy(header, eight, version)), "x.npy");
      EXPECT_EQ(array.shape, Shape{2});
      EXPECT_EQ(array.values<std::int32_t>()[1], 0x01010101);
    }
}

TEST(Npy, EveryTruncationAndAnyExtraByteIsAnError) {
  const std::vector<std::int64_t> values{1, 2, 3};
  const std::string whole =
      samples::npy(make_array<std::int64_t>({3}, std::span<const std::int64_t>(values)));
  for (std::size_t size = 0; size < whole.size(); ++size)
    expect_error({"x.npy"}, [&] { parse_npy(to_bytes(whole.substr(0, size)), "x.npy"); });
  expect_error({"x.npy"}, [&] { parse_npy(to_bytes(whole + "x"), "x.npy"); });
}

struct BadHeader {
  const char* header;
  const char* reason;  // a part of the message
};

class NpyHeaders : public testing::TestWithParam<BadHeader> {};

TEST_P(NpyHeaders, AreRefusedWithTheReason) {
  const std::string file = samples::npy(GetParam().header, std::string(24, '\0'));
  expect_error({"x.npy", GetParam().reason}, [&] { parse_npy(to_bytes(file), "x.npy"); });
}

INSTANTIATE_TEST_SUITE_P(
    Table, NpyHeaders,
    testing::Values(
        BadHeader{"{'descr': '<f8', 'fortran_order': True, 'shape': (3,), }", "Fortran"},
        BadHeader{"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", "pickled"},
        BadHeader{"{'descr': '>f8', 'fortran_order': False, 'shape': (3,), }", "big-endian"},
        BadHeader{"{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (3,), }", "structures"},
        BadHeader{"{'descr': '<c8', 'fortran_order': False, 'shape': (3,), }", "<c8"},
        BadHeader{"{'descr': 'f8', 'fortran_order': False, 'shape': (3,), }", "f8"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", "needs 16 bytes"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }", "negative"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': (1,1,1,1,3), }", "dimensions"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", "memory"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': (0, 4294967296, 4294967296), }",
                  "memory"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,), }", "header"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': 3, }", "header"},
        BadHeader{"{'descr': '<f8', 'fortran_order': 0, 'shape': (3,), }", "header"},
        BadHeader{"{'descr': '<f8', 'shape': (3,), }", "header"},
        BadHeader{"{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", "header"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'x': 1}", "header"},
        BadHeader{"{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} x", "header"},
        BadHeader{"{'descr': '<f8", "header"}, BadHeader{"", "header"}));

TEST(Npz, RoundTrip) {
  const TempFolder folder;
  const std::vector<float> values{1.5f, -2.0f, 0.0f};
  const std::vector<std::uint8_t> bytes{7};
  NamedArrays arrays;
  arrays["samples"] = make_array<float>({1, 3}, std::span<const float>(values));
  arrays["labels"] = make_array<std::uint8_t>({1}, std::span<const std::uint8_t>(bytes));
  for (const bool compress : {false, true}) {
    const fs::path path = folder.path() / "x.npz";
    write_npz(path, arrays, compress);
    const NamedArrays back = read_npz(path);
    ASSERT_EQ(back.size(), 2u);
    EXPECT_EQ(back.at("samples").shape, (Shape{1, 3}));
    EXPECT_EQ(back.at("samples").values<float>()[1], -2.0f);
    EXPECT_EQ(back.at("labels").values<std::uint8_t>()[0], 7);
  }
}

TEST(Npz, NamesTheArrayThatIsWrong) {
  const std::string bad =
      samples::zip({{"good.npy", samples::npy(make_array<float>({0}, {}))}, {"bad.npy", "junk"}});
  expect_error({"x.npz", "bad.npy"}, [&] { parse_npz(to_bytes(bad), "x.npz"); });
  expect_error({"x.npz", "readme"}, [&] {
    parse_npz(to_bytes(samples::zip({{"readme", "hello"}})), "x.npz");
  });
  expect_error({"x.npz", "zip"}, [&] { parse_npz(to_bytes("no archive"), "x.npz"); });
}

TEST(Array, SizesOfFilesAreCheckedBeforeUse) {
  const std::vector<std::int64_t> huge{std::int64_t{1} << 62, 4};
  EXPECT_EQ(checked_bytes("x", DType::f32, std::vector<std::int64_t>{2, 3}), 24u);
  expect_error({"x:"}, [&] { checked_bytes("x", DType::u8, huge); });
  EXPECT_THROW(make_array<float>({2}, {}), Error);
  EXPECT_THROW(make_array<float>({0}, {}).values<double>(), Error);
}

}  // namespace
}  // namespace sgm
