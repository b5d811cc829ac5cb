#include "sgm/io/archive.h"

#include <zip.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include "sgm/core/error.h"
#include "sgm/io/atomic_file.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

constexpr std::uint64_t kDeflateRatio = 1032;  // a deflated byte never holds more
constexpr const char* kFetchAgain = "; the archive is damaged, fetch or pack it again";

struct ZipClose {
  void operator()(zip_t* zip) const { zip_discard(zip); }
  void operator()(zip_file_t* file) const { zip_fclose(file); }
  void operator()(zip_source_t* source) const { zip_source_free(source); }
};
using ZipHandle = std::unique_ptr<zip_t, ZipClose>;
using ZipFileHandle = std::unique_ptr<zip_file_t, ZipClose>;
using ZipSourceHandle = std::unique_ptr<zip_source_t, ZipClose>;

/// libzip's error object, always released.
struct ZipError {
  zip_error_t error;
  ZipError() { zip_error_init(&error); }
  ~ZipError() { zip_error_fini(&error); }
  ZipError(const ZipError&) = delete;
  ZipError& operator=(const ZipError&) = delete;
  std::string text() { return printable(zip_error_strerror(&error)); }
};

/// An archive in memory that libzip reads or writes; `bytes` must outlive it. Null: empty.
ZipSourceHandle source_of(const Bytes* bytes, const std::string& name) {
  ZipError error;
  ZipSourceHandle source(
      zip_source_buffer_create(bytes ? bytes->data() : nullptr, bytes ? bytes->size() : 0, 0, &error.error));
  check(source != nullptr, name, ": ", error.text());
  return source;
}

ZipHandle open_source(zip_source_t* source, int flags, const std::string& name) {
  ZipError error;
  ZipHandle zip(zip_open_from_source(source, flags, &error.error));
  check(zip != nullptr, name, ": not a zip archive (", error.text(), "); name a complete .zip file");
  zip_source_keep(source);
  return zip;
}

/// Size of an entry once everything that its header claims has been found possible.
std::uint64_t checked_size(const zip_stat_t& stat, const std::string& where) {
  constexpr zip_uint64_t kNeeded = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
  check((stat.valid & kNeeded) == kNeeded, where, ": incomplete header", kFetchAgain);
  check((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) == 0 || stat.encryption_method == ZIP_EM_NONE, where,
        ": is encrypted; pack the archive without a password");
  check(stat.comp_method == ZIP_CM_STORE || stat.comp_method == ZIP_CM_DEFLATE, where,
        ": compression method ", stat.comp_method, "; pack the archive with deflate or without compression");
  const bool possible = stat.comp_method == ZIP_CM_STORE ? stat.size == stat.comp_size
                                                         : stat.size / kDeflateRatio <= stat.comp_size;
  check(possible, where, ": claims ", stat.size, " bytes out of ", stat.comp_size, kFetchAgain);
  return stat.size;
}

}  // namespace

struct ZipReader::State {
  std::string name;
  Bytes archive;  // when read from memory
  std::uint64_t archive_bytes = 0;
  ZipHandle zip;
  std::map<std::string, zip_uint64_t> index;
  std::vector<std::string> names;
  std::mutex mutex;  // libzip handles are not thread-safe

  void list();
};

/// Entries whose packed sizes exceed the archive together share bytes: the trick of zip bombs. Without it no
/// archive unpacks to more than kDeflateRatio times its size.
void ZipReader::State::list() {
  // libzip takes an empty file for an empty archive.
  check(archive_bytes > 0, name, ": the file is empty; name a complete .zip file");
  const zip_int64_t count = zip_get_num_entries(zip.get(), 0);
  std::uint64_t packed = 0;
  for (zip_int64_t i = 0; i < count; ++i) {
    zip_stat_t stat;
    zip_stat_init(&stat);
    const bool is_sized = zip_stat_index(zip.get(), static_cast<zip_uint64_t>(i), 0, &stat) == 0 &&
                          (stat.valid & ZIP_STAT_COMP_SIZE) && stat.comp_size <= archive_bytes - packed;
    check(is_sized, name, ": the sizes of its entries exceed the archive's", kFetchAgain);
    packed += stat.comp_size;
    const char* entry = zip_get_name(zip.get(), static_cast<zip_uint64_t>(i), ZIP_FL_ENC_GUESS);
    check(entry != nullptr, name, ": entry ", i, " has no name", kFetchAgain);
    const std::size_t length = std::strlen(entry);
    if (length == 0 || entry[length - 1] == '/') continue;
    const bool is_new = index.emplace(entry, static_cast<zip_uint64_t>(i)).second;
    check(is_new, name, ": two entries are called '", printable(entry), "'; pack the archive again");
  }
  for (const auto& [entry, position] : index) names.push_back(entry);
}

ZipReader::ZipReader(const std::filesystem::path& path) : state_(std::make_unique<State>()) {
  const InputFile file(path);  // says in plain words why a file cannot be read
  state_->name = file.name();
  state_->archive_bytes = file.size();
  int code = 0;
  state_->zip.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
  if (!state_->zip) {
    ZipError error;
    zip_error_init_with_code(&error.error, code);
    fail(state_->name, ": not a zip archive (", error.text(), "); name a complete .zip file");
  }
  state_->list();
}

