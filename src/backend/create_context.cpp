#include "backend/cpu/cpu_context.h"
#include "sgm/core/error.h"
#ifdef SGM_WITH_CUDA
#include "backend/cuda/create.h"
#endif

namespace sgm {

std::unique_ptr<Context> create_context(const std::string& device, int threads, std::size_t max_memory) {
  if (device == "cpu")
    return std::make_unique<CpuContext>(CpuContext::Options{.threads = threads, .max_memory = max_memory});
  if (device == "cpu-dry")
    return std::make_unique<CpuContext>(CpuContext::Options{.threads = threads, .dry = true});
#ifdef SGM_WITH_CUDA
  if (device == "cuda") return create_cuda_context(max_memory);
  if (device == "cuda-dry") return create_dry_cuda_context();
#endif
  const std::string problem = device.starts_with("cuda") ? why_no_cuda() : "known: cpu, cuda";
  fail("device '", device, "' is not available: ", problem, "; use --device cpu");
}

std::string why_no_cuda() {
#ifdef SGM_WITH_CUDA
  return cuda_problem();
#else
  return "this build has no CUDA backend (configure says what it missed)";
#endif
}

#ifndef SGM_WITH_CUDA
std::string cuda_library_versions() { return {}; }
#endif

}  // namespace sgm
