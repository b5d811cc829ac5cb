#include "sgm/core/config.h"

#include <limits>
#include <string_view>
#include <utility>

#include "core/toml_text.h"
#include "sgm/core/error.h"

namespace sgm {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr const char* kBlanks = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kBlanks);
  return first == text.npos ? text.substr(0, 0)
                            : text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// ---- names

/// The known "table.key" closest to a wrong one; the same key in another table comes before a similar key.
std::string nearest_key(std::string_view table, std::string_view key) {
  std::string best;
  int least = std::numeric_limits<int>::max();
  Config known;
  known.visit([&](const char* known_table, auto& section) {
    section.visit([&](const char* known_key, auto&) {
      const int distance = 2 * edit_distance(shown(key), known_key) + (table != known_table);
      if (distance >= least) return;
      least = distance;
      best = std::string(known_table) + '.' + known_key;
    });
  });
  return best;
}

std::string nearest_table(std::string_view table) {
  std::string best;
  int least = std::numeric_limits<int>::max();
  Config known;
  known.visit([&](const char* known_table, auto&) {
    const int distance = edit_distance(shown(table), known_table);
    if (distance < least) least = distance, best = known_table;
  });
  return best;
}

// ---- TOML to values

template <class Section>
bool has_key(Section& section, std::string_view name) {
  bool found = false;
  section.visit([&](const char* key, auto&) { found = found || name == key; });
  return found;
}

template <class Section>
void read_table(const toml::table& table, const std::string& name, const std::string& file,
                Section& section) {
  for (const auto& [key, node] : table)
    check(has_key(section, key.str()), file, ':', key.source().begin.line, ": unknown key ", name, '.',
          shown(key.str()), "; the nearest known key is ", nearest_key(name, key.str()));
  section.visit([&](const char* key, auto& field) {
    if (const toml::node* node = table.get(key))
      read(*node, {file + ':' + std::to_string(node->source().begin.line), name + '.' + key}, field);
  });
}

Config read_config(const std::string& text, const std::string& file) {
  const toml::table root = parse_toml(text, file);
  Config config;
  for (const auto& [key, node] : root) {
    const std::string place = file + ':' + std::to_string(key.source().begin.line);
    if (has_key(config, key.str())) {
      if (!node.is_table()) fail_type({place, std::string(key.str())}, "a table", node);
    } else if (node.is_table()) {
      fail(place, ": unknown table [", shown(key.str()), "]; the nearest known table is [",
           nearest_table(key.str()), ']');
    } else {
      fail(place, ": unknown key ", shown(key.str()), " outside the tables; the nearest known key is ",
           nearest_key("", key.str()));
    }
  }
  config.visit([&](const char* name, auto& section) {
    if (const toml::node* node = root.get(name)) read_table(*node->as_table(), name, file, section);
  });
  return config;
}

// ---- overrides

/// The value of "key=value". What is no TOML value is taken as a string, so that words need no quotes; for a
/// string field, everything that is not in quotes is.
template <class Field>
void read_override(std::string_view text, const Origin& origin, Field& field) {
  const bool is_quoted = !text.empty() && (text.front() == '"' || text.front() == '\'');
  const bool is_word = std::is_same_v<Field, std::string> && !is_quoted;
  toml::table parsed;
  try {
    parsed = parse_toml("value = " + (is_word ? text_of(text) : std::string(text)), origin.place);
  } catch (const Error&) {
    if (is_quoted) throw;
    parsed = parse_toml("value = " + text_of(text), origin.place);
  }
  check(parsed.size() == 1, origin.place, ": expected one value");
  read(*parsed.get("value"), origin, field);
}

void apply_override(const std::string& text, Config& config) {
  const std::string place = "override '" + shown(text) + '\'';
  const std::size_t equals = text.find('=');
  check(equals != text.npos, place, ": expected table.key=value");
  const std::string_view name = trimmed(std::string_view(text).substr(0, equals));
  const std::string_view value = trimmed(std::string_view(text).substr(equals + 1));
  const std::size_t dot = name.find('.');
  const std::string_view table = dot == name.npos ? std::string_view() : name.substr(0, dot);
  const std::string_view key = dot == name.npos ? name : name.substr(dot + 1);
  bool found = false;
  config.visit([&](const char* known_table, auto& section) {
    if (table != known_table) return;
    section.visit([&](const char* known_key, auto& field) {
      if (key != known_key) return;
      found = true;
      read_override(value, {place, std::string(name)}, field);
    });
  });
  check(found, place, ": unknown key ", shown(name), "; the nearest known key is ", nearest_key(table, key));
}

Config finished(Config config, const std::string& name, std::span<const std::string> overrides) {
  for (const std::string& text : overrides) apply_override(text, config);
  try {
    validate(config);
  } catch (const Error& error) {
    fail(name, ": ", shown(error.what(), 400));
  }
  return config;
}

}  // namespace

Config load_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
  Config config = read_config(read_toml_file(file), file.string());
  const std::filesystem::path beside = (file.parent_path() / config.data.path).lexically_normal();
  std::error_code error;
  if (!config.data.path.empty() && std::filesystem::exists(beside, error)) config.data.path = beside.string();
  return finished(std::move(config), file.string(), overrides);
}

Config parse_config(const std::string& text, const std::string& name,
                    std::span<const std::string> overrides) {
  return finished(read_config(text, name), name, overrides);
}

std::string to_text(const Config& config) {
  std::string text;
  Config copy = config;  // visit() hands out mutable fields
  copy.visit([&](const char* table, auto& section) {
    text += (text.empty() ? "[" : "\n[") + std::string(table) + "]\n";
    section.visit(
        [&](const char* key, auto& field) { text += std::string(key) + " = " + text_of(field) + '\n'; });
  });
  return text;
}

}  // namespace sgm
