#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <ostream>

#include "sgm/core/bytes.h"
#include "sgm/profile/profile.h"

namespace sgm {
namespace {

constexpr std::size_t kShownLayers = 20;

[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

/// "98.2 GFLOP/s" or "5.1 GB/s": of what bounds the row.
std::string rate_of(const ProfileRow& row, const Ceilings& ceilings) {
  if (row.seconds <= 0) return "";
  const auto bytes = static_cast<double>(row.bytes);
  const bool product = row.flop / ceilings.flop_per_second > bytes / ceilings.bytes_per_second;
  return format("%.4g %s", 1e-9 * (product ? row.flop : bytes) / row.seconds, product ? "GFLOP/s" : "GB/s");
}

void write_row(std::ostream& out, const ProfileRow& row, const ProfileReport& report, int width) {
  const std::string reason = why_slow(row);
  const char* name = row.name.empty() ? "(outside of layers)" : row.name.c_str();
  out << format("%-*s %6lld %8lld %10.3f %5.1f %15s", width, name, static_cast<long long>(row.calls),
                static_cast<long long>(row.launches), 1e3 * row.seconds,
                100.0 * row.seconds / report.step.seconds, rate_of(row, report.ceilings).c_str());
  if (row.seconds > 0) out << format(" %6.0f %%", 100.0 * row.floor / row.seconds);
  if (!reason.empty()) out << "  * " << reason;
  out << '\n';
}

void write_rows(std::ostream& out, const char* title, std::span<const ProfileRow> rows,
                const ProfileReport& report) {
  std::size_t width = 20;
  for (const ProfileRow& row : rows) width = std::max(width, row.name.size());
  out << format("\n%-*s %6s %8s %10s %5s %15s %8s\n", static_cast<int>(width), title, "calls", "launches",
                "ms", "%", "rate", "ceiling");
  for (const ProfileRow& row : rows) write_row(out, row, report, static_cast<int>(width));
}

void write_totals(std::ostream& out, const ProfileReport& report, const ProfileRow& total) {
  const double seconds = report.step_seconds;
  const Ceilings& ceilings = report.ceilings;
  out << format("%.3f ms per step of %.0f images: %.1f img/s; peak memory of tensors %s\n", seconds * 1e3,
                report.images, report.images / seconds, format_bytes(report.peak_memory).c_str());
  out << format("ceilings, measured here: %.4g GFLOP/s of a product in %s, %.4g GB/s of a copy\n",
                1e-9 * ceilings.flop_per_second, report.precision.c_str(), 1e-9 * ceilings.bytes_per_second);
  out << format("achieved: %.4g GFLOP/s (%.0f %%), %.4g GB/s (%.0f %%)\n", 1e-9 * total.flop / seconds,
                100.0 * total.flop / seconds / ceilings.flop_per_second,
                1e-9 * static_cast<double>(total.bytes) / seconds,
                100.0 * static_cast<double>(total.bytes) / seconds / ceilings.bytes_per_second);
  out << format("floor, every op at its ceiling: %.3f ms; the step takes %.2f x as long\n", 1e3 * total.floor,
                seconds / total.floor);
  out << format("%lld launches in %lld ops", static_cast<long long>(total.launches),
                static_cast<long long>(total.calls));
  if (report.idle >= 0) out << format("; the GPU is idle %.1f %% of a step", 100.0 * report.idle);
  out << '\n';
  out << format("watched op by op, %s: %.3f ms, of which outside of ops %.3f ms\n",
                report.captured ? "launched call by call" : "as it is", 1e3 * report.step.seconds,
                1e3 * (report.step.seconds - total.seconds));
}

void write_plans(std::ostream& out, const ProfileReport& report) {
  out << format("\n%10s %6s %12s  %s\n", "ms", "calls", "GFLOP/s", "product and plan");
  for (const PlanRow& row : plans_of(report.step))
    out << format("%10.3f %6lld %12.4g  %s ", 1e3 * row.seconds, static_cast<long long>(row.calls),
                  1e-9 * row.flop / row.seconds, row.op.c_str())
        << row.plan << '\n';
}

}  // namespace

void write_table(std::ostream& out, const ProfileReport& report, const TableOptions& options) {
  const ProfileRow total = total_of(report.step, report.ceilings);
  write_totals(out, report, total);
  const std::vector<ProfileRow> ops = rows_by_op(report.step, report.ceilings),
                                layers = rows_by_layer(report.step, report.ceilings);
  write_rows(out, "op", ops, report);
  const std::size_t shown = options.all ? layers.size() : std::min(layers.size(), kShownLayers);
  write_rows(out, "layer", std::span(layers).first(shown), report);
  if (shown < layers.size()) out << "and " << layers.size() - shown << " more layers: --all shows them\n";
  out << "* slower than 60 % of the ceiling allows\n";
  if (options.plans) write_plans(out, report);
}

}  // namespace sgm
