#include "plot/ticks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace sgm {
namespace {

/// A number with the true minus sign.
std::string number(double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%g", std::abs(value));
  return (value < 0 ? "\u2212" : "") + std::string(digits);
}

std::string power_of_ten(int exponent) {
  static const char* const raised[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074",
                                       "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string text = exponent < 0 ? "10\u207b" : "10";
  for (const char digit : std::to_string(std::abs(exponent))) text += raised[digit - '0'];
  return text;
}

}  // namespace

std::vector<Tick> linear_ticks(double low, double high, int count) {
  const double rough = (high - low) / std::max(1, count);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  const double lead = rough / power;
  const double step = power * (lead < 1.5 ? 1.0 : lead < 3.5 ? 2.0 : lead < 7.5 ? 5.0 : 10.0);
  std::vector<Tick> ticks;
  const double slack = 1e-9 * (high - low);
  const double first = std::ceil((low - slack) / step), last = std::floor((high + slack) / step);
  if (!(std::abs(first) < 1e15 && std::abs(last) < 1e15)) return {};  // no two of them could be told apart
  for (double k = first; k <= last; ++k) {
    // Rounded to the step's digits: 3 * 0.1 reads 0.3.
    const double value = std::round(k * step / power) * power;
    ticks.push_back({value, number(std::abs(value) < slack ? 0.0 : value)});
  }
  return ticks;
}

std::vector<Tick> log_ticks(double low, double high, int count) {
  const int first = static_cast<int>(std::floor(std::log10(low) + 1e-9));
  const int last = static_cast<int>(std::floor(std::log10(high) + 1e-9));
  const double slack = 1e-9;
  const auto is_inside = [&](double value) {
    return value >= low * (1 - slack) && value <= high * (1 + slack);
  };
  const int powers = last - first + (is_inside(std::pow(10.0, first)) ? 1 : 0);
  const int every = std::max(1, static_cast<int>(std::ceil(static_cast<double>(powers) / count)));
  std::vector<Tick> ticks;
  for (int exponent = first; exponent <= last; ++exponent)
    for (int digit = 1; digit <= 9; ++digit) {
      const double value = digit * std::pow(10.0, exponent);
      if (!is_inside(value) || (digit > 1 && every > 1)) continue;
      const bool is_power = digit == 1 && exponent % every == 0;
      const bool is_numbered = is_power || (powers < 2 && (digit == 1 || digit == 2 || digit == 5));
      const std::string text = powers < 2 ? number(value) : power_of_ten(exponent);
      ticks.push_back({value, is_numbered ? text : ""});
    }
  return ticks;
}

}  // namespace sgm
