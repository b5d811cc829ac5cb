#include "sgm/core/context.h"

#include <algorithm>
#include <chrono>
#include <map>

namespace sgm {

namespace {

class HostTimeline final : public Timeline {
 public:
  void mark() override { marks_.push_back(Clock::now()); }
  std::vector<double> take() override {
    std::vector<double> seconds;
    for (const Clock::time_point mark : marks_)
      seconds.push_back(std::chrono::duration<double>(mark - marks_.front()).count());
    marks_.clear();
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::time_point> marks_;
};

}  // namespace

std::unique_ptr<Timeline> Context::create_timeline() { return std::make_unique<HostTimeline>(); }

void Context::enter(RangeKind kind, const char* name) {
  push_range(name);
  if (recorder_) recorder_->enter(kind, name);
}

void Context::enter_op(const Work& op) {
  push_range(op.kernel);
  if (recorder_) recorder_->enter_op(op);
}

void Context::leave() {
  if (recorder_) recorder_->leave();
  pop_range();
}

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
