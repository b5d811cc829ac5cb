// Densities from TOML: the kinds, their keys, and what is wrong with a file.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/toml_text.h"
#include "lab/checkerboard.h"
#include "lab/mixture.h"
#include "sgm/core/registry.h"
#include "sgm/io/input_file.h"

namespace sgm {
namespace {

/// Numbers in arrays of arrays; [2, 3] holds two arrays of three.
struct Numbers {
  std::vector<std::size_t> sizes;
  std::vector<double> values;
};

/// One density's table.
class Fields {
 public:
  Fields(const toml::table& table, std::filesystem::path file) : table_(table), file_(std::move(file)) {}

  const std::filesystem::path& file() const { return file_; }
  bool has(std::string_view key) const { return table_.contains(key); }
  Origin origin(std::string_view key) const {
    return {file_.string() + ':' + std::to_string(node(key).source().begin.line), std::string(key)};
  }

  template <class T>
  T get(std::string_view key) const {
    T value{};
    read(node(key), origin(key), value);
    return value;
  }
  template <class T>
  T get(std::string_view key, T fallback) const {
    return has(key) ? get<T>(key) : fallback;
  }

  double positive(std::string_view key, double fallback) const {
    const double value = get(key, fallback);
    check(value > 0 && value < 1e6, has(key) ? origin(key).place + ": " : "", key,
          " must be positive and below 1e6, got ", value);
    return value;
  }

  Numbers numbers(std::string_view key, const char* expected) const {
    Numbers result;
    collect(node(key), origin(key), expected, 0, result);
    return result;
  }

  std::optional<Density::Range> range() const {
    if (!has("range")) return std::nullopt;
    const Numbers ends = numbers("range", "[low, high]");
    check(ends.sizes.size() == 1 && ends.values.size() == 2 && ends.values[0] < ends.values[1],
          origin("range").place, ": range must be [low, high] with low < high");
    return Density::Range{ends.values[0], ends.values[1]};
  }

  std::string name() const { return get("name", file_.stem().string()); }

 private:
  const toml::node& node(std::string_view key) const {
    const toml::node* found = table_.get(key);
    if (!found) fail(file_.string(), ": the key ", key, " is missing");
    return *found;
  }

  static void collect(const toml::node& node, const Origin& origin, const char* expected, std::size_t depth,
                      Numbers& out) {
    if (depth == out.sizes.size() && node.is_array()) out.sizes.push_back(node.as_array()->size());
    if (depth == out.sizes.size()) {
      double value = 0.0;
      if (!node.is_number()) fail_type(origin, expected, node);
      read(node, origin, value);
      check(std::isfinite(value) && std::abs(value) < 1e9, origin.place, ": ", origin.key,
            ": numbers must be finite and below 1e9, got ", value);
      out.values.push_back(value);
      return;
    }
    if (!node.is_array() || depth > 3) fail_type(origin, expected, node);
    const toml::array& array = *node.as_array();
    check(!array.empty() && array.size() == out.sizes[depth], origin.place, ": ", origin.key,
          ": arrays side by side must have the same length; here ", array.size(), " and ", out.sizes[depth]);
    for (const toml::node& element : array) collect(element, origin, expected, depth + 1, out);
  }

  const toml::table& table_;
  std::filesystem::path file_;
};

// ---- mixtures of Gaussians

/// Full covariances, or the standard deviations of isotropic components.
std::vector<double> covariances_of(const Fields& fields, std::size_t count, std::size_t d) {
  const bool full = fields.has("covariances");
  check(full != fields.has("stds"), fields.file().string(),
        ": give either covariances, one matrix a component, or stds, one number a component");
  if (full) {
    const Numbers given = fields.numbers("covariances", "an array of matrices");
    check(given.sizes == std::vector{count, d, d}, fields.origin("covariances").place,
          ": covariances must be one ", d, " x ", d, " matrix for each of ", count, " components");
    return given.values;
  }
  const Numbers stds = fields.numbers("stds", "an array of numbers");
  check(stds.sizes == std::vector{count}, fields.origin("stds").place,
        ": stds must be one number for each of ", count, " components, got ", stds.values.size());
  std::vector<double> covariances(count * d * d, 0.0);
  for (std::size_t k = 0; k < count; ++k) {
    check(stds.values[k] > 0, fields.origin("stds").place, ": stds must be positive, got ", stds.values[k]);
    for (std::size_t i = 0; i < d; ++i) covariances[(k * d + i) * d + i] = stds.values[k] * stds.values[k];
  }
  return covariances;
}

std::unique_ptr<Density> make_gaussian_mixture(const Fields& fields) {
  Numbers means = fields.numbers("means", "an array of points");
  if (means.sizes.size() == 1) means.sizes.push_back(1);  // [1, 2] is short for [[1], [2]]
  const Numbers weights = fields.numbers("weights", "an array of numbers");
  check(means.sizes.size() == 2 && weights.sizes == std::vector{means.sizes[0]},
        fields.origin("weights").place, ": weights must be one number for each of ", means.sizes[0],
        " means, got ", weights.values.size());
  check(means.sizes[1] <= kMaxDim, fields.origin("means").place, ": means of ", means.sizes[1],
        " coordinates; at most ", kMaxDim, " are supported");
  std::vector<double> covariances = covariances_of(fields, means.sizes[0], means.sizes[1]);
  try {
    return gaussian_mixture(fields.name(), weights.values, means.values, std::move(covariances),
                            fields.range());
  } catch (const Error& error) {
    fail(fields.file().string(), ": ", error.what());
  }
}

// ---- Gaussians along curves

constexpr std::size_t kMaxKernels = 20'000;

/// Centres along curves. Side by side at one standard deviation their sum is constant along the curve to
/// 1e-8.
class Centres {
 public:
  Centres(const Fields& fields, double width) : fields_(fields), width_(width) {}