ZipReader::ZipReader(Bytes archive, std::string name) : state_(std::make_unique<State>()) {
  state_->name = std::move(name);
  state_->archive = std::move(archive);
  state_->archive_bytes = state_->archive.size();
  const ZipSourceHandle source = source_of(&state_->archive, state_->name);
  state_->zip = open_source(source.get(), ZIP_RDONLY, state_->name);
  state_->list();
}

ZipReader::~ZipReader() = default;
ZipReader::ZipReader(ZipReader&&) noexcept = default;
ZipReader& ZipReader::operator=(ZipReader&&) noexcept = default;

const std::vector<std::string>& ZipReader::names() const { return state_->names; }
bool ZipReader::contains(const std::string& entry) const { return state_->index.contains(entry); }

Bytes ZipReader::read(const std::string& entry, std::uint64_t max_bytes) const {
  const std::lock_guard lock(state_->mutex);
  const std::string where = state_->name + ": entry '" + printable(entry) + "'";
  const auto found = state_->index.find(entry);
  check(found != state_->index.end(), where, " is missing from the archive");
  zip_t* zip = state_->zip.get();
  zip_stat_t stat;
  zip_stat_init(&stat);
  check(zip_stat_index(zip, found->second, 0, &stat) == 0, where, ": ", printable(zip_strerror(zip)),
        kFetchAgain);
  const std::uint64_t size = checked_size(stat, where);
  check(size <= max_bytes, where, ": has ", size, " bytes, more than the ", max_bytes, " allowed for it");

  const ZipFileHandle file(zip_fopen_index(zip, found->second, 0));
  check(file != nullptr, where, ": ", printable(zip_strerror(zip)), kFetchAgain);
  Bytes content(size);
  std::size_t done = 0;
  while (done < size) {
    const zip_int64_t count = zip_fread(file.get(), content.data() + done, size - done);
    check(count > 0, where, ": cannot be decompressed beyond byte ", done, kFetchAgain);
    done += static_cast<std::size_t>(count);
  }
  // Reading past the end makes libzip compare size and checksum.
  std::byte beyond;
  check(zip_fread(file.get(), &beyond, 1) == 0, where, ": size or checksum differ from the header",
        kFetchAgain);
  return content;
}

struct ZipWriter::State {
  std::string name;
  AtomicFile file;
  ZipSourceHandle source;
  ZipHandle zip;
  std::deque<Bytes> contents;  // libzip reads them at close

  explicit State(const std::filesystem::path& path) : name(printable(path.native())), file(path) {
    source = source_of(nullptr, name);
    zip = open_source(source.get(), ZIP_CREATE | ZIP_TRUNCATE, name);
  }
};

ZipWriter::ZipWriter(const std::filesystem::path& path) : state_(std::make_unique<State>(path)) {}
ZipWriter::~ZipWriter() = default;
ZipWriter::ZipWriter(ZipWriter&&) noexcept = default;
ZipWriter& ZipWriter::operator=(ZipWriter&&) noexcept = default;

void ZipWriter::add(const std::string& entry, Bytes content, Compression compression) {
  zip_t* zip = state_->zip.get();
  const Bytes& kept = state_->contents.emplace_back(std::move(content));
  ZipSourceHandle source(zip_source_buffer(zip, kept.data(), kept.size(), 0));
  const zip_int64_t index =
      source ? zip_file_add(zip, entry.c_str(), source.get(), ZIP_FL_ENC_UTF_8) : zip_int64_t{-1};
  check(index >= 0, state_->name, ": cannot add '", printable(entry), "': ", printable(zip_strerror(zip)));
  source.release();  // the archive's now
  const zip_uint64_t at = static_cast<zip_uint64_t>(index);
  constexpr zip_uint16_t kDosTime = 0, kDosDate = (1 << 5) | 1;  // 1 January 1980
  zip_file_set_dostime(zip, at, kDosTime, kDosDate, 0);
  zip_set_file_compression(zip, at, compression == Compression::stored ? ZIP_CM_STORE : ZIP_CM_DEFLATE, 0);
}

void ZipWriter::commit() {
  State& state = *state_;
  if (state.contents.empty()) {  // libzip writes no file for an empty archive
    constexpr char kEndRecord[23] = "PK\x05\x06";
    state.file.write(kEndRecord, sizeof kEndRecord - 1);
    return state.file.commit();
  }
  if (zip_close(state.zip.get()) != 0)
    fail(state.name, ": cannot pack: ", printable(zip_strerror(state.zip.get())));
  state.zip.release();  // closing freed it
  zip_source_t* source = state.source.get();
  check(zip_source_open(source) == 0, state.name, ": cannot pack the archive");
  std::vector<std::byte> chunk(std::size_t{1} << 20);
  zip_int64_t count = 0;
  while ((count = zip_source_read(source, chunk.data(), chunk.size())) > 0)
    state.file.write(chunk.data(), static_cast<std::size_t>(count));
  zip_source_close(source);
  check(count == 0, state.name, ": cannot pack the archive");
  state.file.commit();
}

}  // namespace sgm
