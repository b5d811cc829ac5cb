#include "backend/cuda/plan_cache.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <system_error>

namespace sgm {
namespace {

constexpr const char* kFirstLine = "sgm plans 1";
constexpr const char* kLastWord = "end ";  // followed by the number of choices

/// An absolute folder that an environment variable names.
std::optional<std::filesystem::path> folder_from(const char* variable) {
  const char* value = std::getenv(variable);
  if (!value || value[0] != '/') return std::nullopt;
  return value;
}

}  // namespace

PlanCache::PlanCache(std::optional<std::filesystem::path> path) : path_(std::move(path)) {
  if (path_) choices_ = read(*path_);
}

std::optional<std::string> PlanCache::find(const std::string& key) const {
  const auto found = choices_.find(key);
  if (found == choices_.end()) return std::nullopt;
  return found->second;
}

void PlanCache::put(const std::string& key, const std::string& choice) {
  if (path_) choices_.merge(read(*path_));
  choices_[key] = choice;
  if (path_) write();
}

PlanCache::Choices PlanCache::read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  if (!std::getline(file, line) || line != kFirstLine) return {};
  Choices choices;
  while (std::getline(file, line)) {
    if (line == kLastWord + std::to_string(choices.size()) && !file.eof()) return choices;
    const std::size_t tab = line.find('\t');
    if (tab == std::string::npos || line.find('\t', tab + 1) != std::string::npos) return {};
    choices[line.substr(0, tab)] = line.substr(tab + 1);
  }
  return {};
}

void PlanCache::write() const {
  std::ostringstream text;
  text << kFirstLine << '\n';
  for (const auto& [key, choice] : choices_) text << key << '\t' << choice << '\n';
  text << kLastWord << choices_.size() << '\n';

  // Under its name the file is always whole: it is renamed into place.
  std::error_code ignored;
  std::filesystem::create_directories(path_->parent_path(), ignored);
  std::filesystem::path temporary = *path_;
  temporary += '.' + std::to_string(getpid());
  std::ofstream file(temporary, std::ios::binary);
  file << text.str();
  file.close();
  if (file) std::filesystem::rename(temporary, *path_, ignored);
  if (!file || ignored) std::filesystem::remove(temporary, ignored);
}

std::optional<std::filesystem::path> PlanCache::default_path(const std::string& name) {
  if (const auto cache = folder_from("XDG_CACHE_HOME")) return *cache / "sgm" / name;
  if (const auto home = folder_from("HOME")) return *home / ".cache" / "sgm" / name;
  return std::nullopt;
}

}  // namespace sgm
