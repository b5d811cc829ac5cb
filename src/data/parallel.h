#pragma once
// Decoding on several threads.

#include <algorithm>
#include <cstdint>
#include <future>
#include <thread>
#include <vector>

namespace sgm {

/// Threads that decoding images may use.
inline int decoding_threads() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 8u));
}

/// Calls body(i) for i in [0, count) on up to `threads` threads, each taking one run of neighbours. Of
/// several exceptions the one with the lowest run is rethrown, after all threads have ended.
template <class Body>
void parallel_for(std::int64_t count, int threads, const Body& body) {
  const std::int64_t runs = std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(count, 1));
  const auto run = [&](std::int64_t r) {
    for (std::int64_t i = count * r / runs; i < count * (r + 1) / runs; ++i) body(i);
  };
  if (runs == 1) return run(0);
  std::vector<std::future<void>> others;
  for (std::int64_t r = 0; r < runs; ++r) others.push_back(std::async(std::launch::async, run, r));
  for (std::future<void>& other : others) other.wait();
  for (std::future<void>& other : others) other.get();
}

}  // namespace sgm
