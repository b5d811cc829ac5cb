#include "backend/cpu/onednn.h"

namespace sgm {

std::string onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return std::to_string(version->major) + '.' + std::to_string(version->minor) + '.' +
         std::to_string(version->patch);
}

std::string onednn_isa() {
  switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41: return "SSE4.1";
    case dnnl_cpu_isa_avx: return "AVX";
    case dnnl_cpu_isa_avx2: return "AVX2";
    case dnnl_cpu_isa_avx2_vnni: return "AVX2 with VNNI";
    case dnnl_cpu_isa_avx512_core: return "AVX-512";
    case dnnl_cpu_isa_avx512_core_vnni: return "AVX-512 with VNNI";
    case dnnl_cpu_isa_avx512_core_bf16: return "AVX-512 with bf16";
    case dnnl_cpu_isa_avx512_core_amx: return "AVX-512 with AMX";
    default: return "another instruction set";
  }
}

namespace {
/// An instruction set's number has the bits of all that it contains.
bool onednn_has(dnnl_cpu_isa_t all) { return (dnnl_get_effective_cpu_isa() & all) == all; }
}  // namespace

bool onednn_takes_bfloats() { return onednn_has(dnnl_cpu_isa_avx512_core); }

bool onednn_multiplies_matrices() { return onednn_has(dnnl_cpu_isa_avx512_core_amx); }

}  // namespace sgm
