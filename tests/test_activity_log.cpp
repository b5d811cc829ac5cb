// The device's own record of its launches, where CUPTI keeps one.

#include <gtest/gtest.h>

#include "backend/cuda/activity_log.h"
#include "sgm/tensor/tensor.h"

namespace sgm {
namespace {

TEST(ActivityLog, SaysInOneLineWhyItIsNotKept) {
  if (why_no_cuda().empty()) GTEST_SKIP() << "there is a GPU";
  CudaContext dry({.dry = true});
  std::string why_not;
  EXPECT_EQ(create_cupti_log(dry, &why_not), nullptr);
  EXPECT_NE(why_not.find("CUPTI"), std::string::npos) << why_not;
  EXPECT_EQ(why_not.find('\n'), std::string::npos) << why_not;
  // A log that could not start is not in the way of the next.
  std::string again;
  EXPECT_EQ(create_cupti_log(dry, &again), nullptr);
  EXPECT_EQ(again, why_not);
}

TEST(ActivityLog, KeepsLaunchesInOrderAndTheirOwners) {
  if (!why_no_cuda().empty()) GTEST_SKIP() << why_no_cuda();
  const auto context = create_context("cuda");
  std::string why_not;
  const auto log = context->create_activity_log(&why_not);
  if (!log) GTEST_SKIP() << why_not;
  Tensor x = Tensor::zeros(*context, {1 << 20});
  log->take();
  for (const std::uint64_t owner : {7, 8}) {
    log->set_owner(owner);
    x.fill(static_cast<double>(owner));
  }
  log->set_owner(0);
  const std::vector<Activity> launches = log->take();
  ASSERT_EQ(launches.size(), 2u);
  EXPECT_EQ(launches[0].owner, 7u);
  EXPECT_EQ(launches[1].owner, 8u);
  EXPECT_LT(launches[0].start, launches[0].end);
  EXPECT_LE(launches[0].end, launches[1].start);
  EXPECT_NE(launches[0].kernel.find("fill"), std::string::npos) << launches[0].kernel;
}

}  // namespace
}  // namespace sgm
