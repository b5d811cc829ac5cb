#include "sgm/train/metrics.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>

#include "sgm/io/atomic_file.h"

namespace sgm {
namespace {

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 30;
constexpr std::string_view kLineStart = "{\"step\":";

std::optional<std::int64_t> step_of(std::string_view line) {
  if (!line.starts_with(kLineStart)) return {};
  std::int64_t step = 0;
  const auto parsed = std::from_chars(line.data() + kLineStart.size(), line.data() + line.size(), step);
  if (parsed.ec != std::errc()) return {};
  return step;
}

/// The lines to keep of a run that resumes at `last_step`: not those of later steps, not a torn last line.
std::string kept_lines(std::string_view text, std::int64_t last_step) {
  std::string kept;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == text.npos) break;
    const std::string_view line = text.substr(0, end + 1);
    const std::optional<std::int64_t> step = step_of(line);
    if (!step || *step <= last_step) kept += line;
    text.remove_prefix(end + 1);
  }
  return kept;
}

/// The path of the metrics file, cleared of what came after `last_step`.
std::filesystem::path prepared(const std::filesystem::path& file, std::int64_t last_step) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) return file;
  const std::string text = read_text(file, kMaxFileBytes);
  const std::string kept = kept_lines(text, last_step);
  if (kept.size() == text.size()) return file;
  AtomicFile rewritten(file);
  rewritten.write(kept);
  rewritten.commit();
  return file;
}

std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

double seconds_since_1970() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(std::chrono::duration_cast<std::chrono::milliseconds>(now)).count();
}

}  // namespace

MetricsWriter::MetricsWriter(const std::filesystem::path& workdir, std::int64_t step)
    : lines_(prepared(workdir / "metrics.jsonl", step)), events_(workdir) {
  events_.restart(step + 1);
}

void MetricsWriter::write(std::int64_t step, std::span<const Metric> metrics) {
  std::string line = std::string(kLineStart) + std::to_string(step);
  for (const Metric& metric : metrics) {
    line.append(",\"").append(metric.name).append("\":").append(json_number(metric.value));
    events_.scalar(metric.name, step, metric.value);
  }
  lines_.append(line + ",\"time\":" + json_number(seconds_since_1970()) + "}\n");
}

void MetricsWriter::image(std::string_view tag, std::int64_t step, const EventImage& image) {
  events_.image(tag, step, image);
}

}  // namespace sgm
