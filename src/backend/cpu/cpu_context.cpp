#include "backend/cpu/cpu_context.h"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "backend/cpu/onednn.h"
#include "sgm/core/error.h"

namespace sgm {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

void* acquire(std::size_t bytes) {
  const bool large = bytes >= kHugePage;
  const std::size_t alignment = large ? kHugePage : 64;
  void* data = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (data && large) madvise(data, bytes, MADV_HUGEPAGE);  // a hint: its failure costs only speed
  return data;
}

/// Up to `limit` bytes; 0: all there are.
std::unique_ptr<CachingAllocator> create_allocator(std::size_t limit) {
  const auto held = std::make_shared<std::size_t>(0);
  const auto take = [held, limit](std::size_t bytes) -> void* {
    if (limit != 0 && *held + bytes > limit) return nullptr;
    void* data = acquire(bytes);
    if (data) *held += bytes;
    return data;
  };
  const auto dispose = [held](void* data, std::size_t bytes) {
    std::free(data);
    *held -= bytes;
  };
  return std::make_unique<CachingAllocator>(
      take, dispose,
      limit ? "raise --max-memory, or use a smaller batch or model" : "use a smaller batch or model");
}

}  // namespace

CpuContext::CpuContext(const Options& options)
    : Context(options.dry),
      allocator_(options.dry ? create_dry_allocator() : create_allocator(options.max_memory)),
      onednn_(std::make_unique<OneDnn>(options.dry)) {
  // oneDNN waits for as many threads as it was promised: never promise more than a team will get.
  omp_set_dynamic(0);
  omp_set_num_threads(
      std::min(options.threads > 0 ? options.threads : omp_get_max_threads(), omp_get_thread_limit()));
}

CpuContext::~CpuContext() = default;

std::string CpuContext::describe() const {
  std::ostringstream text;
  text << "cpu: " << omp_get_max_threads() << " threads, oneDNN " << onednn_version() << " (" << onednn_isa()
       << ')';
  return text.str();
}

void CpuContext::copy_from_host(void* device, const void* host, std::size_t bytes) {
  if (bytes && !is_dry()) std::memcpy(device, host, bytes);
}

void CpuContext::copy_to_host(void* host, const void* device, std::size_t bytes) {
  if (!bytes) return;
  is_dry() ? std::memset(host, 0, bytes) : std::memcpy(host, device, bytes);
}

}  // namespace sgm
