#include "backend/cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include <utility>

namespace sgm {
namespace {

class DeviceMemory final : public MemorySource {
 public:
  DeviceMemory(std::shared_ptr<std::size_t> held, std::size_t limit)
      : held_(std::move(held)), limit_(limit) {}

  Region acquire(std::size_t bytes) override {
    const Region usual = exactly(region_size(bytes));
    return usual.data ? usual : exactly(bytes);
  }
  void dispose(const Region& region) override {
    cudaFree(region.data);
    *held_ -= region.bytes;
  }

 private:
  Region exactly(std::size_t bytes) {
    if (limit_ != 0 && *held_ + bytes > limit_) return {};
    void* data = nullptr;
    if (cudaMalloc(&data, bytes) != cudaSuccess) {
      cudaGetLastError();  // out of memory is told by the null pointer
      return {};
    }
    *held_ += bytes;
    return {static_cast<char*>(data), bytes};
  }

  std::shared_ptr<std::size_t> held_;
  std::size_t limit_;
};

}  // namespace

std::unique_ptr<MemorySource> create_device_memory(std::shared_ptr<std::size_t> held, std::size_t limit) {
  return std::make_unique<DeviceMemory>(std::move(held), limit);
}

}  // namespace sgm
