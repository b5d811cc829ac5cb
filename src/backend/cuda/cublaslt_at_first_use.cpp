// cuBLASLt's functions. The library is opened when the first of them is called, not linked: it takes 0.2 s
// and 200 MiB of every program that loads it, whatever device that then works on.

#include <cublasLt.h>
#include <dlfcn.h>

#include "sgm/core/error.h"

namespace {

void* open_library() {
  void* const library = dlopen(SGM_CUBLASLT_NAME, RTLD_NOW | RTLD_LOCAL);
  return library ? library : dlopen(SGM_CUBLASLT_PATH, RTLD_NOW | RTLD_LOCAL);
}

/// The library's function of the same type and name.
template <class F>
F* find(F*, const char* name) {
  static void* const library = open_library();
  void* const found = library ? dlsym(library, name) : nullptr;
  const char* const problem = found ? nullptr : dlerror();
  sgm::check(found != nullptr, "cuBLASLt: ", problem ? problem : "it could not be opened",
             "; install the CUDA toolkit's libraries, or use --device cpu");
  return reinterpret_cast<F*>(found);
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static const auto call = find(cublasLtCreate, "cublasLtCreate");
  return call(handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  static const auto call = find(cublasLtDestroy, "cublasLtDestroy");
  return call(handle);
}

std::size_t cublasLtGetVersion() {
  static const auto call = find(cublasLtGetVersion, "cublasLtGetVersion");
  return call();
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  static const auto call = find(cublasLtGetStatusString, "cublasLtGetStatusString");
  return call(status);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          std::uint64_t rows, std::uint64_t cols, std::int64_t ld) {
  static const auto call = find(cublasLtMatrixLayoutCreate, "cublasLtMatrixLayoutCreate");
  return call(layout, type, rows, cols, ld);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  static const auto call = find(cublasLtMatrixLayoutDestroy, "cublasLtMatrixLayoutDestroy");
  return call(layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t name, const void* value,
                                                std::size_t bytes) {
  static const auto call = find(cublasLtMatrixLayoutSetAttribute, "cublasLtMatrixLayoutSetAttribute");
  return call(layout, name, value, bytes);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  static const auto call = find(cublasLtMatmulDescCreate, "cublasLtMatmulDescCreate");
  return call(operation, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  static const auto call = find(cublasLtMatmulDescDestroy, "cublasLtMatmulDescDestroy");
  return call(operation);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t name, const void* value,
                                              std::size_t bytes) {
  static const auto call = find(cublasLtMatmulDescSetAttribute, "cublasLtMatmulDescSetAttribute");
  return call(operation, name, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  static const auto call = find(cublasLtMatmulPreferenceCreate, "cublasLtMatmulPreferenceCreate");
  return call(preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  static const auto call = find(cublasLtMatmulPreferenceDestroy, "cublasLtMatmulPreferenceDestroy");
  return call(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* value, std::size_t bytes) {
  static const auto call = find(cublasLtMatmulPreferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute");
  return call(preference, name, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  static const auto call = find(cublasLtMatmulAlgoGetHeuristic, "cublasLtMatmulAlgoGetHeuristic");
  return call(handle, operation, a, b, c, d, preference, wanted, results, count);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  static const auto call = find(cublasLtMatmul, "cublasLtMatmul");
  return call(handle, operation, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm,
              workspace, workspace_bytes, stream);
}

}  // extern "C"
