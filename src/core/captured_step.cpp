#include "sgm/core/captured_step.h"

namespace sgm {

void CapturedStep::run(const std::function<void()>& work) {
  if (context_.recorder()) return work();  // a replay would show it nothing
  if (wanted_ && runs_ == kRunsBefore && why_not_.empty()) replay_ = context_.capture(work, &why_not_);
  if (runs_ < kRunsBefore) ++runs_;
  if (replay_) {
    wanted_ = false;
    replay_->launch();
  } else {
    work();
  }
}

}  // namespace sgm
