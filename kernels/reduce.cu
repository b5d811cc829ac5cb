// Column sums: blocks own tiles of columns and chunks of rows; the last block to finish a tile adds the
// chunks.

#include "kernels/elementwise.h"
#include "kernels/last_block.h"
#include "kernels/span.h"

#include <algorithm>

#include "backend/cuda/arrivals.h"
#include "backend/scratch.h"

namespace sgm {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kBlocks = 512;      // enough for every GPU; a constant, so that all of them add alike
constexpr std::int64_t kRowsOfThread = 4;  // at the least

/// How a block's threads lie over [rows, cols]: `lanes` threads side by side, W columns each.
struct Tiling {
  int lanes;
  std::int64_t tiles, chunk_rows, chunks;
};

template <int W>
Tiling tiling_for(std::int64_t rows, std::int64_t cols) {
  constexpr int kMaxLanes = W > 1 ? 8 : kWarp;  // 128 bytes of a row, or what scalar accesses make of it
  int lanes = 1;
  while (lanes < kMaxLanes && lanes * W < cols) lanes *= 2;
  const std::int64_t tiles = (cols + lanes * W - 1) / (lanes * W),
                     wanted = std::max<std::int64_t>(1, kBlocks / tiles);
  const std::int64_t chunk_rows = std::max((rows + wanted - 1) / wanted, kRowsOfThread * (kThreads / lanes));
  // Tiles beyond the counters: there are blocks enough without chunks.
  if (tiles > Arrivals::kCount || rows <= chunk_rows)
    return {lanes, tiles, std::max<std::int64_t>(rows, 1), 1};
  return {lanes, tiles, chunk_rows, (rows + chunk_rows - 1) / chunk_rows};
}

/// sum[w] of the threads of a column, added up in a fixed order: in the first of them.
template <class A, int W>
__device__ void add_lines(A (&sum)[W], A (*shared)[kThreads], int lanes) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  for (int w = 0; w < W; ++w) shared[w][thread] = sum[w];
  for (int count = kThreads / 2; count >= lanes; count /= 2) {
    __syncthreads();
    if (thread < count)
      for (int w = 0; w < W; ++w) shared[w][thread] += shared[w][thread + count];
  }
  __syncthreads();
  for (int w = 0; w < W; ++w) sum[w] = shared[w][thread];
}

template <class A, int W>
__device__ void store_sums(const Buffer& y, std::int64_t col, std::int64_t cols, const A (&sum)[W], A scale) {
  for (int w = 0; w < W && col + w < cols; ++w) {
    if (y.dtype == DType::f64)
      static_cast<double*>(y.data)[col + w] = static_cast<double>(scale * sum[w]);
    else
      static_cast<float*>(y.data)[col + w] = static_cast<float>(scale * sum[w]);
  }
}

/// W > 1: 16-byte accesses, cols is a multiple of W. partial: [gridDim.y, cols].
template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    sum_rows_kernel(const T* x, Buffer y, std::int64_t rows, std::int64_t cols, int lanes,
                    std::int64_t chunk_rows, Accumulator<T>* partial, unsigned* counters,
                    Accumulator<T> scale) {
  using A = Accumulator<T>;
  __shared__ A shared[W][kThreads];
  const int lane = static_cast<int>(threadIdx.x) % lanes, line = static_cast<int>(threadIdx.x) / lanes;
  const int lines = kThreads / lanes;
  const std::int64_t col = (std::int64_t{blockIdx.x} * lanes + lane) * W, chunk = blockIdx.y;
  const std::int64_t end = col < cols ? std::min(rows, (chunk + 1) * chunk_rows) : 0;
  A sum[W] = {}, v[W];
#pragma unroll 4  // loads in flight
  for (std::int64_t row = chunk * chunk_rows + line; row < end; row += lines) {
    load_span(x + row * cols + col, W, W > 1, v);
    for (int w = 0; w < W; ++w) sum[w] += v[w];
  }
  add_lines(sum, shared, lanes);
  if (gridDim.y == 1) {
    if (line == 0) store_sums(y, col, cols, sum, scale);
    return;
  }
  if (line == 0 && col < cols) store_span(partial + chunk * cols + col, W, W > 1, sum);
  if (!is_last_block(counters + blockIdx.x, gridDim.y)) return;
  for (int w = 0; w < W; ++w) sum[w] = 0;
  for (std::int64_t i = line; i < gridDim.y && col < cols; i += lines) {
    load_span(partial + i * cols + col, W, W > 1, v);
    for (int w = 0; w < W; ++w) sum[w] += v[w];
  }
  add_lines(sum, shared, lanes);
  if (line == 0) store_sums(y, col, cols, sum, scale);
}

template <class T, int W>
void sum_rows(Context& context, const SumRows& op) {
  using A = Accumulator<T>;
  CudaContext& device = cuda(context);
  const Tiling tiling = tiling_for<W>(op.rows, op.cols);
  const bool chunked = tiling.chunks > 1;
  const Scratch partial(
      context, chunked ? static_cast<std::size_t>(tiling.chunks * op.cols) * sizeof(A) : std::size_t{0});
  launch(device,
         {"sum_rows", dim3(static_cast<unsigned>(tiling.tiles), static_cast<unsigned>(tiling.chunks)),
          kThreads, op.cost().bytes},
         sum_rows_kernel<T, W>, op.x.as<T>(), op.y, op.rows, op.cols, tiling.lanes, tiling.chunk_rows,
         partial.as<A>(), chunked ? device.part<Arrivals>().counters() : nullptr, static_cast<A>(op.scale));
}

}  // namespace

void SumRows::cuda(Context& context) const {
  check(y.dtype == DType::f32 || y.dtype == DType::f64, "sum_rows: on a GPU sums are f32 or f64, got ",
        y.dtype, "; use --device cpu");
  dispatch_float(x.dtype, "sum_rows", [&]<class T>(T) {
    if (packs<T>({x.data}, cols))
      sum_rows<T, Pack<T>::kSize>(context, *this);
    else
      sum_rows<T, 1>(context, *this);
  });
}

}  // namespace sgm
