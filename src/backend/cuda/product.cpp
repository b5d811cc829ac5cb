#include "backend/cuda/product.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <memory>
#include <optional>
#include <sstream>

#include "backend/cuda/workspace.h"
#include "backend/scratch.h"
#include "kernels/direct_conv.h"

namespace sgm {
namespace {

constexpr std::size_t kMostWorkspace = std::size_t{32} << 20;

std::string text_of(const Product& p) {
  std::ostringstream text;
  text << p.batch << " x [" << p.m << ", " << p.k << (p.trans_a ? "]^T" : "]") << " x [" << p.k << ", " << p.n
       << (p.trans_b ? "]^T" : "]") << ", " << p.a.dtype << " to " << p.d.dtype << (p.bias ? ", bias" : "")
       << (p.c ? ", added to a matrix" : "");
  return text.str();
}

void require(cublasStatus_t status, const char* call, const Product& p) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail("matmul: ", call, " (", text_of(p), "): ", cublasLtGetStatusString(status));
}

cudaDataType_t data_type(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// The largest power of two, up to 256, that an address is a multiple of.
std::uint32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p) | 256u;
  return std::uint32_t{1} << std::countr_zero(address);
}

template <class T, cublasStatus_t (*destroy)(T)>
struct Destroy {
  using pointer = T;
  void operator()(T object) const { destroy(object); }
};
using Operation = std::unique_ptr<void, Destroy<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>>;
using Layout = std::unique_ptr<void, Destroy<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>>;
using Preference =
    std::unique_ptr<void, Destroy<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>>;

/// Everything but the addresses of one kind of product.
struct Call {
  Operation operation;
  Layout a, b, c, d;  // cuBLASLt's a and b: our b and a, see below
  std::optional<cublasLtMatmulAlgo_t> algorithm;
  std::size_t workspace = 0;
};

/// A row-major matrix is a column-major one transposed: [rows, cols] here has `cols` rows there.
Layout layout(const Product& p, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t ld,
              std::int64_t stride) {
  cublasLtMatrixLayout_t made = nullptr;
  require(cublasLtMatrixLayoutCreate(&made, data_type(dtype), static_cast<std::uint64_t>(cols),
                                     static_cast<std::uint64_t>(rows), ld),
          "cublasLtMatrixLayoutCreate", p);
  Layout owner(made);
  const auto batch = static_cast<std::int32_t>(p.batch);
  require(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch),
          "batch count", p);
  require(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                           sizeof stride),
          "batch stride", p);
  return owner;
}

Operation operation(const Product& p, bool tf32) {
  const bool reduced = p.a.dtype == DType::f32 && tf32;
  cublasLtMatmulDesc_t made = nullptr;
  require(cublasLtMatmulDescCreate(&made, reduced ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                   CUDA_R_32F),
          "cublasLtMatmulDescCreate", p);
  Operation owner(made);
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const auto& value) {
    require(cublasLtMatmulDescSetAttribute(made, name, &value, sizeof value),
            "cublasLtMatmulDescSetAttribute", p);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, p.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, p.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(data_type(p.d.dtype)));
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias.data);
  }
  return owner;
}

/// The handle and the algorithms of one context.
class CublasLt {
 public:
  explicit CublasLt(CudaContext& device) : device_(device) {}
  ~CublasLt() {
    if (handle_) cublasLtDestroy(handle_);
  }
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  /// Executes; false if there is no algorithm.
  bool execute(const Product& p);

 private:
  using Key = std::array<std::int64_t, 23>;
  static Key key_of(const Product& p);
  Call prepare(const Product& p);

  CudaContext& device_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Call> calls_;
};

CublasLt::Key CublasLt::key_of(const Product& p) {
  const auto type = [](const ConstBuffer& buffer) { return static_cast<std::int64_t>(buffer.dtype); };
  return {type(p.a),
          type(p.b),
          type(p.d),
          bool(p.bias),
          bool(p.c),
          p.batch,
          p.m,
          p.n,
          p.k,
          p.lda,
          p.ldb,
          p.ldc,
          p.ldd,
          p.stride_a,
          p.stride_b,
          p.stride_c,
          p.stride_d,
          2 * p.trans_a + p.trans_b,
          alignment_of(p.a.data),
          alignment_of(p.b.data),
          alignment_of(p.c.data),
          alignment_of(p.d.data),
          alignment_of(p.bias.data)};
}

