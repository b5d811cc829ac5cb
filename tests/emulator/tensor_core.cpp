// Tensor cores and asynchronous copies. A warp's instruction is computed once, by the last lane that calls,
// from what all lanes brought.

#include "emulator/tensor_core.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "emulator/scheduler.h"

namespace sgm::emulator {
namespace {

constexpr int kLanes = 32;

float half_of(std::uint32_t pair, int which) {
  return std::bit_cast<float>(which ? pair & 0xffff0000u : pair << 16);
}

/// What a lane brings to a product.
struct ProductLane {
  float* sum;
  const std::uint32_t *a, *b;
};

void multiply_all(void* const* lanes) {
  float a[16][16], b[16][8];
  const auto lane_of = [&](int lane) -> const ProductLane& {
    return *static_cast<const ProductLane*>(lanes[lane]);
  };
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int which = 0; which < 2; ++which) {
      for (int i = 0; i < 4; ++i)
        a[g + i % 2 * 8][2 * t + i / 2 * 8 + which] = half_of(lane_of(lane).a[i], which);
      for (int i = 0; i < 2; ++i) b[2 * t + 8 * i + which][g] = half_of(lane_of(lane).b[i], which);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
      float sum = 0.0f;
      for (int k = 0; k < 16; ++k) sum = std::fma(a[row][k], b[k][col], sum);
      lane_of(lane).sum[i] += sum;
    }
}

/// What a lane brings to a load, and what it gets.
struct LoadLane {
  std::uint32_t* to;
  const unsigned char* row;
  bool transposed;
};

void load_all(void* const* lanes) {
  const auto lane_of = [&](int lane) -> const LoadLane& {
    return *static_cast<const LoadLane*>(lanes[lane]);
  };
  const auto element = [&](int matrix, int row, int col) {
    std::uint16_t bits;
    std::memcpy(&bits, lane_of(8 * matrix + row).row + 2 * col, sizeof bits);
    return std::uint32_t{bits};
  };
  for (int lane = 0; lane < kLanes; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix) {
      const int g = lane / 4, t = lane % 4 * 2;
      lane_of(lane).to[matrix] = lane_of(lane).transposed
                                     ? element(matrix, t, g) | element(matrix, t + 1, g) << 16
                                     : element(matrix, g, t) | element(matrix, g, t + 1) << 16;
    }
}

}  // namespace

void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], const PairOfRows& b, const char* file,
                  int line) {
  ProductLane mine{sum, a, b.at};
  scheduler().warp_together(multiply_all, &mine, {file, line});
}

void load_matrices(std::uint32_t (&to)[4], const void* row, bool transposed, const char* file, int line) {
  check_aligned(row, 16);
  LoadLane mine{to, static_cast<const unsigned char*>(row), transposed};
  scheduler().warp_together(load_all, &mine, {file, line});
}

void copy_beside(void* to, const void* from, std::size_t bytes, bool zeros) {
  check_aligned(to, bytes);
  check_aligned(from, bytes);
  std::memset(to, 0xff, bytes);
  scheduler().copies().push_back({to, zeros ? nullptr : from, bytes, false});
}

void end_copies() { scheduler().copies().push_back({nullptr, nullptr, 0, true}); }

void wait_for_copies(int groups) {
  std::vector<Scheduler::Copy>& copies = scheduler().copies();
  int later = 0;  // groups that end after a copy
  for (const Scheduler::Copy& copy : copies) later += copy.ends_group;
  std::size_t arrived = 0;
  for (; arrived < copies.size() && later > groups; ++arrived) {
    const Scheduler::Copy& copy = copies[arrived];
    if (copy.ends_group)
      --later;
    else if (copy.from)
      std::memcpy(copy.to, copy.from, copy.bytes);
    else
      std::memset(copy.to, 0, copy.bytes);
  }
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(arrived));
}

}  // namespace sgm::emulator
