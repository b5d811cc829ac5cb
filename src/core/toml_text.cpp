#include "core/toml_text.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace sgm {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 16;

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

}  // namespace

std::string shown(std::string_view text, std::size_t longest) {
  std::string out(text.substr(0, longest));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text.size() > longest ? out + "..." : out;
}

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

void fail_type(const Origin& origin, const char* expected, const toml::node& node) {
  fail(origin.place, ": ", origin.key, " must be ", expected, ", got ", description_of(node));
}

void read(const toml::node& node, const Origin& origin, bool& field) {
  if (!node.is_boolean()) fail_type(origin, "true or false", node);
  field = node.as_boolean()->get();
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

std::string read_toml_file(const std::filesystem::path& file) {
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

}  // namespace sgm
