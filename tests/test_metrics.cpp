// TensorBoard event files, metric records over interruptions, progress lines.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <sstream>
#include <variant>
#include <vector>

#include "io/crc32c.h"
#include "sgm/core/error.h"
#include "sgm/io/tfevents.h"
#include "sgm/train/metrics.h"
#include "sgm/train/progress.h"
#include "temp_folder.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class Folder : public testing::Test {
 protected:
  std::vector<fs::path> event_files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_))
      if (entry.path().filename().string().starts_with("events.out.tfevents.")) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }

  const TempFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

// ---- an independent reader of event files: bit-wise checksum, generic protocol-buffer fields

std::uint32_t checksum_by_bits(const std::string& bytes) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char byte : bytes)
    for (int bit = 0; bit < 8; ++bit) {
      const bool odd = (crc ^ static_cast<std::uint32_t>(static_cast<unsigned char>(byte) >> bit)) & 1;
      crc = (crc >> 1) ^ (odd ? 0x82F63B78u : 0u);
    }
  return ~crc;
}

template <class T>
T number_at(const std::string& bytes, std::size_t at) {
  T value{};
  if (at + sizeof value > bytes.size()) throw std::runtime_error("record is cut");
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::vector<std::string> records_of(const std::string& file) {
  const auto check_sum = [](const std::string& bytes, std::uint32_t masked) {
    const std::uint32_t rotated = masked - 0xA282EAD8u;
    EXPECT_EQ((rotated >> 17) | (rotated << 15), checksum_by_bits(bytes));
  };
  std::vector<std::string> records;
  for (std::size_t at = 0; at < file.size();) {
    const auto length = number_at<std::uint64_t>(file, at);
    check_sum(file.substr(at, 8), number_at<std::uint32_t>(file, at + 8));
    records.push_back(file.substr(at + 12, length));
    EXPECT_EQ(records.back().size(), length);
    check_sum(records.back(), number_at<std::uint32_t>(file, at + 12 + length));
    at += 16 + length;
  }
  return records;
}

using Field = std::variant<std::uint64_t, double, float, std::string>;

std::map<int, Field> fields_of(const std::string& message) {
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
  };
  std::map<int, Field> fields;
  while (at < message.size()) {
    const std::uint64_t key = varint();
    Field& field = fields[static_cast<int>(key >> 3)];
    switch (key & 7) {
      case 0: field = varint(); break;
      case 1: field = number_at<double>(message, at), at += 8; break;
      case 5: field = number_at<float>(message, at), at += 4; break;
      case 2: {
        const std::uint64_t size = varint();
        field = message.substr(at, size), at += size;
        break;
      }
      default: ADD_FAILURE() << "wire type " << (key & 7);
    }
  }
  return fields;
}

std::map<int, Field> submessage(const std::map<int, Field>& fields, int number) {
  return fields_of(std::get<std::string>(fields.at(number)));
}

TEST(Crc32c, MatchesTheVectorsOfTheISCSIStandard) {
  std::string ascending, descending;
  for (int i = 0; i < 32; ++i) ascending += static_cast<char>(i), descending += static_cast<char>(31 - i);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(ascending), 0x46DD794Eu);
  EXPECT_EQ(crc32c(descending), 0x113FDB5Cu);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(checksum_by_bits("123456789"), 0xE3069283u);
}

using TfEventsFiles = Folder;

