#pragma once
// Zip archives (libzip) and gzip streams (zlib).

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sgm/io/input_file.h"

namespace sgm {

/// A zip archive open for reading: stored and deflated entries, Zip64, checksums verified. Encrypted entries,
/// other methods, two entries of one name and entries whose sizes cannot be true are Errors naming archive
/// and entry. Threads may share one object.
class ZipReader {
 public:
  explicit ZipReader(const std::filesystem::path& path);
  /// From memory; `name` stands for the file in messages.
  ZipReader(Bytes archive, std::string name);
  ~ZipReader();
  ZipReader(ZipReader&&) noexcept;
  ZipReader& operator=(ZipReader&&) noexcept;

  /// Files in the archive, sorted by bytes; folders are left out.
  const std::vector<std::string>& names() const;
  bool contains(const std::string& entry) const;
  /// Throws Error when there is no such entry, it is damaged, or it is larger than max_bytes.
  Bytes read(const std::string& entry, std::uint64_t max_bytes) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

enum class Compression { stored, deflated };

/// Writes a zip archive. It is built in memory and put in place at commit(), atomically. The bytes depend
/// only on the entries: dates are fixed.
class ZipWriter {
 public:
  explicit ZipWriter(const std::filesystem::path& path);
  ~ZipWriter();
  ZipWriter(ZipWriter&&) noexcept;
  ZipWriter& operator=(ZipWriter&&) noexcept;

  void add(const std::string& entry, Bytes content, Compression compression);
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// True when the bytes open like a gzip stream.
bool is_gzip(std::span<const std::byte> head);

/// Decompresses a gzip file (one member or several); `name` stands for it in messages. Throws Error when it
/// is truncated or damaged, something else follows it, or it holds more than max_bytes.
Bytes gunzip(std::span<const std::byte> compressed, std::uint64_t max_bytes, const std::string& name);

}  // namespace sgm