  /// From parameter 0 to 1; `length` is the curve's, `closed` leaves out the last point.
  template <class Curve>
  void add(double length, bool closed, const Curve& curve) {
    const double steps = std::ceil(length / width_);
    check(static_cast<double>(centres_.size() / 2) + steps <= static_cast<double>(kMaxKernels),
          fields_.file().string(), ": width = ", width_, " is too fine for curves that long; at most ",
          kMaxKernels, " Gaussians stand side by side");
    const int n = std::max(1, static_cast<int>(steps));
    for (int i = 0; i < n + !closed; ++i) {
      const auto [x, y] = curve(static_cast<double>(i) / n);
      centres_.push_back(x);
      centres_.push_back(y);
    }
  }

  std::unique_ptr<Density> density() {
    return kernel_mixture(fields_.name(), 2, std::move(centres_), width_, fields_.range());
  }

 private:
  const Fields& fields_;
  double width_;
  std::vector<double> centres_;
};

using Point = std::pair<double, double>;

std::unique_ptr<Density> make_rings(const Fields& fields) {
  const Numbers radii = fields.numbers("radii", "an array of numbers");
  Centres centres(fields, fields.positive("width", 0.08));
  for (const double r : radii.values) {
    check(radii.sizes.size() == 1 && r >= 0, fields.origin("radii").place,
          ": radii must be numbers that are not negative, got ", r);
    centres.add(2.0 * std::numbers::pi * r, true, [&](double u) {
      return Point{r * std::cos(2.0 * std::numbers::pi * u), r * std::sin(2.0 * std::numbers::pi * u)};
    });
  }
  return centres.density();
}

/// Archimedes' spiral from radius `inner` to `outer`; equal steps of its angle would crowd the middle.
std::unique_ptr<Density> make_swiss_roll(const Fields& fields) {
  const double inner = fields.positive("inner", 0.5), outer = fields.positive("outer", 2.0);
  const double turns = fields.positive("turns", 1.5), angle = 2.0 * std::numbers::pi * turns;
  check(inner < outer, fields.file().string(), ": inner must be less than outer, got ", inner, " and ",
        outer);
  const double growth = (outer - inner) / angle;  // r = inner + growth * angle
  const auto length_to = [&](double r) {          // of the whole spiral r = growth * angle
    const double u = r / growth;
    return 0.5 * growth * (u * std::hypot(1.0, u) + std::asinh(u));
  };
  const double before = length_to(inner), length = length_to(outer) - before;
  Centres centres(fields, fields.positive("width", 0.06));
  centres.add(length, false, [&](double u) {
    double low = inner, high = outer;
    for (int i = 0; i < 60; ++i) {
      const double middle = 0.5 * (low + high);
      (length_to(middle) - before < u * length ? low : high) = middle;
    }
    const double phi = (low - inner) / growth;
    return Point{low * std::cos(phi), low * std::sin(phi)};
  });
  return centres.density();
}

/// Two half circles, each around the end of the other, centred at the origin.
std::unique_ptr<Density> make_two_moons(const Fields& fields) {
  const double r = fields.positive("radius", 1.0), length = std::numbers::pi * r;
  Centres centres(fields, fields.positive("width", 0.08));
  for (const double side : {1.0, -1.0})
    centres.add(length, false, [&](double u) {
      const double phi = std::numbers::pi * u;
      return Point{side * r * (std::cos(phi) - 0.5), side * r * (std::sin(phi) - 0.25)};
    });
  return centres.density();
}

// ---- others

std::unique_ptr<Density> make_checkerboard(const Fields& fields) {
  const int cells = fields.get("cells", 4);
  check(cells >= 2 && cells <= kMaxCells, fields.has("cells") ? fields.origin("cells").place + ": " : "",
        "cells must lie in [2, ", kMaxCells, "], got ", cells);
  return checkerboard(fields.name(), cells, fields.positive("size", 4.0), fields.range());
}

/// Rows of numbers apart by commas; blank lines and those that start with # are left out.
Numbers read_csv(const std::filesystem::path& file) {
  constexpr std::uint64_t kMaxBytes = 16u << 20;
  const std::string text = read_text(file, kMaxBytes);
  Numbers result{{0, 0}, {}};
  std::size_t line_number = 0;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    std::string_view line(text.data() + start, end - start);
    start = end + 1;
    ++line_number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == line.npos || line.front() == '#') continue;
    const std::size_t before = result.values.size();
    for (std::size_t from = 0; from <= line.size();) {
      const std::size_t comma = std::min(line.find(',', from), line.size());
      const std::string word(line.substr(from, comma - from));
      char* stop = nullptr;
      const double value = std::strtod(word.c_str(), &stop);
      const bool is_number =
          stop != word.c_str() &&
          word.find_first_not_of(" \t", static_cast<std::size_t>(stop - word.c_str())) == word.npos;
      check(is_number && std::isfinite(value) && std::abs(value) < 1e9, file.string(), ':', line_number,
            ": '", shown(word, 30), "' is no finite number");
      result.values.push_back(value);
      from = comma + 1;
    }
    const std::size_t columns = result.values.size() - before;
    if (result.sizes[0]++ == 0) result.sizes[1] = columns;
    check(columns == result.sizes[1], file.string(), ':', line_number, ": ", columns,
          " numbers, but the rows before have ", result.sizes[1]);
  }
  return result;
}

