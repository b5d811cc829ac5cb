#include "backend/cpu/cpu_context.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "backend/cpu/host_memory.h"
#include "backend/cpu/onednn.h"
#include "sgm/core/error.h"

namespace sgm {
namespace {

std::unique_ptr<CachingAllocator> create_allocator(const CpuContext::Options& options) {
  return std::make_unique<CachingAllocator>(
      options.dry ? create_dry_memory() : create_host_memory(options.max_memory),
      options.max_memory ? "raise --max-memory, or use a smaller batch or model"
                         : "use a smaller batch or model");
}

}  // namespace

CpuContext::CpuContext(const Options& options)
    : Context(options.dry),
      allocator_(create_allocator(options)),
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

void CpuContext::drop_packed_weights() { onednn_->drop_packed(); }

void CpuContext::copy_from_host(void* device, const void* host, std::size_t bytes) {
  if (bytes && !is_dry()) std::memcpy(device, host, bytes);
}

void CpuContext::copy_to_host(void* host, const void* device, std::size_t bytes) {
  if (!bytes) return;
  is_dry() ? std::memset(host, 0, bytes) : std::memcpy(host, device, bytes);
}

}  // namespace sgm
