#pragma once
// Launches as CUPTI records them.

#include <memory>
#include <string>

#include "backend/cuda/cuda_context.h"

namespace sgm {

/// Null where CUPTI cannot record, with why_not telling the reason in one line: this build knows no CUPTI,
/// its library is not there, or the driver does not allow it.
std::unique_ptr<ActivityLog> create_cupti_log(CudaContext& device, std::string* why_not);

}  // namespace sgm