std::unique_ptr<Density> make_points(const Fields& fields) {
  constexpr std::size_t kLeastPoints = 2;
  const std::filesystem::path file = fields.file().parent_path() / fields.get<std::string>("file");
  Numbers points = read_csv(file);
  check(points.sizes[0] >= kLeastPoints && points.sizes[0] <= kMaxKernels, file.string(), ": ",
        points.sizes[0], " points; from ", kLeastPoints, " to ", kMaxKernels, " are supported");
  check(points.sizes[1] <= kMaxDim, file.string(), ": points of ", points.sizes[1], " coordinates; at most ",
        kMaxDim, " are supported");
  const double bandwidth = fields.positive("bandwidth", 0.05);
  return kernel_mixture(fields.name(), static_cast<int>(points.sizes[1]), std::move(points.values), bandwidth,
                        fields.range());
}

struct NamedDensity {
  std::string_view name;
  std::vector<std::string_view> keys;  // besides those of every kind
  std::unique_ptr<Density> (*create)(const Fields& fields);
};
const NamedDensity kDensities[] = {
    {"gaussian_mixture", {"weights", "means", "covariances", "stds"}, make_gaussian_mixture},
    {"rings", {"radii", "width"}, make_rings},
    {"checkerboard", {"cells", "size"}, make_checkerboard},
    {"swiss_roll", {"inner", "outer", "turns", "width"}, make_swiss_roll},
    {"two_moons", {"radius", "width"}, make_two_moons},
    {"points", {"file", "bandwidth"}, make_points},
};

void check_keys(const toml::table& table, const NamedDensity& entry, const std::string& file) {
  std::vector<std::string_view> known = {"kind", "name", "range"};
  known.insert(known.end(), entry.keys.begin(), entry.keys.end());
  for (const auto& [key, node] : table) {
    const std::string_view name = key.str();
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const auto nearest = std::min_element(known.begin(), known.end(), [&](auto a, auto b) {
      return edit_distance(shown(name), a) < edit_distance(shown(name), b);
    });
    fail(file, ':', key.source().begin.line, ": unknown key ", shown(name), " of kind ", entry.name,
         "; the nearest known key is ", *nearest);
  }
}

}  // namespace

std::unique_ptr<Density> parse_density(const std::string& text, const std::filesystem::path& name) {
  const toml::table table = parse_toml(text, name.string());
  const Fields fields(table, name);
  const std::string kind = fields.get<std::string>("kind");
  const NamedDensity& entry = find_entry(kDensities, shown(kind), fields.origin("kind").place + ": kind");
  check_keys(table, entry, name.string());
  return entry.create(fields);
}

std::unique_ptr<Density> load_density(const std::filesystem::path& toml) {
  return parse_density(read_toml_file(toml), toml);
}

std::vector<std::string> density_names() { return names_of(kDensities); }

}  // namespace sgm
