// The part of libcudart that the CUDA backend calls, under its own names: linked in its place.

#include "emulator/cudart.h"

#include <cuda_profiler_api.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "emulator/limits.h"

namespace sgm::emulator {
namespace {

/// The runtime, locked for one call.
class Call {
 public:
  explicit Call(const char* name) : name_(name), lock_(runtime_.mutex) {}
  Runtime* operator->() { return &runtime_; }
  Runtime& operator*() { return runtime_; }
  cudaError_t refuse(cudaError_t error, const std::string& why) {
    return runtime_.refuse(error, std::string(name_) + ": " + why);
  }
  /// The end of a call that has nothing to complain of itself.
  cudaError_t done() { return runtime_.status(); }

 private:
  const char* name_;
  Runtime& runtime_ = Runtime::instance();
  std::scoped_lock<std::recursive_mutex> lock_;
};

bool from_host(cudaMemcpyKind kind) { return kind == cudaMemcpyHostToDevice || kind == cudaMemcpyHostToHost; }
bool to_host(cudaMemcpyKind kind) { return kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyHostToHost; }

/// What is wrong with one end of a copy; empty: nothing.
std::string problem_of(const Runtime& runtime, const char* end, const void* data, std::size_t bytes,
                       bool host) {
  using Place = Runtime::Place;
  const Place device = runtime.place_of(data, bytes, MemoryKind::device);
  if (!host && device != Place::inside)
    return std::string(end) + " is not within one live allocation of device memory";
  if (host && device != Place::outside) return std::string(end) + " is device memory, expected the host's";
  if (host && runtime.place_of(data, bytes, MemoryKind::pinned) == Place::across)
    return std::string(end) + " reaches over the end of pinned memory";
  return {};
}

std::string problem_of(const Runtime& runtime, const void* to, const void* from, std::size_t bytes,
                       cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return "cudaMemcpyDefault is not emulated";
  const std::string problem = problem_of(runtime, "the destination", to, bytes, to_host(kind));
  return problem.empty() ? problem_of(runtime, "the source", from, bytes, from_host(kind)) : problem;
}

/// Queues a copy, as late as CUDA may run it: pageable memory is read, and written, before the call returns.
void queue_copy(Runtime& runtime, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                cudaStream_t stream) {
  const auto pageable = [&](const void* data) {
    return runtime.place_of(data, bytes, MemoryKind::pinned) == Runtime::Place::outside;
  };
  const bool captured = stream && stream->capture;
  if (kind == cudaMemcpyHostToDevice && !captured && pageable(from)) {
    const auto* first = static_cast<const unsigned char*>(from);
    runtime.enqueue(stream, [to, staged = std::vector<unsigned char>(first, first + bytes)] {
      std::memcpy(to, staged.data(), staged.size());
    });
    return;
  }
  runtime.enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  if (to_host(kind) && !captured && pageable(to)) runtime.drain(stream);
}

const char* short_text(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capture";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    default: return "another error";
  }
}

}  // namespace
}  // namespace sgm::emulator

using sgm::emulator::Call;
using sgm::emulator::Marker;
using sgm::emulator::MemoryKind;

extern "C" {

// ---- device -----------------------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  Call call("cudaGetDeviceProperties");
  if (device != 0) return call.refuse(cudaErrorInvalidDevice, "there is one device");
  *properties = {};
  std::strcpy(properties->name, "emulated device");
  properties->major = 9;
  properties->totalGlobalMem = sgm::emulator::kDeviceMemory;
  properties->multiProcessorCount = 4;
  properties->warpSize = 32;
  properties->sharedMemPerBlockOptin = sgm::emulator::kMostShared;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  Call call("cudaDeviceGetAttribute");
  if (attribute != cudaDevAttrMultiProcessorCount)
    return call.refuse(cudaErrorInvalidValue, "this attribute is not emulated");
  *value = 4;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  Call call("cudaSetDevice");
  return device == 0 ? call.done() : call.refuse(cudaErrorInvalidDevice, "there is one device");
}

cudaError_t cudaGetLastError() {
  Call call("cudaGetLastError");
  const cudaError_t error = std::exchange(call->last_error, cudaSuccess);
  call.done();  // the failure of a kernel stays
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  Call call("cudaGetErrorString");
  thread_local std::string text;
  const auto reason = call->reasons.find(error);
  text = sgm::emulator::short_text(error);
  if (reason != call->reasons.end()) text += ": " + reason->second;
  return text.c_str();
}

cudaError_t cudaDeviceSynchronize() {
  Call call("cudaDeviceSynchronize");
  for (const cudaStream_t stream : call->streams)
    if (const cudaError_t error = call->may_wait(stream); error != cudaSuccess) return error;
  call->drain_all();
  return call.done();
}

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

// ---- memory -----------------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  Call call("cudaMalloc");
  *data = bytes ? call->allocate(bytes, MemoryKind::device) : nullptr;
  if (bytes && !*data) return call->last_error = cudaErrorMemoryAllocation;
  return call.done();
}

cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  Call call("cudaMallocHost");
  *data = bytes ? call->allocate(bytes, MemoryKind::pinned) : nullptr;
  if (bytes && !*data) return call->last_error = cudaErrorMemoryAllocation;
  return call.done();
}

cudaError_t cudaFree(void* data) {
  Call call("cudaFree");
  call->drain_all();  // waits for the device
  if (data && !call->release(data, MemoryKind::device))
    return call.refuse(cudaErrorInvalidValue, "not the start of device memory");
  return call.done();
}

