#include "sgm/core/config.h"

#include <toml++/toml.h>
#include <algorithm>
#include <charconv>
#include <concepts>
#include <fstream>
#include <limits>
#include <sstream>
#include <string_view>
#include <utility>

#include "sgm/core/error.h"

namespace sgm {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 16;

/// File content in messages: control characters replaced, shortened.
std::string shown(std::string_view text, std::size_t longest = 80) {
  std::string out(text.substr(0, longest));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text.size() > longest ? out + "..." : out;
}

std::string_view trimmed(std::string_view text) {
  constexpr const char* kBlanks = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kBlanks);
  return first == text.npos ? text.substr(0, 0)
                            : text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// ---- values to TOML

std::string text_of(bool value) { return value ? "true" : "false"; }

template <std::integral Int>
std::string text_of(Int value) {
  return std::to_string(value);
}

/// The shortest decimal that reads back as the same double, with a point or exponent, so that it stays one.
std::string text_of(double value) {
  char buffer[32];
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string text_of(std::string_view value) {
  std::string text = "\"";
  for (const char c : value) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      text += {'\\', c};
    } else if (code < 0x20 || code == 0x7f) {
      constexpr const char* kHex = "0123456789ABCDEF";
      text += {'\\', 'u', '0', '0', kHex[code >> 4], kHex[code & 15]};
    } else {
      text += c;
    }
  }
  return text + '"';
}

std::string text_of(const std::vector<int>& values) {
  std::string text = "[";
  for (const int value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + ']';
}

// ---- names

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = std::exchange(row[0], static_cast<int>(i));
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

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

/// Where a value comes from: "file:line" or an override, and "table.key".
struct Origin {
  std::string place;
  std::string key;
};

std::string description_of(const toml::node& node) {
  std::ostringstream value;
  node.visit([&](const auto& held) {
    using Held = std::decay_t<decltype(held)>;
    if constexpr (toml::is_string<Held>) value << "the string \"" << shown(held.get()) << '"';
    if constexpr (toml::is_integer<Held> || toml::is_boolean<Held>) value << text_of(held.get());
    if constexpr (toml::is_floating_point<Held>) value << text_of(held.get());
    if constexpr (toml::is_array<Held>) value << "an array";
    if constexpr (toml::is_table<Held>) value << "a table";
    if constexpr (toml::is_chronological<Held>) value << "a date or time";
  });
  return value.str();
}

[[noreturn]] void fail_type(const Origin& origin, const char* expected, const toml::node& node) {
  fail(origin.place, ": ", origin.key, " must be ", expected, ", got ", description_of(node));
}

void read(const toml::node& node, const Origin& origin, bool& field) {
  if (!node.is_boolean()) fail_type(origin, "true or false", node);
  field = node.as_boolean()->get();
}

template <std::integral Int>
void read(const toml::node& node, const Origin& origin, Int& field) {
  if (!node.is_integer()) fail_type(origin, "an integer", node);
  const std::int64_t value = node.as_integer()->get();
  check(std::in_range<Int>(value), origin.place, ": ", origin.key, " must lie in [",
        std::numeric_limits<Int>::min(), ", ", std::numeric_limits<Int>::max(), "], got ", value);
  field = static_cast<Int>(value);
}

void read(const toml::node& node, const Origin& origin, double& field) {
  if (!node.is_number()) fail_type(origin, "a number", node);
  field = node.is_integer() ? static_cast<double>(node.as_integer()->get()) : node.as_floating_point()->get();
}

void read(const toml::node& node, const Origin& origin, std::string& field) {
  if (!node.is_string()) fail_type(origin, "a string in quotes", node);
  field = node.as_string()->get();
}

void read(const toml::node& node, const Origin& origin, std::vector<int>& field) {
  if (!node.is_array()) fail_type(origin, "an array of integers", node);
  std::vector<int> values;
  for (const toml::node& element : *node.as_array()) {
    if (!element.is_integer()) fail_type(origin, "an array of integers", element);
    read(element, origin, values.emplace_back());
  }
  field = std::move(values);
}

/// Refuses keys of very many parts (a.a.a...): each part nests a table, and toml++ 3.3 frees nested tables by
/// recursion, which would run out of stack.
void check_key_parts(std::string_view text, const std::string& place) {
  constexpr int kMostDots = 16;
  int dots = 0;
  char last = '\n';
  for (const char c : text) {
    const bool ends_key = std::string_view("={}[],#\n").find(c) != std::string_view::npos;
    if (ends_key || (c == '.' && last == '.')) dots = 0;
    dots += c == '.';
    check(dots <= kMostDots, place, ": a key of more than ", kMostDots, " parts; keys are [table] and key");
    if (c != ' ' && c != '\t') last = c;
  }
}

toml::table parse_toml(std::string_view text, const std::string& place) {
  check(text.size() <= kMaxFileBytes, place, ": ", text.size(),
        " bytes are too long for a configuration (at most ", kMaxFileBytes, "); is it the right file?");
  check_key_parts(text, place);
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    fail(place, ':', error.source().begin.line, ": ", shown(error.description(), 200));
  }
}

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

std::string read_file_text(const std::filesystem::path& file) {
  std::error_code error;
  check(!std::filesystem::is_directory(file, error), file.string(), ": is a folder; name a TOML file");
  std::ifstream stream(file, std::ios::binary);
  check(stream.is_open(), file.string(),
        ": cannot open the configuration; check the path and the permissions");
  std::string text(kMaxFileBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  check(!stream.bad(), file.string(), ": cannot read the configuration; check the disk");
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

}  // namespace

Config load_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
  Config config = read_config(read_file_text(file), file.string());
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