TEST_F(TfEventsFiles, HoldVersionScalarsAndImagesWithChecksums) {
  const std::string png = std::string("\x89PNG\r\n\x1a\n\0", 9) + std::string(300, '\xa5');
  {
    TfEvents events(folder_);
    events.scalar("loss", 300, 0.125);
    events.scalar("loss", std::int64_t{1} << 40, kNaN);
    events.image("samples", 5, {png, 640, 33, 1});
    events.restart(6);
    // Every record is in the file before the next: nothing waits for the end of the run.
    EXPECT_EQ(records_of(text_of_file(event_files().at(0))).size(), 5u);
  }
  ASSERT_EQ(event_files().size(), 1u);
  const std::vector<std::string> records = records_of(text_of_file(event_files()[0]));
  ASSERT_EQ(records.size(), 5u);
  std::vector<std::map<int, Field>> events;
  for (const std::string& record : records) {
    events.push_back(fields_of(record));
    const double seconds = std::get<double>(events.back().at(1));
    EXPECT_LT(std::abs(seconds - static_cast<double>(std::time(nullptr))), 60);
  }
  EXPECT_EQ(std::get<std::string>(events[0].at(3)), "brain.Event:2");
  EXPECT_EQ(std::get<std::uint64_t>(events[1].at(2)), 300u);
  const auto loss = submessage(submessage(events[1], 5), 1);
  EXPECT_EQ(std::get<std::string>(loss.at(1)), "loss");
  EXPECT_EQ(std::get<float>(loss.at(2)), 0.125f);
  EXPECT_EQ(std::get<std::uint64_t>(events[2].at(2)), std::uint64_t{1} << 40);
  EXPECT_TRUE(std::isnan(std::get<float>(submessage(submessage(events[2], 5), 1).at(2))));
  const auto samples = submessage(submessage(events[3], 5), 1);
  EXPECT_EQ(std::get<std::string>(samples.at(1)), "samples");
  const auto image = submessage(samples, 4);
  EXPECT_EQ(std::get<std::uint64_t>(image.at(1)), 33u);
  EXPECT_EQ(std::get<std::uint64_t>(image.at(2)), 640u);
  EXPECT_EQ(std::get<std::uint64_t>(image.at(3)), 1u);
  EXPECT_EQ(std::get<std::string>(image.at(4)), png);
  EXPECT_EQ(std::get<std::uint64_t>(events[4].at(2)), 6u);
  EXPECT_EQ(std::get<std::uint64_t>(submessage(events[4], 7).at(1)), 1u);
}

TEST_F(TfEventsFiles, OfOneSecondDoNotOverwriteEachOther) {
  for (int i = 0; i < 3; ++i) TfEvents(folder_).scalar("x", i, i);
  ASSERT_EQ(event_files().size(), 3u);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(std::get<std::uint64_t>(fields_of(records_of(text_of_file(event_files()[i])).at(1)).at(2)), i);
  EXPECT_THROW(TfEvents(folder_ / "absent"), Error);
}

using Metrics = Folder;

