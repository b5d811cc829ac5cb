#pragma once
// Reading TOML: values in their types, and messages that name the file, the line and the key.

#include <toml++/toml.h>
#include <concepts>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sgm/core/error.h"

namespace sgm {

/// File content in messages: control characters replaced, shortened.
std::string shown(std::string_view text, std::size_t longest = 80);

/// Insertions, deletions and replacements that turn one word into the other.
int edit_distance(std::string_view a, std::string_view b);

/// Values as TOML.
inline std::string text_of(bool value) { return value ? "true" : "false"; }
template <std::integral Int>
std::string text_of(Int value) {
  return std::to_string(value);
}
/// The shortest decimal that reads back as the same double, with a point or exponent, so that it stays one.
std::string text_of(double value);
std::string text_of(std::string_view value);
std::string text_of(const std::vector<int>& values);

/// Where a value comes from: "file:line" or an override, and "table.key".
struct Origin {
  std::string place;
  std::string key;
};

/// Throws the Error "PLACE: KEY must be EXPECTED, got ...".
[[noreturn]] void fail_type(const Origin& origin, const char* expected, const toml::node& node);

/// Each throws Error for a node of another type.
void read(const toml::node& node, const Origin& origin, bool& field);
void read(const toml::node& node, const Origin& origin, double& field);
void read(const toml::node& node, const Origin& origin, std::string& field);
void read(const toml::node& node, const Origin& origin, std::vector<int>& field);
template <std::integral Int>
void read(const toml::node& node, const Origin& origin, Int& field) {
  if (!node.is_integer()) fail_type(origin, "an integer", node);
  const std::int64_t value = node.as_integer()->get();
  check(std::in_range<Int>(value), origin.place, ": ", origin.key, " must lie in [",
        std::numeric_limits<Int>::min(), ", ", std::numeric_limits<Int>::max(), "], got ", value);
  field = static_cast<Int>(value);
}

/// `place` stands for the file in messages.
toml::table parse_toml(std::string_view text, const std::string& place);

/// What a file holds, cut where parse_toml() would refuse it for its length.
std::string read_toml_file(const std::filesystem::path& file);

}  // namespace sgm
