#include "cli/likelihood_file.h"

#include <string_view>

#include "sgm/core/error.h"
#include "sgm/io/atomic_file.h"
#include "sgm/io/input_file.h"

namespace sgm::cli {
namespace {

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 30;
constexpr const char* kHeader = "likelihood";
constexpr const char* kNumbers[] = {"image", "nats", "bits_per_dim", "nfe"};

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Whole lines; what follows the last line's end was torn.
std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> lines;
  for (std::size_t end; (end = text.find('\n')) != text.npos; text.remove_prefix(end + 1))
    lines.emplace_back(text.substr(0, end));
  return lines;
}

void check_settings(const std::string& name, const std::string& line, const Json& settings) {
  const Json json = Json::parse(line, nullptr, false);
  check(json.is_object() && json.contains(kHeader) && json[kHeader].is_object(), name,
        ": its first line is not that of a file of sgm likelihood; name another file");
  const Json& then = json[kHeader];
  for (const auto& [key, now] : settings.items())
    check(then.contains(key) && text_of(then[key]) == text_of(now), name, ": was made with ", key, " = ",
          then.contains(key) ? text_of(then[key]) : "nothing", ", not ", text_of(now),
          "; --resume needs the same settings");
}

Json parse_image(const std::string& name, const std::string& line, std::size_t number, std::int64_t image) {
  const Json json = Json::parse(line, nullptr, false);
  bool is_whole = json.is_object();
  for (const char* key : kNumbers) is_whole = is_whole && json.contains(key) && json[key].is_number();
  check(is_whole && json["image"] == image, name, ": line ", number, " is not that of image ", image,
        ": the file is damaged; remove that line and what follows to resume before it");
  return json;
}

}  // namespace

LikelihoodFile::LikelihoodFile(const std::filesystem::path& path, const Json& settings,
                               const ImageRange& range, bool resume) {
  check(!resume || !path.empty(), "--resume: name the file to continue with --out");
  if (path.empty()) return;
  const std::string header = text_of({{kHeader, settings}}) + '\n';
  const std::string name = path.string();
  std::string kept = header;
  if (std::filesystem::exists(path)) {
    check(resume, "--out ", name, ": exists; continue it with --resume or name another file");
    const std::string text = read_text(path, kMaxFileBytes);
    const std::vector<std::string> lines = split(text);
    if (!lines.empty()) check_settings(name, lines[0], settings);
    for (std::size_t i = 1; i < lines.size(); ++i)
      lines_.push_back(parse_image(name, lines[i], i + 1, range.first + static_cast<std::int64_t>(i) - 1));
    const std::int64_t done = std::ssize(lines_);
    check(done <= range.n, name, ": holds ", done, " images already, more than --n ", range.n);
    if (done < range.n) lines_.resize(static_cast<std::size_t>(done / range.batch * range.batch));
    for (std::size_t i = 0; i < lines_.size(); ++i) kept += lines[i + 1] + '\n';
    if (kept == text) kept.clear();
  }
  if (!kept.empty()) {
    AtomicFile file(path);
    file.write(kept);
    file.commit();
  }
  file_ = std::make_unique<AppendFile>(path);
}

void LikelihoodFile::add(const Json& line) {
  if (file_) file_->append(text_of(line) + '\n');
  lines_.push_back(line);
}

}  // namespace sgm::cli
