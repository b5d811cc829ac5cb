#include "backend/cpu/batched_product.h"

#include <omp.h>

#include <algorithm>

#include "backend/cpu/bf16_panels.h"
#include "backend/scratch.h"

namespace sgm::batched_product {
namespace {

using namespace bf16_panels;

/// Rows that are multiplied with a panel before their products are written.
std::int64_t rows_at_a_time(const Matmul& op) { return op.trans_a ? kColumns : 4 * TileProduct::kRows; }

/// The rows from `row` on of one matrix a: as they lie, or of panels [m / 32][words][32].
TileProduct rows_of(const Matmul& op, const bfloat16* a, const std::uint32_t* packed, std::int64_t row) {
  TileProduct product{};
  product.a =
      op.trans_a ? packed + row * op.k / 2 : reinterpret_cast<const TileProduct::Word*>(a + row * op.lda);
  product.a_row = op.trans_a ? 1 : op.lda / 2;
  product.a_word = op.trans_a ? kColumns : 1;
  product.rows = std::min(rows_at_a_time(op), op.m - row);
  product.words = op.k / 2;
  product.columns = product.c_row = kColumns;
  return product;
}

/// c[row ...][column ...] from products with a panel.
template <class T>
void write(const Matmul& op, const TileProduct& product, T* c) {
  for (std::int64_t i = 0; i < product.rows; ++i)
    for (std::int64_t j = 0; j < kColumns; j += kLanes)
      winograd::store(c + i * op.ldc + j, winograd::load(product.c + i * kColumns + j));
}

/// One matrix a times the panel of b that begins at `column`; own: of this thread, for the panel and
/// products.
void multiply_panel(const Matmul& op, const bfloat16* a, const std::uint32_t* packed_a, const bfloat16* b,
                    std::int64_t column, std::int64_t c_offset, std::uint32_t* own) {
  if (op.trans_b)
    pack_rows(b + column * op.ldb, op.ldb, op.k, own);
  else
    pack_columns(b + column, op.ldb, op.k, 0, op.k, own);
  for (std::int64_t row = 0; row < op.m; row += rows_at_a_time(op)) {
    TileProduct product = rows_of(op, a, packed_a, row);
    product.b = own;
    product.c = reinterpret_cast<float*>(own + op.k / 2 * kColumns);
    multiply_bfloats(product);
    const std::int64_t at = c_offset + row * op.ldc + column;
    if (op.c.dtype == DType::bf16)
      write(op, product, op.c.as<bfloat16>() + at);
    else
      write(op, product, op.c.as<float>() + at);
  }
}

}  // namespace

bool suits(const Matmul& op) {
  if (op.a.dtype != DType::bf16 || op.b.dtype != DType::bf16 || !bfloats_are_fast()) return false;
  if (op.bias || op.accumulate || op.alpha != 1.0 || op.n % kColumns) return false;
  const bool whole_words = op.trans_a ? op.m % kColumns == 0 : op.lda % 2 == 0 && op.stride_a % 2 == 0;
  return whole_words && op.k % (op.trans_b ? 2 * kLanes : 2) == 0;
}

void multiply(const Matmul& op, Context& context) {
  const std::int64_t words = op.k / 2, own_size = (words + rows_at_a_time(op)) * kColumns;
  const Scratch own_memory(context, bytes(own_size * omp_get_max_threads()));
  const Scratch a_memory(context, op.trans_a ? bytes(op.batch * op.m * words) : 0);
  if (context.is_dry()) return;
  const bfloat16 *a = op.a.as<bfloat16>(), *b = op.b.as<bfloat16>();
  std::uint32_t* const packed_a = a_memory.as<std::uint32_t>();
#pragma omp parallel
  {
    if (op.trans_a) {
#pragma omp for collapse(2) schedule(static)
      for (std::int64_t i = 0; i < op.batch; ++i)
        for (std::int64_t row = 0; row < op.m; row += kColumns)
          pack_columns(a + i * op.stride_a + row, op.lda, op.k, 0, op.k, packed_a + (i * op.m + row) * words);
    }
    std::uint32_t* const own = own_memory.as<std::uint32_t>() + omp_get_thread_num() * own_size;
#pragma omp for collapse(2) schedule(static)
    for (std::int64_t i = 0; i < op.batch; ++i)
      for (std::int64_t column = 0; column < op.n; column += kColumns)
        multiply_panel(op, a + i * op.stride_a, packed_a + (op.trans_a ? i * op.m * words : 0),
                       b + i * op.stride_b, column, i * op.stride_c, own);
  }
}

}  // namespace sgm::batched_product
