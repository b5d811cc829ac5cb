#include "sgm/data/distances.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "sgm/core/random.h"

namespace sgm {
namespace {

constexpr std::int64_t kMaxBytes = std::int64_t{1} << 30;
constexpr std::int64_t kBlock = 32;  // images compared with as many others: they stay in the cache
constexpr std::int64_t kPart = std::int64_t{1} << 14;  // pixels whose squares' sum fits 32 bits

std::int64_t squared_distance(const std::uint8_t* a, const std::uint8_t* b, std::int64_t size) {
  std::int64_t total = 0;
  for (std::int64_t begin = 0; begin < size; begin += kPart) {
    const std::int64_t end = std::min(size, begin + kPart);
    std::int32_t sum = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto difference = static_cast<std::int16_t>(a[i] - b[i]);
      sum += difference * difference;
    }
    total += sum;
  }
  return total;
}

/// The first `count` of the numbers below n in a random order; in theirs where count is n.
std::vector<std::int64_t> choose(std::int64_t n, std::int64_t count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), std::int64_t{0});
  for (std::int64_t i = 0; i < count && count < n; ++i) {
    const double u = static_cast<double>(uniform_at({0, Purpose::shuffle}, static_cast<std::uint32_t>(i)));
    const std::int64_t other =
        i + std::min(n - i - 1, static_cast<std::int64_t>(u * static_cast<double>(n - i)));
    std::swap(numbers[static_cast<std::size_t>(i)], numbers[static_cast<std::size_t>(other)]);
  }
  numbers.resize(static_cast<std::size_t>(count));
  return numbers;
}

}  // namespace

LargestDistance largest_distance(const Dataset& dataset, std::int64_t limit) {
  const std::int64_t size = dataset.image_bytes();
  const std::int64_t n = std::min({dataset.size(), limit, std::max<std::int64_t>(2, kMaxBytes / size)});
  const std::vector<std::int64_t> chosen = choose(dataset.size(), n);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(n * size));
  for (std::int64_t i = 0; i < n; ++i)
    dataset.read(
        chosen[static_cast<std::size_t>(i)],
        std::span(pixels).subspan(static_cast<std::size_t>(i * size), static_cast<std::size_t>(size)));
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  std::int64_t largest = 0;
#pragma omp parallel for schedule(dynamic) reduction(max : largest)
  for (std::int64_t block = 0; block < blocks * blocks; ++block) {
    const std::int64_t rows = block / blocks * kBlock, columns = block % blocks * kBlock;
    for (std::int64_t i = rows; i < std::min(n, rows + kBlock); ++i)
      for (std::int64_t j = columns; j < std::min(i, columns + kBlock); ++j)
        largest =
            std::max(largest, squared_distance(pixels.data() + i * size, pixels.data() + j * size, size));
  }
  return {std::sqrt(static_cast<double>(largest)) / 255.0, n};
}

}  // namespace sgm
