// The emulated CUDA runtime: it runs work as late as CUDA may, and refuses what CUDA refuses. And the
// backend's context on top of it.

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cuda/cuda_context.h"
#include "emulator/cudart.h"
#include "emulator/stream.h"
#include "expect_error.h"
#include "kernels/fill.h"
#include "sgm/tensor/tensor.h"

namespace sgm {
namespace {

using emulator::Runtime;

class Cudart : public testing::Test {
 protected:
  Cudart() {
    Runtime::instance().deferred = true;
    cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&other_, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void**>(&device_), kBytes);
    cudaMallocHost(reinterpret_cast<void**>(&pinned_), kBytes);
    std::memset(pinned_, 1, kBytes);
  }
  ~Cudart() override {
    cudaFreeHost(pinned_);
    cudaFree(device_);
    cudaStreamDestroy(other_);
    cudaStreamDestroy(stream_);
  }
  cudaError_t upload(cudaStream_t stream) {
    return cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, stream);
  }
  cudaError_t download(cudaStream_t stream) {
    return cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, stream);
  }

  static constexpr std::size_t kBytes = 100;
  cudaStream_t stream_ = nullptr, other_ = nullptr;
  char *device_ = nullptr, *pinned_ = nullptr;
};

TEST_F(Cudart, NothingRunsBeforeSomethingWaits) {
  ASSERT_EQ(cudaMemsetAsync(device_, 5, kBytes, stream_), cudaSuccess);
  ASSERT_EQ(download(stream_), cudaSuccess);
  EXPECT_EQ(pinned_[0], 1) << "a result read too early";
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(pinned_[kBytes - 1], 5);
}

