#pragma once
// Tests that are the same on every device: written once with TEST_P, run on each.
//
//   using Ops = DeviceTest;
//   TEST_P(Ops, DoWhatTheySay) { run(op, context()); }
//   INSTANTIATE_TEST_SUITE_P(Devices, Ops, testing::ValuesIn(test_devices()), device_name);

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "sgm/core/context.h"
#include "sgm/core/types.h"

namespace sgm {

/// The CPU and the GPU; in the emulator's executables only the GPU, which is emulated there.
inline std::vector<std::string> test_devices() {
#ifdef SGM_EMULATE_CUDA
  return {"cuda"};
#else
  return {"cpu", "cuda"};
#endif
}

inline std::string device_name(const testing::TestParamInfo<std::string>& info) { return info.param; }

/// Skipped where there is no such device, with the reason.
class DeviceTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() != "cuda") return;
    const std::string problem = why_no_cuda();
    if (!problem.empty()) GTEST_SKIP() << problem;
  }

  /// The device's context, made at the first call.
  Context& context(int threads = 2) {
    if (!context_) context_ = create_context(GetParam(), threads);
    return *context_;
  }

 private:
  std::unique_ptr<Context> context_;
};

/// Of what there is on GPUs only.
class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string problem = why_no_cuda();
    if (!problem.empty()) GTEST_SKIP() << problem;
    context_ = create_context("cuda");
  }

  Context& context() { return *context_; }

 private:
  std::unique_ptr<Context> context_;
};

/// The element types of activations that a device computes in.
inline std::vector<DType> storage_types(const Context& context) {
  if (context.is_cpu()) return {DType::f32, DType::bf16, DType::f64};
  return {DType::f32, DType::bf16};
}

}  // namespace sgm
