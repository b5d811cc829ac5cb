#pragma once
// The CPU device: host memory, OpenMP threads, oneDNN engine and its cache of primitives.

#include <memory>

#include "backend/caching_allocator.h"
#include "sgm/core/context.h"

namespace sgm {

class OneDnn;  // src/backend/cpu/onednn.h

class CpuContext final : public Context {
 public:
  struct Options {
    int threads = 0;             // OpenMP threads; 0: all cores the process may use
    std::size_t max_memory = 0;  // bytes that tensors may hold of the machine's memory; 0: all
    bool dry = false;            // memory is address space only, work is only counted
  };
  explicit CpuContext(const Options& options);
  ~CpuContext() override;

  bool is_cpu() const override { return true; }
  std::string describe() const override;
  void* allocate(std::size_t bytes) override { return allocator_->allocate(bytes); }
  void release(void* data, std::size_t bytes) noexcept override { allocator_->release(data, bytes); }
  MemoryStats memory() const override { return allocator_->stats(); }
  void reset_peak() override { allocator_->reset_peak(); }
  void drop_packed_weights() override;
  void copy_from_host(void* device, const void* host, std::size_t bytes) override;
  void copy_to_host(void* host, const void* device, std::size_t bytes) override;

  OneDnn& onednn() { return *onednn_; }

 private:
  std::unique_ptr<CachingAllocator> allocator_;
  std::unique_ptr<OneDnn> onednn_;
};

}  // namespace sgm
