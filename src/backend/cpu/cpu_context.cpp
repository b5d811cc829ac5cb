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

}  // namespace

CpuContext::CpuContext(int threads)
    : allocator_(acquire, [](void* data, std::size_t) { std::free(data); }),
      onednn_(std::make_unique<OneDnn>()) {
  // oneDNN waits for as many threads as it was promised: never promise more than a team will get.
  omp_set_dynamic(0);
  omp_set_num_threads(std::min(threads > 0 ? threads : omp_get_max_threads(), omp_get_thread_limit()));
}

CpuContext::~CpuContext() = default;

std::string CpuContext::describe() const {
  std::ostringstream text;
  text << "cpu: " << omp_get_max_threads() << " threads, oneDNN " << onednn_version() << " (" << onednn_isa()
       << ')';
  return text.str();
}

void CpuContext::copy_from_host(void* device, const void* host, std::size_t bytes) {
  if (bytes) std::memcpy(device, host, bytes);
}

void CpuContext::copy_to_host(void* host, const void* device, std::size_t bytes) {
  if (bytes) std::memcpy(host, device, bytes);
}

}  // namespace sgm
