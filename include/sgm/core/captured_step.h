#pragma once
// Device work that is repeated step after step.

#include <functional>
#include <memory>
#include <string>

#include "sgm/core/context.h"

namespace sgm {

/// Launches the work of a step call by call the first times, then captures it once and replays it, where the
/// device can: hundreds of launches become one. The work must read whatever changes from step to step from
/// device memory of fixed address, write its results there, and read nothing back.
class CapturedStep {
 public:
  /// enabled = false: every step is launched call by call. The context must outlive the step.
  CapturedStep(Context& context, bool enabled) : context_(context), wanted_(enabled) {}

  /// One step; `work` must be the same every time. While the context has a recorder, steps are launched call
  /// by call.
  void run(const std::function<void()>& work);
  bool is_replaying() const { return replay_ != nullptr; }
  /// Why steps are not replayed though they should be; empty where they are, or as long as nobody knows.
  const std::string& why_not() const { return why_not_; }

 private:
  // The first run allocates and tunes, the second finds every buffer in place.
  static constexpr int kRunsBefore = 2;

  Context& context_;
  bool wanted_;
  int runs_ = 0;
  std::unique_ptr<Replay> replay_;
  std::string why_not_;
};

}  // namespace sgm
