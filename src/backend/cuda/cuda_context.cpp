#include "backend/cuda/cuda_context.h"

#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>

#include "backend/cuda/create.h"
#include "backend/cuda/device_memory.h"
#include "sgm/core/bytes.h"

namespace sgm {
namespace {

constexpr int kOldestMajor = 8;  // compute capability: bf16 arithmetic

std::string version_text(int version) {
  return std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10);
}

}  // namespace

void cuda_check(cudaError_t status, const char* call, const std::string& detail) {
  if (status == cudaSuccess) return;
  std::string remedy;
  if (status == cudaErrorMemoryAllocation) remedy = "; use a smaller batch or model";
  if (status == cudaErrorNoKernelImageForDevice)
    remedy = "; rebuild with CMAKE_CUDA_ARCHITECTURES naming this GPU's";
  if (status == cudaErrorIllegalAddress || status == cudaErrorLaunchFailure)
    remedy = "; find the kernel with CUDA_LAUNCH_BLOCKING=1 or compute-sanitizer";
  fail("cuda: ", call, detail.empty() ? "" : " (" + detail + ")", ": ", cudaGetErrorString(status), remedy);
}

std::string cuda_problem() {
  int count = 0, driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t status = cudaGetDeviceCount(&count);
  const std::string versions =
      (driver ? "driver for CUDA " + version_text(driver) : std::string("no NVIDIA driver")) + ", runtime " +
      version_text(runtime);
  if (driver == 0) return "no NVIDIA driver was found (" + versions + "); install one where there is a GPU";
  if (status == cudaErrorInsufficientDriver)
    return "the NVIDIA driver is too old (" + versions + "); update it, or build with an older CUDA toolkit";
  if (status != cudaSuccess || count == 0) {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    return "no CUDA device is visible (" + versions +
           (visible ? std::string(", CUDA_VISIBLE_DEVICES=") + visible : std::string()) +
           "): " + cudaGetErrorString(status == cudaSuccess ? cudaErrorNoDevice : status);
  }
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess && properties.major < kOldestMajor)
    return std::string(properties.name) + " has compute capability " + std::to_string(properties.major) +
           '.' + std::to_string(properties.minor) + "; 8.0 or newer is needed (" + versions + ')';
  return {};
}

std::unique_ptr<Context> create_cuda_context(std::size_t max_memory) {
  const std::string problem = cuda_problem();
  check(problem.empty(), "device 'cuda' is not available: ", problem, "; use --device cpu");
  return std::make_unique<CudaContext>(CudaContext::Options{.max_memory = max_memory});
}

std::unique_ptr<Context> create_dry_cuda_context() {
  return std::make_unique<CudaContext>(CudaContext::Options{.dry = true});
}

CudaContext::CudaContext(const Options& options)
    : Context(options.dry), options_(options), held_(std::make_shared<std::size_t>(0)) {
  allocator_ = create_allocator();
  lasting_ = create_allocator();
  if (is_dry()) return;
  cuda_check(cudaSetDevice(options_.ordinal), "cudaSetDevice", std::to_string(options_.ordinal));
  cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  staging_ = std::make_unique<StagingRing>();
}

std::unique_ptr<CachingAllocator> CudaContext::create_allocator() const {
  return std::make_unique<CachingAllocator>(
      is_dry() ? create_dry_regions(held_) : create_device_memory(held_, options_.max_memory),
      options_.max_memory ? "raise --max-memory, or use a smaller batch or model"
                          : "use a smaller batch or model");
}

CudaContext::~CudaContext() {
  if (stream_) cudaStreamSynchronize(stream_);
  parts_.clear();
  staging_.reset();
  allocator_.reset(), lasting_.reset();
  if (stream_) cudaStreamDestroy(stream_);
}

std::string CudaContext::describe() const {
  if (is_dry()) return "cuda: dry run, launches are counted and not executed";
  cudaDeviceProp properties{};
  int driver = 0, runtime = 0;
  cuda_check(cudaGetDeviceProperties(&properties, options_.ordinal), "cudaGetDeviceProperties");
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  std::ostringstream text;
  text << "cuda: " << properties.name << ", " << format_bytes(properties.totalGlobalMem);
  if (options_.max_memory) text << " (limited to " << format_bytes(options_.max_memory) << ')';
  text << ", compute capability " << properties.major << '.' << properties.minor << ", driver for CUDA "
       << version_text(driver) << ", runtime " << version_text(runtime);
  return text.str();
}

void* CudaContext::allocate(std::size_t bytes) {
  if (!capturing_ && !allocates_lasting()) return allocator_->allocate(bytes);
  const std::shared_ptr<CachingAllocator>& owner = capturing_ ? capturing_ : lasting_;
  void* data = owner->allocate(bytes);
  owner_[data] = owner;
  return data;
}

