// Times of work on the device: marks are events on its stream.

#include <deque>

#include "backend/cuda/activity_log.h"
#include "backend/cuda/event.h"

namespace sgm {
namespace {

class EventTimeline final : public Timeline {
 public:
  explicit EventTimeline(CudaContext& device) : device_(device) {}

  void mark() override {
    check(!device_.is_capturing(), "cuda: times are not taken while a graph is captured");
    if (used_ == events_.size()) events_.emplace_back();
    events_[used_++].record(device_.stream());
  }

  std::vector<double> take() override {
    device_.synchronize();
    std::vector<double> seconds;
    // From mark to mark: the milliseconds between two events are a float.
    for (std::size_t i = 0; i < used_; ++i)
      seconds.push_back(
          i == 0 ? 0.0 : seconds.back() + 1e-3 * static_cast<double>(events_[i].since(events_[i - 1])));
    used_ = 0;
    return seconds;
  }

 private:
  CudaContext& device_;
  std::deque<Event> events_;  // kept for the next step
  std::size_t used_ = 0;
};

}  // namespace

std::unique_ptr<Timeline> CudaContext::create_timeline() {
  if (is_dry()) return Context::create_timeline();
  return std::make_unique<EventTimeline>(*this);
}

std::unique_ptr<ActivityLog> CudaContext::create_activity_log(std::string* why_not) {
  if (!is_dry()) return create_cupti_log(*this, why_not);
  if (why_not) *why_not = "a dry run executes nothing";
  return nullptr;
}

}  // namespace sgm
