// cuBLASLt as its documentation describes it, for emulated builds: column-major products of descriptors.

#include <cublasLt.h>

#include <cstring>
#include <vector>

#include "emulator/stream.h"
#include "sgm/core/types.h"

namespace {

using sgm::bfloat16;

struct Layout {
  cudaDataType_t type;
  std::uint64_t rows, cols;
  std::int64_t ld;
  std::int32_t batch = 1;
  std::int64_t stride = 0;

  bool holds(std::uint64_t r, std::uint64_t c) const {
    return rows == r && cols == c && ld >= static_cast<std::int64_t>(rows);
  }
};

struct Operation {
  std::int32_t trans_a = CUBLAS_OP_N, trans_b = CUBLAS_OP_N, epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  std::int32_t bias_type = -1;
  const void* bias = nullptr;
};

double load(const void* p, cudaDataType_t type, std::int64_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(p)[i];
  return static_cast<float>(static_cast<const bfloat16*>(p)[i]);
}

void store(void* p, cudaDataType_t type, std::int64_t i, double value) {
  if (type == CUDA_R_32F)
    static_cast<float*>(p)[i] = static_cast<float>(value);
  else
    static_cast<bfloat16*>(p)[i] = bfloat16(static_cast<float>(value));
}

/// A value that an attribute is set to.
template <class T>
bool take(T& to, const void* value, std::size_t size) {
  if (size != sizeof(T)) return false;
  std::memcpy(&to, value, size);
  return true;
}

cublasStatus_t accepted(bool yes) { return yes ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE; }

struct Product {
  Operation op;
  Layout a, b, c, d;
  const void *pa, *pb, *pc;
  void* pd;
  double alpha, beta;

  bool is_valid() const {
    const std::uint64_t m = d.rows, n = d.cols, k = op.trans_a ? a.rows : a.cols;
    return (op.trans_a ? a.holds(k, m) : a.holds(m, k)) && (op.trans_b ? b.holds(n, k) : b.holds(k, n)) &&
           c.holds(m, n) && d.holds(m, n) && c.type == d.type && a.type == b.type && a.batch == d.batch &&
           b.batch == d.batch && c.batch == d.batch &&
           (op.epilogue == CUBLASLT_EPILOGUE_DEFAULT || op.bias_type == d.type);
  }
  void compute() const {
    const auto m = static_cast<std::int64_t>(d.rows), n = static_cast<std::int64_t>(d.cols),
               k = static_cast<std::int64_t>(op.trans_a ? a.rows : a.cols);
    for (std::int64_t batch = 0; batch < d.batch; ++batch)
      for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t i = 0; i < m; ++i) {
          double sum = 0.0;
          for (std::int64_t l = 0; l < k; ++l)
            sum += load(pa, a.type, batch * a.stride + (op.trans_a ? l + i * a.ld : i + l * a.ld)) *
                   load(pb, b.type, batch * b.stride + (op.trans_b ? j + l * b.ld : l + j * b.ld));
          double value = alpha * sum;
          if (beta != 0.0) value += beta * load(pc, c.type, batch * c.stride + i + j * c.ld);
          if (op.epilogue == CUBLASLT_EPILOGUE_BIAS) value += load(op.bias, d.type, i);
          store(pd, d.type, batch * d.stride + i + j * d.ld, value);
        }
  }
};

template <class T>
const T& as(const void* opaque) {
  return *static_cast<const T*>(opaque);
}

}  // namespace

extern "C" {

std::size_t cublasLtGetVersion() { return 130100; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_INVALID_VALUE ? "invalid value" : "an error";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, cols, ld});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t name, const void* value,
                                                size_t size) {
  Layout& l = *reinterpret_cast<Layout*>(layout);
  if (name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return accepted(take(l.batch, value, size));
  if (name == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) return accepted(take(l.stride, value, size));
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t,
                                        cudaDataType_t) {
  *operation = reinterpret_cast<cublasLtMatmulDesc_t>(new Operation);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete reinterpret_cast<Operation*>(operation);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t name, const void* value,
                                              size_t size) {
  Operation& o = *reinterpret_cast<Operation*>(operation);
  switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return accepted(take(o.trans_a, value, size));
    case CUBLASLT_MATMUL_DESC_TRANSB: return accepted(take(o.trans_b, value, size));
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return accepted(take(o.epilogue, value, size));
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return accepted(take(o.bias_type, value, size));
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return accepted(take(o.bias, value, size));
    default: return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new int);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<int*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t, const void*,
                                                    size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

/// Products of odd height with a bias have no algorithm here, so that somebody must do without.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  *count = 0;
  if (as<Operation>(operation).epilogue == CUBLASLT_EPILOGUE_BIAS && as<Layout>(d).rows % 2 == 1)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  *results = {};
  results->workspaceSize = 1024;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* pa, cublasLtMatrixLayout_t a, const void* pb,
                              cublasLtMatrixLayout_t b, const void* beta, const void* pc,
                              cublasLtMatrixLayout_t c, void* pd, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t*, void*, size_t, cudaStream_t stream) {
  const Product product{
      as<Operation>(operation), as<Layout>(a),  as<Layout>(b), as<Layout>(c), as<Layout>(d), pa, pb, pc, pd,
      as<float>(alpha),         as<float>(beta)};
  if (!product.is_valid()) return CUBLAS_STATUS_INVALID_VALUE;
  sgm::emulator::enqueue(stream, [product] { product.compute(); });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