void CudaContext::release(void* data, std::size_t bytes) noexcept {
  const auto found = owner_.find(data);
  if (found == owner_.end()) return allocator_->release(data, bytes);
  found->second->release(data, bytes);
  owner_.erase(found);
}

MemoryStats CudaContext::memory() const {
  MemoryStats stats = allocator_->stats();
  const MemoryStats lasting = lasting_->stats();
  stats.in_use += lasting.in_use + captured_bytes_;
  stats.peak = std::max(stats.peak + lasting.in_use + captured_bytes_, peak_before_capture_);
  stats.reserved += lasting.reserved + captured_bytes_;
  return stats;
}

void CudaContext::reset_peak() {
  allocator_->reset_peak();
  peak_before_capture_ = 0;
}

void CudaContext::copy_from_host(void* device, const void* host, std::size_t bytes) {
  if (!bytes || is_dry()) return;
  if (!capturing_) return staging_->upload(device, host, bytes, stream_);
  // The graph keeps the values of now, and uploads them at every replay.
  void* pinned = nullptr;
  cuda_check(cudaMallocHost(&pinned, bytes), "cudaMallocHost", "constants of a captured graph");
  captured_constants_.push_back(pinned);
  std::memcpy(pinned, host, bytes);
  cuda_check(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync",
             "upload");
}

void CudaContext::copy_to_host(void* host, const void* device, std::size_t bytes) {
  check(!capturing_, "cuda: result read while a graph is captured");
  if (!bytes) return;
  if (is_dry()) {
    std::memset(host, 0, bytes);
    return;
  }
  cuda_check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync",
             "download");
  synchronize();
}

void CudaContext::synchronize() {
  if (stream_) cuda_check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize", "work launched before");
}

void CudaContext::push_range(const char* name) { nvtxRangePushA(name); }
void CudaContext::pop_range() { nvtxRangePop(); }

void CudaContext::set_profiling(bool on) {
  if (is_dry()) return;
  synchronize();
  on ? cudaProfilerStart() : cudaProfilerStop();
}

/// A graph and the memory that its kernels work on.
struct CudaContext::CapturedGraph final : Replay {
  CudaContext& context;
  std::shared_ptr<CachingAllocator> memory;
  std::vector<void*> constants;  // pinned
  cudaGraphExec_t exec = nullptr;
  std::size_t bytes = 0;  // of device memory

  CapturedGraph(CudaContext& c, std::shared_ptr<CachingAllocator> m) : context(c), memory(std::move(m)) {}
  ~CapturedGraph() override {
    context.captured_bytes_ -= bytes;
    if (context.is_dry()) return;
    cudaStreamSynchronize(context.stream_);
    if (exec) cudaGraphExecDestroy(exec);
    for (void* pinned : constants) cudaFreeHost(pinned);
  }
  void launch() override {
    if (context.is_dry()) return;
    cuda_check(cudaGraphLaunch(exec, context.stream_), "cudaGraphLaunch", "captured step");
  }
};

/// The graph that was captured; null where *problem says why there is none.
cudaGraphExec_t CudaContext::end_capture(std::string* problem) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaError_t status = cudaStreamEndCapture(stream_, &graph);
  if (problem->empty() && status == cudaSuccess) status = cudaGraphInstantiate(&exec, graph, 0);
  if (problem->empty() && status != cudaSuccess) *problem = cudaGetErrorString(status);
  if (graph) cudaGraphDestroy(graph);
  return exec;
}

/// A dry run counts the work once, and the memory that the graph would hold.
std::unique_ptr<Replay> CudaContext::capture(const std::function<void()>& work, std::string* why_not) {
  const auto give_up = [&](const std::string& reason) {
    cudaGetLastError();
    if (why_not) *why_not = reason;
    return nullptr;
  };
  if (!is_dry()) synchronize();
  allocator_->trim();  // the graph gets memory of its own
  peak_before_capture_ = memory().peak;
  allocator_->reset_peak();
  if (!is_dry())
    cuda_check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  capturing_ = create_allocator();
  auto captured = std::make_unique<CapturedGraph>(*this, capturing_);
  std::string problem;
  try {
    work();
  } catch (const Error& error) {
    problem = error.what();
  }
  capturing_.reset();
  captured->constants = std::exchange(captured_constants_, {});
  if (!is_dry()) captured->exec = end_capture(&problem);
  if (!problem.empty()) return give_up(problem);
  captured->bytes = captured->memory->stats().reserved;
  captured_bytes_ += captured->bytes;
  return captured;
}

}  // namespace sgm
