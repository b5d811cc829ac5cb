#pragma once
// How far a run has come, for whoever watches it.

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

namespace sgm {

/// "42s", "3m05s", "2h14m", "3d04h"; "?" for what is negative, not finite or beyond a thousand days.
std::string format_eta(double seconds);

/// "0.42 img/s", "12.3 img/s", "1240 img/s"; "? img/s" for what is negative or not finite.
std::string format_rate(double images_per_second);

/// What one line shows.
struct ProgressLine {
  std::int64_t step = 0;
  std::int64_t total = 0;
  std::optional<double> loss;  // left out of the line when absent; NaN is shown
  double images_per_second = 0;
  double eta_seconds = 0;
  std::optional<double> accuracy = {};  // of classifiers, in [0, 1]
};

/// "step 1200/10000  12%  loss 0.0123  85.1 img/s  eta 3m05s", at most `columns` characters; an accuracy
/// stands behind the loss as "93.1% right".
std::string format_progress(const ProgressLine& line, int columns);

/// True when the file descriptor is a terminal.
bool is_terminal(int descriptor);

/// On a terminal, one line that is redrawn in place, at most ten times a second; elsewhere a plain line about
/// every ten seconds. The first and the last step are always shown.
class Progress {
 public:
  using Clock = std::function<double()>;  // seconds; only differences count

  /// Counts from step `first` (the steps done before) to `total`.
  Progress(std::ostream& out, bool on_terminal, std::int64_t first, std::int64_t total, Clock clock = {});
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `step` steps are done; the remaining time is extrapolated from those since the start.
  void update(std::int64_t step, std::optional<double> loss, double images_per_second,
              std::optional<double> accuracy = {});

  /// Prints a line of its own, above the bar.
  void note(std::string_view text);

 private:
  void draw(const std::string& text);
  void clear();

  std::ostream& out_;
  const bool on_terminal_;
  const std::int64_t first_, total_;
  Clock clock_;
  double start_;
  std::optional<double> last_shown_;
  std::string drawn_;  // what stands in the terminal's line
};

}  // namespace sgm
