#pragma once
// Choices that were measured once, kept in a text file for later runs.

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace sgm {

/// A file of lines "<key> <tab> <choice>". A file that is missing, torn or of another program is as good as
/// an empty one, and one that cannot be written stays as it is: what it would have saved is time only.
class PlanCache {
 public:
  /// No path: nothing is read or kept.
  explicit PlanCache(std::optional<std::filesystem::path> path);

  std::optional<std::string> find(const std::string& key) const;
  /// Keeps a choice, beside what other processes may have added meanwhile. Neither text may hold a tab or a
  /// line feed.
  void put(const std::string& key, const std::string& choice);

  /// $XDG_CACHE_HOME/sgm/<name>, or ~/.cache/sgm/<name>; none where there is no home.
  static std::optional<std::filesystem::path> default_path(const std::string& name);

 private:
  using Choices = std::map<std::string, std::string>;
  static Choices read(const std::filesystem::path& path);
  void write() const;

  std::optional<std::filesystem::path> path_;
  Choices choices_;
};

}  // namespace sgm
