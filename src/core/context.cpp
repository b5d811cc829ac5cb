#include "sgm/core/context.h"

#include <algorithm>
#include <map>

namespace sgm {

bool Context::note(const Work& work) {
  LaunchCount& count = counts_[work.kernel];
  count.kind = work.kind;
  ++count.launches;
  count.bytes += work.bytes;
  count.flop += work.flop;
  if (recorder_) recorder_->work(work);
  return !is_dry_;
}

std::vector<LaunchCount> Context::take_launch_counts() {
  std::map<std::string, LaunchCount> merged;  // one name may have several addresses
  for (const auto& [kernel, count] : counts_) {
    LaunchCount& sum = merged[kernel];
    sum.kernel = kernel;
    sum.kind = count.kind;
    sum.launches += count.launches;
    sum.bytes += count.bytes;
    sum.flop += count.flop;
  }
  counts_.clear();
  std::vector<LaunchCount> result;
  for (auto& [kernel, count] : merged) result.push_back(std::move(count));
  std::stable_sort(result.begin(), result.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return result;
}

}  // namespace sgm
