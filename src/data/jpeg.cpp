#include "data/jpeg.h"

#include <cstdint>

#include "sgm/core/error.h"

namespace sgm {
namespace {

constexpr int kMaxScans = 256;

// Second bytes of the markers that matter here.
constexpr int kHuffmanTables = 0xc4, kFirstRestart = 0xd0, kStart = 0xd8, kEnd = 0xd9, kScan = 0xda;

class JpegWalker {
 public:
  JpegWalker(std::span<const std::byte> file, const std::string& name) : file_(file), name_(name) {}

  void walk() {
    at_ = 2;  // past the start marker
    for (int scans = 0;;) {
      const int marker = next_marker();
      if (marker == kEnd) return;
      check(marker > kEnd || marker < kFirstRestart, name_, ": JPEG marker ", marker, " at byte ", at_,
            " is out of place; the file is damaged");
      const std::size_t start = at_ + 2, end = at_ + word(at_);
      check(end >= start, name_, ": a JPEG segment at byte ", at_, " has no length; the file is damaged");
      byte(end);
      if (marker == kHuffmanTables) check_huffman_tables(start, end);
      check(marker != kScan || ++scans <= kMaxScans, name_, ": a JPEG of more than ", kMaxScans,
            " scans; save it again");
      at_ = end;  // what follows a scan's header, next_marker() skips
    }
  }

 private:
  int byte(std::size_t at) const {
    check(at < file_.size(), name_, ": the JPEG image is truncated; fetch it again");
    return std::to_integer<int>(file_[at]);
  }
  std::size_t word(std::size_t at) const { return static_cast<std::size_t>(byte(at) << 8 | byte(at + 1)); }

  /// Skips entropy-coded data (where 0xff is followed by 0 or a restart marker) and padding; returns the
  /// marker that follows and moves past it.
  int next_marker() {
    for (;; ++at_) {
      if (byte(at_) != 0xff) continue;
      while (byte(at_) == 0xff) ++at_;
      const int marker = byte(at_);
      const bool is_data = marker == 0 || (marker >= kFirstRestart && marker < kStart);
      if (is_data) continue;
      ++at_;
      return marker;
    }
  }

  /// Each table: class and number, how many codes of 1 to 16 bits, their symbols.
  void check_huffman_tables(std::size_t at, std::size_t end) const {
    while (at < end) {
      std::size_t symbols = 0;
      std::uint32_t taken = 0;  // of the 2^16 words of 16 bits
      for (std::size_t bits = 1; bits <= 16; ++bits) {
        const std::uint32_t codes = static_cast<std::uint32_t>(byte(at + bits));
        symbols += codes;
        taken += codes << (16 - bits);
      }
      check(symbols <= 256 && taken <= 1u << 16, name_, ": the Huffman table at byte ", at,
            " is impossible; the file is damaged");
      at += 17 + symbols;
    }
    check(at == end, name_, ": the Huffman tables before byte ", end, " do not fit; the file is damaged");
  }

  std::span<const std::byte> file_;
  const std::string& name_;
  std::size_t at_ = 0;
};

}  // namespace

void check_jpeg(std::span<const std::byte> file, const std::string& name) { JpegWalker(file, name).walk(); }

}  // namespace sgm