cudaError_t cudaFreeHost(void* data) {
  Call call("cudaFreeHost");
  call->drain_all();
  if (data && !call->release(data, MemoryKind::pinned))
    return call.refuse(cudaErrorInvalidValue, "not the start of pinned memory");
  return call.done();
}

cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total) {
  Call call("cudaMemGetInfo");
  *total = sgm::emulator::kDeviceMemory;
  *available = *total - call->in_use();
  return call.done();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  Call call("cudaMemcpyAsync");
  const std::string problem = sgm::emulator::problem_of(*call, to, from, bytes, kind);
  if (!problem.empty()) return call.refuse(cudaErrorInvalidValue, problem);
  sgm::emulator::queue_copy(*call, to, from, bytes, kind, stream);
  return call.done();
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  Call call("cudaMemcpy");
  if (call->is_capturing())
    return call.refuse(cudaErrorStreamCaptureUnsupported, "a stream is being captured");
  const std::string problem = sgm::emulator::problem_of(*call, to, from, bytes, kind);
  if (!problem.empty()) return call.refuse(cudaErrorInvalidValue, problem);
  // In the order of the default stream: streams made with cudaStreamNonBlocking do not wait, nor are waited
  // for.
  sgm::emulator::queue_copy(*call, to, from, bytes, kind, nullptr);
  call->drain(nullptr);
  return call.done();
}

cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  Call call("cudaMemsetAsync");
  const std::string problem = sgm::emulator::problem_of(*call, "the destination", data, bytes, false);
  if (!problem.empty()) return call.refuse(cudaErrorInvalidValue, problem);
  call->enqueue(stream, [=] { std::memset(data, value, bytes); });
  return call.done();
}

/// Like CUDA's it does not wait, and other streams do not wait for it.
cudaError_t cudaMemset(void* data, int value, std::size_t bytes) {
  return cudaMemsetAsync(data, value, bytes, nullptr);
}

// ---- streams and events -----------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Call call("cudaStreamCreate");
  *stream = new CUstream_st;
  call->streams.push_back(*stream);
  return call.done();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Call call("cudaStreamDestroy");
  call->drain(stream);
  std::erase(call->streams, stream);
  delete stream;
  return call.done();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Call call("cudaStreamSynchronize");
  if (const cudaError_t error = call->may_wait(stream); error != cudaSuccess) return error;
  call->drain(stream);
  return call.done();
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  Call call("cudaLaunchHostFunc");
  call->enqueue(stream, [=] { function(data); });
  return call.done();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  Call call("cudaEventCreate");
  *event = new CUevent_st;
  (*event)->timed = !(flags & cudaEventDisableTiming);
  return call.done();
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Call call("cudaEventDestroy");
  delete event;
  return call.done();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Call call("cudaEventRecord");
  event->marker = std::make_shared<Marker>();
  event->marker->stream = stream;
  event->captured = stream && stream->capture;
  call->enqueue(stream, [marker = event->marker] {
    marker->reached = true;
    marker->when = std::chrono::steady_clock::now();
  });
  return call.done();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Call call("cudaEventSynchronize");
  if (event->captured) return call.refuse(cudaErrorCapturedEvent, "the event belongs to a graph");
  if (event->marker && !event->marker->reached) call->drain(event->marker->stream, event->marker.get());
  return call.done();
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Call call("cudaEventElapsedTime");
  if (!start->timed || !end->timed || !start->marker || !end->marker || start->captured || end->captured)
    return call.refuse(cudaErrorInvalidResourceHandle, "both events must be recorded, with timing");
  if (!start->marker->reached || !end->marker->reached) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(end->marker->when - start->marker->when).count();
  return call.done();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Call call("cudaStreamWaitEvent");
  if (event->captured || (stream && stream->capture))
    return call.refuse(cudaErrorStreamCaptureUnsupported, "capturing several streams is not emulated");
  if (!event->marker) return call.done();
  call->enqueue(stream, [&runtime = *call, marker = event->marker] {
    if (!marker->reached) runtime.drain(marker->stream, marker.get());
  });
  return call.done();
}

// ---- graphs -----------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  Call call("cudaStreamBeginCapture");
  if (!stream || stream->capture)
    return call.refuse(cudaErrorStreamCaptureUnsupported,
                       "the default stream, or one that is being captured");
  if (mode != cudaStreamCaptureModeRelaxed)
    return call.refuse(cudaErrorInvalidValue, "only cudaStreamCaptureModeRelaxed is emulated");
  stream->capture = std::make_unique<CUgraph_st>();
  stream->capture_lost = false;
  return call.done();
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Call call("cudaStreamEndCapture");
  *graph = nullptr;
  if (!stream || !stream->capture)
    return call.refuse(cudaErrorInvalidValue, "the stream is not being captured");
  std::unique_ptr<CUgraph_st> captured = std::move(stream->capture);
  if (stream->capture_lost) return call->last_error = cudaErrorStreamCaptureInvalidated;
  *graph = captured.release();
  return call.done();
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  Call call("cudaGraphInstantiate");
  *exec = new CUgraphExec_st{std::make_shared<const std::vector<sgm::emulator::Work>>(graph->nodes)};
  return call.done();
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  Call call("cudaGraphLaunch");
  if (stream && stream->capture)
    return call.refuse(cudaErrorStreamCaptureUnsupported, "graphs within graphs are not emulated");
  call->enqueue(stream, [nodes = exec->nodes] {
    for (const sgm::emulator::Work& node : *nodes) node();
  });
  return call.done();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  Call call("cudaGraphExecDestroy");
  delete exec;
  return call.done();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  Call call("cudaGraphDestroy");
  delete graph;
  return call.done();
}

}  // extern "C"
