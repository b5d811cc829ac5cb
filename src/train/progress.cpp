#include "sgm/train/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>

namespace sgm {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kPlainSeconds = 10;
constexpr int kPlainColumns = 200;

template <class... Values>
std::string formatted(const char* format, Values... values) {
  char buffer[128];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

/// One less than the width of the terminal, so that the cursor never wraps to the next line.
int usable_columns() {
  winsize size{};
  for (const int descriptor : {STDERR_FILENO, STDOUT_FILENO})
    if (::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) return size.ws_col - 1;
  return 79;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string format_eta(double seconds) {
  constexpr double kDay = 86400;
  if (!(seconds >= 0 && seconds < 1000 * kDay)) return "?";
  const long long s = std::llround(seconds);
  if (s < 60) return formatted("%llds", s);
  if (s < 3600) return formatted("%lldm%02llds", s / 60, s % 60);
  if (s < 86400) return formatted("%lldh%02lldm", s / 3600, s / 60 % 60);
  return formatted("%lldd%02lldh", s / 86400, s / 3600 % 24);
}

std::string format_rate(double rate) {
  if (!(rate >= 0 && std::isfinite(rate))) return "? img/s";
  const int digits = rate < 9.995 ? 2 : rate < 99.95 ? 1 : 0;
  return formatted("%.*f img/s", digits, rate);
}

std::string format_progress(const ProgressLine& line, int columns) {
  const double percent =
      line.total > 0 ? 100.0 * static_cast<double>(line.step) / static_cast<double>(line.total) : 0;
  std::string text = "step " + std::to_string(line.step) + '/' + std::to_string(line.total) +
                     formatted("  %d%%", static_cast<int>(percent));
  if (line.loss) text += formatted("  loss %.4g", *line.loss);
  if (line.accuracy) text += formatted("  %.1f%% right", 100.0 * *line.accuracy);
  text += "  " + format_rate(line.images_per_second) + "  eta " + format_eta(line.eta_seconds);
  if (columns >= 0 && text.size() > static_cast<std::size_t>(columns))
    text.resize(static_cast<std::size_t>(columns));
  return text;
}

bool is_terminal(int descriptor) { return ::isatty(descriptor) == 1; }

Progress::Progress(std::ostream& out, bool on_terminal, std::int64_t first, std::int64_t total, Clock clock)
    : out_(out),
      on_terminal_(on_terminal),
      first_(first),
      total_(total),
      clock_(clock ? std::move(clock) : Clock(steady_seconds)),
      start_(clock_()) {}

Progress::~Progress() {
  if (!drawn_.empty()) out_ << '\n' << std::flush;
}

void Progress::update(std::int64_t step, std::optional<double> loss, double images_per_second,
                      std::optional<double> accuracy) {
  const double now = clock_();
  const double interval = on_terminal_ ? kRedrawSeconds : kPlainSeconds;
  if (last_shown_ && now - *last_shown_ < interval && step < total_) return;
  last_shown_ = now;
  const std::int64_t done = step - first_;
  const double eta =
      done > 0 ? (now - start_) / static_cast<double>(done) * static_cast<double>(total_ - step) : -1;
  draw(format_progress({step, total_, loss, images_per_second, eta, accuracy},
                       on_terminal_ ? usable_columns() : kPlainColumns));
}

void Progress::note(std::string_view text) {
  const std::string below = drawn_;
  clear();
  out_ << text << '\n';
  if (!below.empty()) draw(below);
  out_ << std::flush;
}

void Progress::draw(const std::string& text) {
  if (!on_terminal_) {
    out_ << text << '\n' << std::flush;
    return;
  }
  clear();
  out_ << text << std::flush;
  drawn_ = text;
}

void Progress::clear() {
  if (!drawn_.empty()) out_ << "\r\x1b[K";
  drawn_.clear();
}

}  // namespace sgm
