#include "sgm/io/tfevents.h"

#include <unistd.h>

#include <bit>
#include <chrono>
#include <string>

#include "io/crc32c.h"

namespace sgm {
namespace {

// Field numbers of tensorflow.Event, Summary, Summary.Value, Summary.Image and SessionLog.
namespace event {
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
}
namespace summary {
constexpr int kValue = 1;
}
namespace value {
constexpr int kTag = 1, kSimpleValue = 2, kImage = 4;
}
namespace image {
constexpr int kHeight = 1, kWidth = 2, kColorspace = 3, kEncoded = 4;
}
namespace session_log {
constexpr int kStatus = 1, kStatusStart = 1;
}

/// Little-endian bytes of an integer.
template <class Int>
std::string fixed(Int value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xFF);
  return bytes;
}

/// A protocol-buffer message under construction.
class Message {
 public:
  Message& integer(int field, std::int64_t value) {
    key(field, 0);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  Message& real(int field, double value) {
    key(field, 1);
    bytes_ += fixed(std::bit_cast<std::uint64_t>(value));
    return *this;
  }
  Message& real(int field, float value) {
    key(field, 5);
    bytes_ += fixed(std::bit_cast<std::uint32_t>(value));
    return *this;
  }
  Message& bytes(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return bytes(field, value.bytes_); }

  const std::string& text() const { return bytes_; }

 private:
  void key(int field, int wire_type) { varint(static_cast<std::uint64_t>(field << 3 | wire_type)); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

Message stamped_event() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  Message message;
  message.real(event::kWallTime, std::chrono::duration<double>(now).count());
  return message;
}

Message summary_event(std::int64_t step, const Message& value) {
  Message message = stamped_event();
  message.integer(event::kStep, step).message(event::kSummary, Message().message(summary::kValue, value));
  return message;
}

/// Readers take the files of a folder in the order of their names, so the time comes first.
std::filesystem::path new_name(const std::filesystem::path& folder) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  const std::string name = "events.out.tfevents." + std::to_string(seconds) + '.' + host;
  std::filesystem::path path = folder / name;
  std::error_code error;
  for (int next = 1; std::filesystem::exists(path, error); ++next)
    path = folder / (name + '.' + std::to_string(next));
  return path;
}

}  // namespace

TfEvents::TfEvents(const std::filesystem::path& folder) : file_(new_name(folder), /*must_be_new=*/true) {
  write(stamped_event().bytes(event::kFileVersion, "brain.Event:2").text());
}

void TfEvents::scalar(std::string_view tag, std::int64_t step, double number) {
  Message message;
  message.bytes(value::kTag, tag).real(value::kSimpleValue, static_cast<float>(number));
  write(summary_event(step, message).text());
}

void TfEvents::image(std::string_view tag, std::int64_t step, const EventImage& picture) {
  Message encoded;
  encoded.integer(image::kHeight, picture.height)
      .integer(image::kWidth, picture.width)
      .integer(image::kColorspace, picture.channels)
      .bytes(image::kEncoded, picture.png);
  Message message;
  message.bytes(value::kTag, tag).message(value::kImage, encoded);
  write(summary_event(step, message).text());
}

void TfEvents::restart(std::int64_t first_step) {
  Message message = stamped_event();
  message.integer(event::kStep, first_step)
      .message(event::kSessionLog, Message().integer(session_log::kStatus, session_log::kStatusStart));
  write(message.text());
}

void TfEvents::write(std::string_view event) {
  const std::string length = fixed(std::uint64_t{event.size()});
  std::string record = length + fixed(masked_crc32c(length));
  record.append(event).append(fixed(masked_crc32c(event)));
  file_.append(record);
}

}  // namespace sgm