std::vector<std::string> lines_of(const fs::path& file) {
  std::istringstream text(text_of_file(file));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

/// A line without its time.
std::string before_time(const std::string& line) { return line.substr(0, line.find(",\"time\":")); }

TEST_F(Metrics, AreOneJsonLinePerRecord) {
  MetricsWriter metrics(folder_);
  metrics.write(50, {{"loss", 0.1}, {"img_per_s", 1e22}, {"grad_norm", kNaN}, {"lr", 2e-4}});
  metrics.write(100, {{"loss", -std::numeric_limits<double>::infinity()}});
  metrics.image("samples", 100, {"png", 1, 1, 3});
  const auto lines = lines_of(folder_ / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(before_time(lines[0]), R"({"step":50,"loss":0.1,"img_per_s":1e+22,"grad_norm":null,"lr":2e-04)");
  EXPECT_EQ(before_time(lines[1]), R"({"step":100,"loss":null)");
  EXPECT_TRUE(lines[0].ends_with("}"));
  const double time = std::stod(lines[0].substr(lines[0].find("time\":") + 6));
  EXPECT_LT(std::abs(time - static_cast<double>(std::time(nullptr))), 60);
  // version, restart, four scalars, one scalar, one image
  EXPECT_EQ(records_of(text_of_file(event_files().at(0))).size(), 8u);
}

TEST_F(Metrics, OfAResumedRunReadAsIfItHadNeverStopped) {
  const fs::path file = folder_ / "metrics.jsonl";
  {
    MetricsWriter metrics(folder_);
    for (int step = 10; step <= 50; step += 10) metrics.write(step, {{"loss", step / 100.0}});
  }
  std::ofstream(file, std::ios::app) << "a note\n{\"step\":60,\"loss\":0.";  // killed in the middle of a line
  {
    MetricsWriter metrics(folder_, 30);
    metrics.write(40, {{"loss", 4}});
  }
  std::vector<std::string> expected = {R"({"step":10,"loss":0.1)", R"({"step":20,"loss":0.2)",
                                       R"({"step":30,"loss":0.3)", "a note", R"({"step":40,"loss":4)"};
  std::vector<std::string> found;
  for (const std::string& line : lines_of(file)) found.push_back(before_time(line));
  EXPECT_EQ(found, expected);
  // Without later lines the file stays as it is, byte for byte.
  const std::string before = text_of_file(file);
  { const MetricsWriter metrics(folder_, 40); }
  EXPECT_EQ(text_of_file(file), before);
  { const MetricsWriter metrics(folder_, 0); }
  EXPECT_EQ(text_of_file(file), "a note\n");
  EXPECT_THROW(MetricsWriter(folder_ / "absent"), Error);
}

TEST(ProgressText, EtaAndRateFitEveryMagnitude) {
  const std::pair<double, const char*> etas[] = {{0, "0s"},       {0.4, "0s"},      {59.4, "59s"},
                                                 {59.6, "1m00s"}, {185, "3m05s"},   {3599.7, "1h00m"},
                                                 {8040, "2h14m"}, {86400, "1d00h"}, {273600, "3d04h"},
                                                 {-1, "?"},       {kNaN, "?"},      {1e300, "?"}};
  for (const auto& [seconds, text] : etas) EXPECT_EQ(format_eta(seconds), text) << seconds;
  const std::pair<double, const char*> rates[] = {
      {0, "0.00 img/s"},    {0.42, "0.42 img/s"},   {9.996, "10.0 img/s"}, {12.34, "12.3 img/s"},
      {99.96, "100 img/s"}, {1240.4, "1240 img/s"}, {kNaN, "? img/s"},     {-1, "? img/s"}};
  for (const auto& [rate, text] : rates) EXPECT_EQ(format_rate(rate), text) << rate;
}

TEST(ProgressText, ShowsTheStepAndIsCutToTheTerminal) {
  ProgressLine line{1200, 10000, 0.0125, 85.1, 185};
  EXPECT_EQ(format_progress(line, 200), "step 1200/10000  12%  loss 0.0125  85.1 img/s  eta 3m05s");
  EXPECT_EQ(format_progress(line, 15), "step 1200/10000");
  line.loss = kNaN;
  EXPECT_NE(format_progress(line, 200).find("loss nan"), std::string::npos);
  line.loss.reset();
  EXPECT_EQ(format_progress(line, 200).find("loss"), std::string::npos);
  EXPECT_EQ(format_progress({9999, 10000, {}, 1, 1}, 200).find("100%"), std::string::npos);
  EXPECT_NE(format_progress({0, 0, {}, 0, 0}, 200), "");
}

TEST(Progress, PrintsAPlainLineEveryTenSecondsAndTheEnds) {
  std::ostringstream out;
  double now = 100;
  Progress progress(out, false, 40, 80, [&] { return now; });
  for (int step = 41; step <= 80; ++step) {
    now += 1;
    progress.update(step, 0.5, 10);
  }
  std::istringstream text(out.str());
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 5u) << out.str();
  EXPECT_EQ(lines[0], "step 41/80  51%  loss 0.5  10.0 img/s  eta 39s");
  EXPECT_EQ(lines[1], "step 51/80  63%  loss 0.5  10.0 img/s  eta 29s");
  EXPECT_EQ(lines[4], "step 80/80  100%  loss 0.5  10.0 img/s  eta 0s");
  EXPECT_EQ(out.str().find('\r'), std::string::npos);
}

TEST(Progress, RedrawsOneLineOnATerminal) {
  std::ostringstream out;
  double now = 0;
  {
    Progress progress(out, true, 0, 100, [&] { return now; });
    progress.update(1, {}, 1);
    progress.update(2, {}, 1);  // too soon
    now = 0.2;
    progress.update(3, {}, 1);
    progress.note("saved");
  }
  const std::string text = out.str();
  EXPECT_EQ(text.find("step 2/"), std::string::npos);
  EXPECT_NE(text.find("\r\x1b[Kstep 3/100"), std::string::npos);
  EXPECT_NE(text.find("\r\x1b[Ksaved\nstep 3/100"), std::string::npos);
  EXPECT_TRUE(text.ends_with('\n'));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

}  // namespace
}  // namespace sgm
