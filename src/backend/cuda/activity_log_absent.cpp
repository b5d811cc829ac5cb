// For toolkits without CUPTI's headers.

#include "backend/cuda/activity_log.h"

namespace sgm {

std::unique_ptr<ActivityLog> create_cupti_log(CudaContext&, std::string* why_not) {
  if (why_not) *why_not = "this build knows no CUPTI: its toolkit lacks cupti.h";
  return nullptr;
}

}  // namespace sgm
