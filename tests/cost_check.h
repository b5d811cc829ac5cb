#pragma once
// What ops say they cost against what they launch.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "sgm/core/context.h"

namespace sgm {

/// Watches a GPU's context. Every op that launches anything must launch all of its products, and move no
/// fewer bytes than its operands have, just as many where one launch is all.
class CostCheck final : public Recorder {
 public:
  explicit CostCheck(Context& context) : context_(context) { context_.set_recorder(this); }
  ~CostCheck() override {
    context_.set_recorder(nullptr);
    EXPECT_TRUE(open_.empty());
  }
  /// Ops that launched something.
  int ops() const { return ops_; }

  void enter(RangeKind, const char* name) override { open_.push_back({{name}, {}, 0}); }
  void enter_op(const Work& op) override { open_.push_back({op, {}, 0}); }
  void leave() override {
    const Open op = open_.back();
    open_.pop_back();
    if (op.launches == 0) return;
    ++ops_;
    EXPECT_DOUBLE_EQ(op.launched.flop, op.cost.flop) << op.cost.kernel;
    EXPECT_GE(op.launched.bytes, op.cost.bytes) << op.cost.kernel;
    if (op.launches > 1) return;
    EXPECT_EQ(op.launched.bytes, op.cost.bytes) << op.cost.kernel;
  }
  void work(const Work& work) override {
    ASSERT_FALSE(open_.empty()) << work.kernel << " is launched by no op";
    Open& op = open_.back();
    op.launched.bytes += work.bytes;
    op.launched.flop += work.flop;
    ++op.launches;
  }
  void plan(const std::string&) override {}
  std::string layer() const override { return {}; }

 private:
  struct Open {
    Work cost, launched;
    int launches;
  };
  Context& context_;
  std::vector<Open> open_;
  int ops_ = 0;
};

}  // namespace sgm
