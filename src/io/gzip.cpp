#include <zlib.h>

#include <algorithm>

#include "sgm/core/error.h"
#include "sgm/io/archive.h"

namespace sgm {
namespace {

constexpr std::size_t kFirstChunk = std::size_t{1} << 16;
constexpr int kGzipWindow = 15 + 16;  // zlib: the largest window, gzip framing

/// A zlib stream that is always ended.
struct Inflater {
  z_stream stream{};
  Inflater() { check(inflateInit2(&stream, kGzipWindow) == Z_OK, "zlib cannot start; is memory exhausted?"); }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

}  // namespace

bool is_gzip(std::span<const std::byte> head) {
  return head.size() >= 2 && head[0] == std::byte{0x1f} && head[1] == std::byte{0x8b};
}

Bytes gunzip(std::span<const std::byte> compressed, std::uint64_t max_bytes, const std::string& name) {
  check(is_gzip(compressed), name, ": not a gzip file");
  Inflater inflater;
  z_stream& stream = inflater.stream;
  Bytes out;
  std::size_t used = 0, produced = 0;
  for (int status = Z_OK; status != Z_STREAM_END || used < compressed.size();) {
    if (status == Z_STREAM_END) {
      check(is_gzip(compressed.subspan(used)), name,
            ": something that is not gzip follows the data; is it damaged?");
      inflateReset(&stream);
    }
    check(produced <= max_bytes, name, ": decompresses to more than ", max_bytes,
          " bytes; decompress it yourself if that is right");
    // One byte beyond the limit tells a stream that ends there from one that goes on.
    if (produced == out.size())
      out.resize(std::min<std::uint64_t>(std::max(kFirstChunk, 2 * out.size()), max_bytes + 1));
    const std::size_t in = std::min<std::size_t>(compressed.size() - used, UINT32_MAX);
    const std::size_t room = std::min<std::size_t>(out.size() - produced, UINT32_MAX);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(compressed.data() + used));
    stream.avail_in = static_cast<uInt>(in);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + produced);
    stream.avail_out = static_cast<uInt>(room);
    status = inflate(&stream, Z_NO_FLUSH);
    used += in - stream.avail_in;
    produced += room - stream.avail_out;
    check(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR, name,
          ": damaged gzip data after ", produced, " bytes; fetch the file again");
    check(status == Z_STREAM_END || used < compressed.size() || stream.avail_out == 0, name,
          ": the gzip data is truncated; fetch the file again");
  }
  check(produced <= max_bytes, name, ": decompresses to more than ", max_bytes,
        " bytes; decompress it yourself if that is right");
  out.resize(produced);
  return out;
}

}  // namespace sgm
