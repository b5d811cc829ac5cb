#pragma once
// Lookups in extension tables: arrays of {name, ...} in the source file that defines the family.

#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "sgm/core/error.h"

namespace sgm {

/// Names of a table's entries, in its order.
template <class Table>
std::vector<std::string> names_of(const Table& table) {
  std::vector<std::string> names;
  for (const auto& entry : table) names.emplace_back(entry.name);
  return names;
}

/// The entry called `name`. Throws Error naming `field` (such as "sampling.predictor") and the known names.
template <class Table>
const auto& find_entry(const Table& table, std::string_view name, std::string_view field) {
  for (const auto& entry : table)
    if (entry.name == name) return entry;
  std::ostringstream known;
  for (const auto& entry : table) known << (known.tellp() > 0 ? ", " : "") << entry.name;
  fail(field, ": '", name, "' is unknown; use one of: ", known.str());
}

}  // namespace sgm