Call CublasLt::prepare(const Product& p) {
  if (!handle_) require(cublasLtCreate(&handle_), "cublasLtCreate", p);
  Call call;
  call.operation = operation(p, device_.options().allow_tf32);
  call.a = p.trans_b ? layout(p, p.b.dtype, p.n, p.k, p.ldb, p.stride_b)
                     : layout(p, p.b.dtype, p.k, p.n, p.ldb, p.stride_b);
  call.b = p.trans_a ? layout(p, p.a.dtype, p.k, p.m, p.lda, p.stride_a)
                     : layout(p, p.a.dtype, p.m, p.k, p.lda, p.stride_a);
  call.d = layout(p, p.d.dtype, p.m, p.n, p.ldd, p.stride_d);
  call.c = p.c ? layout(p, p.d.dtype, p.m, p.n, p.ldc, p.stride_c)
               : layout(p, p.d.dtype, p.m, p.n, p.ldd, p.stride_d);

  cublasLtMatmulPreference_t made = nullptr;
  require(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate", p);
  const Preference preference(made);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    require(cublasLtMatmulPreferenceSetAttribute(made, name, &value, sizeof value),
            "cublasLtMatmulPreferenceSetAttribute", p);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kMostWorkspace});
  // Long sums that several blocks share are added up in f32, whatever d is.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.c ? p.c.data : p.d.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.d.data));

  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, call.operation.get(), call.a.get(), call.b.get(), call.c.get(),
                                     call.d.get(), made, 1, &found, &count);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) require(status, "cublasLtMatmulAlgoGetHeuristic", p);
  if (status == CUBLAS_STATUS_SUCCESS && count > 0 && found.state == CUBLAS_STATUS_SUCCESS) {
    call.algorithm = found.algo;
    call.workspace = found.workspaceSize;
  }
  return call;
}

bool CublasLt::execute(const Product& p) {
  const Key key = key_of(p);
  auto known = calls_.find(key);
  if (known == calls_.end()) known = calls_.emplace(key, prepare(p)).first;
  const Call& call = known->second;
  if (!call.algorithm) return false;
  if (p.bias)
    require(cublasLtMatmulDescSetAttribute(call.operation.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                           &p.bias.data, sizeof p.bias.data),
            "bias pointer", p);
  const Scratch workspace(device_, workspace_size(call.workspace));
  const float alpha = static_cast<float>(p.alpha), beta = p.c ? static_cast<float>(p.beta) : 0.0f;
  require(cublasLtMatmul(handle_, call.operation.get(), &alpha, p.b.data, call.a.get(), p.a.data,
                         call.b.get(), &beta, p.c ? p.c.data : p.d.data, call.c.get(), p.d.data, call.d.get(),
                         &*call.algorithm, workspace.data(), call.workspace, device_.stream()),
          "cublasLtMatmul", p);
  return true;
}

/// Every operand moves once: a matrix that a batch shares, too.
OpCost cost_of(const Product& p) {
  const auto moved = [&p](const ConstBuffer& matrix, std::int64_t size, std::int64_t stride) {
    return bytes_of(matrix, (stride == 0 ? 1 : p.batch) * size);
  };
  return {moved(p.a, p.m * p.k, p.stride_a) + moved(p.b, p.k * p.n, p.stride_b) +
              bytes_of({p.c, p.d}, p.batch * p.m * p.n) + bytes_of(p.bias, p.n),
          2.0 * static_cast<double>(p.batch * p.m) * static_cast<double>(p.n * p.k)};
}

void check_types(const char* kernel, const Product& p) {
  check(p.a.dtype == DType::f32 || p.a.dtype == DType::bf16, kernel,
        ": on a GPU matrices are f32 or bf16, got ", p.a.dtype, "; use --device cpu");
  check(p.b.dtype == p.a.dtype && (p.d.dtype == p.a.dtype || p.d.dtype == DType::f32) &&
            (!p.c || p.c.dtype == p.d.dtype) &&
            (!p.bias || p.bias.dtype == DType::f32 || p.bias.dtype == p.d.dtype),
        kernel, ": types do not fit: ", p.a.dtype, " x ", p.b.dtype, " to ", p.d.dtype);
}

}  // namespace

void multiply(const char* kernel, const Product& product, CudaContext& device) {
  check_types(kernel, product);
  if (product.batch * product.m * product.n == 0) return;
  check(product.k > 0, kernel, ": empty inner dimension of ", text_of(product));
  const ReadyBias bias(product.bias, product.n, 1.0, product.d.dtype, device);
  Product p = product;
  p.bias = bias.buffer();
  const OpCost cost = cost_of(p);
  if (!device.note({kernel, Traffic::product, cost.bytes, cost.flop})) {
    const Scratch most(device, workspace_size(kMostWorkspace));
    return;
  }
  device.explain([&] { return text_of(p) + ": cuBLASLt, the first that its heuristics name"; });
  CublasLt& library = device.part<CublasLt>();
  if (library.execute(p)) return;
  const bool rows_in_one_matrix = p.batch == 1 || p.stride_d == p.m * p.ldd;
  check(p.bias && rows_in_one_matrix, kernel, ": cuBLASLt has no algorithm for ", text_of(p));
  p.bias = {};
  check(library.execute(p), kernel, ": cuBLASLt has no algorithm for ", text_of(p));
  add_epilogue({bias.buffer(), {}, p.d, p.batch * p.m, p.n, p.ldd, 1.0}, device);
}

}  // namespace sgm
