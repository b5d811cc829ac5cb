#pragma once
// The CUDA device: one stream on which everything happens in order, its memory, its library handles.

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <string>
#include <typeindex>
#include <typeinfo>
#include <unordered_map>
#include <vector>

#include "backend/caching_allocator.h"
#include "backend/cuda/staging.h"
#include "kernels/attention.h"
#include "sgm/core/context.h"
#include "sgm/core/error.h"

namespace sgm {

/// Throws Error naming the call, what it was for, CUDA's reason and, where there is one, the remedy.
void cuda_check(cudaError_t status, const char* call, const std::string& detail = {});

class CudaContext final : public Context {
 public:
  struct Options {
    int ordinal = 0;             // which device
    std::size_t max_memory = 0;  // bytes this process may hold of the device's memory; 0: all
    bool dry = false;            // no device: memory is address space only, launches are only counted
    bool allow_tf32 = false;     // f32 convolutions and matrix products may round operands to TF32
  };

  /// Throws Error when there is no usable device, saying which driver and runtime were found.
  explicit CudaContext(const Options& options);
  ~CudaContext() override;

  bool is_cpu() const override { return false; }
  bool has_low_weights() const override { return true; }
  bool fuses_attention(DType type, std::int64_t c) const override { return Attention::fits_gpus(type, c); }
  std::string describe() const override;
  void* allocate(std::size_t bytes) override;
  void release(void* data, std::size_t bytes) noexcept override;
  MemoryStats memory() const override;
  void reset_peak() override;
  void copy_from_host(void* device, const void* host, std::size_t bytes) override;
  void copy_to_host(void* host, const void* device, std::size_t bytes) override;
  void synchronize() override;
  std::unique_ptr<Replay> capture(const std::function<void()>& work, std::string* why_not) override;
  std::unique_ptr<Timeline> create_timeline() override;
  std::unique_ptr<ActivityLog> create_activity_log(std::string* why_not) override;
  void set_profiling(bool on) override;
  void allow_tf32(bool on) override { options_.allow_tf32 = on; }

  const Options& options() const { return options_; }
  cudaStream_t stream() const { return stream_; }
  /// Whether launches are recorded into a graph now, and nothing may be timed or waited for.
  bool is_capturing() const { return capturing_ != nullptr; }

  /// The one T(CudaContext&) of this context, made at its first use: handles and caches of the op families.
  template <class T>
  T& part() {
    std::shared_ptr<void>& slot = parts_[typeid(T)];
    if (!slot) slot = std::make_shared<T>(*this);
    return *static_cast<T*>(slot.get());
  }

 protected:
  void push_range(const char* name) override;
  void pop_range() override;

 private:
  struct CapturedGraph;

  std::unique_ptr<CachingAllocator> create_allocator() const;
  cudaGraphExec_t end_capture(std::string* problem);

  Options options_;
  std::shared_ptr<std::size_t> held_;  // bytes of device memory or, of a dry run, of addresses
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<CachingAllocator> allocator_;
  std::shared_ptr<CachingAllocator> lasting_;    // of what stays
  std::shared_ptr<CachingAllocator> capturing_;  // while a graph is captured: of the memory it will own
  std::vector<void*> captured_constants_;
  std::size_t captured_bytes_ = 0;                                      // of device memory that graphs own
  std::size_t peak_before_capture_ = 0;                                 // of the last one, since reset_peak()
  std::unordered_map<void*, std::shared_ptr<CachingAllocator>> owner_;  // of blocks not of allocator_
  std::unique_ptr<StagingRing> staging_;
  std::map<std::type_index, std::shared_ptr<void>> parts_;
};

/// The context of an op's cuda() half.
inline CudaContext& cuda(Context& context) { return static_cast<CudaContext&>(context); }

}  // namespace sgm