TEST_F(Cudart, PinnedMemoryIsReadLateAndPageableMemoryAtOnce) {
  ASSERT_EQ(upload(stream_), cudaSuccess);
  std::memset(pinned_, 2, kBytes);
  std::vector<char> pageable(kBytes);
  ASSERT_EQ(cudaMemcpyAsync(pageable.data(), device_, kBytes, cudaMemcpyDeviceToHost, stream_), cudaSuccess);
  EXPECT_EQ(pageable[0], 2) << "overwritten before the copy ran";
  std::fill(pageable.begin(), pageable.end(), char{3});
  ASSERT_EQ(cudaMemcpyAsync(device_, pageable.data(), kBytes, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  std::fill(pageable.begin(), pageable.end(), char{4});
  ASSERT_EQ(download(stream_), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(pinned_[0], 3);
}

TEST_F(Cudart, StreamsMeetAtEventsOnly) {
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaEventCreate(&event), cudaSuccess);
  for (const bool waits : {false, true}) {
    std::memset(pinned_, 1, kBytes);
    ASSERT_EQ(cudaMemsetAsync(device_, 6, kBytes, other_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
    ASSERT_EQ(cudaMemsetAsync(device_, 7, kBytes, stream_), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
    ASSERT_EQ(cudaMemsetAsync(device_, 8, kBytes, stream_), cudaSuccess);
    ASSERT_EQ(waits ? cudaStreamWaitEvent(other_, event, 0) : cudaSuccess, cudaSuccess);
    ASSERT_EQ(download(other_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
    EXPECT_EQ(pinned_[0], waits ? 7 : 6);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  }
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
}

TEST_F(Cudart, TheDefaultStreamIsNoPartOfTheOthersOrder) {
  ASSERT_EQ(cudaMemsetAsync(device_, 9, kBytes, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  ASSERT_EQ(cudaMemset(device_, 0, kBytes), cudaSuccess);
  ASSERT_EQ(download(stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(pinned_[0], 9) << "cudaMemset does not wait, nor is it waited for";
}

TEST_F(Cudart, EventsTellTimeOnceTheyAreReached) {
  cudaEvent_t start = nullptr, end = nullptr;
  cudaEventCreate(&start), cudaEventCreate(&end);
  float milliseconds = -1;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);
  ASSERT_EQ(cudaEventRecord(start, stream_), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(end, stream_), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady);
  ASSERT_EQ(cudaEventSynchronize(end), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess);
  EXPECT_GE(milliseconds, 0.0f);
  cudaEventDestroy(start), cudaEventDestroy(end);
}

TEST_F(Cudart, AGraphRepeatsWhatItRecorded) {
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(device_, 5, kBytes, stream_), cudaSuccess);
  ASSERT_EQ(download(stream_), cudaSuccess);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(pinned_[0], 1) << "recorded work must not run";
  for (int i = 0; i < 2; ++i) {
    std::memset(pinned_, 1, kBytes);
    ASSERT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    EXPECT_EQ(pinned_[0], 5);
  }
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
}

TEST_F(Cudart, WaitingForACaptureIsRefusedAndLosesIt) {
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(device_, pinned_, 1, cudaMemcpyHostToDevice), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(Cudart, CopiesMustNameTheKindOfTheirPointersAndStayInBounds) {
  std::vector<char> host(kBytes);
  const auto copy = [&](void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, bytes, kind, stream_);
  };
  EXPECT_EQ(copy(device_, host.data(), kBytes, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(device_, host.data(), kBytes, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(copy(host.data(), device_ + 1, kBytes, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(copy(device_, pinned_ + 1, kBytes, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(device_ + 99, host.data(), 1, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(copy(device_ + 100, host.data(), 1, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(pinned_, 0, 1, stream_), cudaErrorInvalidValue);
  EXPECT_NE(std::string(cudaGetErrorString(cudaErrorInvalidValue)).find("device memory"), std::string::npos);
  EXPECT_EQ(cudaFree(device_ + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(pinned_), cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_TRUE(emulator::is_device_pointer(device_ + 99) && emulator::is_device_pointer(nullptr));
  EXPECT_FALSE(emulator::is_device_pointer(device_ + 100) || emulator::is_device_pointer(pinned_));
}

/// A failed kernel spoils its process: hence one of its own.
TEST_F(Cudart, AFaultShowsWhereSomethingWaitsAndStays) {
  const auto faulty = [this] {
    emulator::enqueue(stream_, [] { fail("kernel x: misaligned"); });
    const bool later =
        cudaStreamSynchronize(stream_) == cudaErrorLaunchFailure &&
        cudaMalloc(reinterpret_cast<void**>(&device_), 1) == cudaErrorLaunchFailure &&
        std::string(cudaGetErrorString(cudaErrorLaunchFailure)).ends_with("kernel x: misaligned");
    std::_Exit(later ? 3 : 4);
  };
  EXPECT_EXIT(faulty(), testing::ExitedWithCode(3), "");
}

// ---- the backend's context --------------------------------------------------------------------------------

class CudaBackend : public testing::TestWithParam<bool> {
 protected:
  CudaBackend() { Runtime::instance().deferred = GetParam(); }
  const std::unique_ptr<Context> context_ = create_context("cuda");
};
INSTANTIATE_TEST_SUITE_P(Modes, CudaBackend, testing::Bool(),
                         [](const auto& mode) { return mode.param ? "deferred" : "eager"; });

TEST_P(CudaBackend, NamesItsDevice) {
  EXPECT_NE(context_->describe().find("emulated device"), std::string::npos) << context_->describe();
  EXPECT_EQ(why_no_cuda(), "");
}

TEST_P(CudaBackend, UploadsMoreThanItsBuffersHoldFromMemoryThatIsGone) {
  constexpr std::size_t kCount = 6'000'000;  // 24 MB: every buffer is used again
  std::vector<float> values(kCount);
  std::iota(values.begin(), values.end(), 0.0f);
  const std::vector<float> expected = values;
  Tensor x = Tensor::empty(*context_, {kCount});
  context_->copy_from_host(x.data<float>(), values.data(), kCount * sizeof(float));
  std::fill(values.begin(), values.end(), -1.0f);
  EXPECT_TRUE(x.to_host() == expected);
}

TEST_P(CudaBackend, CapturedWorkRepeatsWithItsConstants) {
  Tensor x = Tensor::zeros(*context_, {5});
  std::string why;
  const std::size_t before = context_->memory().in_use;
  auto replay = context_->capture(
      [&] {
        const std::vector<float> constants = {1, 2, 3, 4, 5};
        const Tensor y = Tensor::from_host(*context_, std::span<const float>(constants), {5});
        x.copy_from(y);
      },
      &why);
  ASSERT_TRUE(replay) << why;
  EXPECT_EQ(x.to_host(), std::vector<float>(5, 0.0f)) << "captured work must not run";
  for (int i = 0; i < 2; ++i) {
    x.fill(7.0);
    replay->launch();
    EXPECT_EQ(x.to_host(), (std::vector<float>{1, 2, 3, 4, 5}));
  }
  replay.reset();
  EXPECT_EQ(context_->memory().in_use, before);
}

TEST_P(CudaBackend, WhatStaysLeavesNoHolesInWhatACaptureGivesBack) {
  constexpr std::int64_t kMany = 1 << 20;
  Tensor kept;
  {
    const Tensor passing = Tensor::zeros(*context_, {kMany});
    const LastingMemory lasting(*context_);
    kept = Tensor::full(*context_, {5}, 3.0);
  }
  const MemoryStats before = context_->memory();
  EXPECT_GE(before.peak, 4u * kMany);
  std::string why;
  const auto replay = context_->capture([&] { Tensor::full(*context_, {kMany}, 2.0); }, &why);
  ASSERT_TRUE(replay) << why;
  const MemoryStats after = context_->memory();
  EXPECT_EQ(after.reserved, before.reserved) << "the graph took as much as was given back";
  EXPECT_GE(after.in_use, before.in_use + 4u * kMany) << "a graph keeps its memory";
  EXPECT_EQ(kept.to_host(), std::vector<float>(5, 3.0f));
}

TEST_P(CudaBackend, ResultsReadInACaptureAreRefused) {
  const Tensor x = Tensor::full(*context_, {1}, 3.0);
  std::string why;
  EXPECT_FALSE(context_->capture([&] { x.item(); }, &why));
  EXPECT_NE(why.find("captured"), std::string::npos) << why;
  EXPECT_FALSE(context_->capture([&] { context_->synchronize(); }, &why));
  EXPECT_NE(why.find("captur"), std::string::npos) << why;
  EXPECT_EQ(x.item(), 3.0) << "a failed capture leaves a working device";
}

TEST_P(CudaBackend, SaysWhenMemoryIsShort) {
  const auto limited = create_context("cuda", 0, std::size_t{8} << 20);
  const Tensor most = Tensor::empty(*limited, {1 << 20});
  expect_error({"--max-memory"}, [&] { Tensor::empty(*limited, {2 << 20}); });
  expect_error({"memory"}, [&] { Tensor::empty(*context_, {std::int64_t{1} << 31}); });
  EXPECT_EQ(Tensor::full(*context_, {1}, 2.0).item(), 2.0);
}

TEST_P(CudaBackend, CountsLaunchesAndADryRunDoesNothingElse) {
  const auto dry = create_context("cuda-dry");
  for (Context* context : {context_.get(), dry.get()}) {
    context->take_launch_counts();
    Tensor x = Tensor::full(*context, {1000}, 1.0);
    x.fill(2.0);
    const std::vector<LaunchCount> counts = context->take_launch_counts();
    ASSERT_EQ(counts.size(), 1u);
    EXPECT_EQ(counts[0].kernel, "fill");
    EXPECT_EQ(counts[0].launches, 2);
    EXPECT_EQ(counts[0].bytes, 8000);
    EXPECT_TRUE(context->take_launch_counts().empty());
    EXPECT_EQ(x.to_host()[999], context == dry.get() ? 0.0f : 2.0f);
  }
}

}  // namespace
}  // namespace sgm
