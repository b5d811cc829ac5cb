#pragma once
// Repeated timing, and the figures that every benchmark reports.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace sgm::bench {

/// Wall seconds of each of `repeats` calls, after `warmup` untimed ones.
template <class F>
std::vector<double> seconds_of(int warmup, int repeats, F&& f) {
  std::vector<double> seconds;
  for (int i = 0; i < warmup + repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    if (i >= warmup) seconds.push_back(elapsed.count());
  }
  return seconds;
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

inline double best(const std::vector<double>& values) {
  return *std::min_element(values.begin(), values.end());
}

/// Largest resident size of this process so far, MiB.
inline double peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

}  // namespace sgm::bench
