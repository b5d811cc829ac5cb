#include "sgm/data/loader.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "data/parallel.h"
#include "sgm/core/error.h"
#include "sgm/core/random.h"

namespace sgm {
namespace {

/// Values in a batch from which copying them out of memory is shared among threads.
constexpr std::int64_t kWorthThreads = std::int64_t{1} << 20;

/// The Philox block of a position that may exceed 32 bits.
PhiloxWords words_at(const LoaderOptions& options, Purpose purpose, std::int64_t position,
                     std::uint32_t block) {
  const std::uint64_t at = static_cast<std::uint64_t>(position);
  const NoiseKey key{options.seed, purpose, static_cast<std::uint32_t>(at >> 32), 0};
  return philox(key, static_cast<std::uint32_t>(at), block);
}

/// Uniform on [0, bound) from 64 random bits: the integer part of bits / 2^64 * bound. The bias is below
/// bound / 2^64.
std::uint32_t scaled(std::uint64_t bits, std::uint32_t bound) {
  const std::uint64_t high = (bits >> 32) * bound, low = ((bits & 0xffffffffu) * bound) >> 32;
  return static_cast<std::uint32_t>((high + low) >> 32);
}

/// Fisher-Yates, keyed by (seed, epoch).
std::vector<std::uint32_t> shuffled(std::uint32_t count, const LoaderOptions& options, std::int64_t epoch) {
  std::vector<std::uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  PhiloxWords words{};
  for (std::uint32_t left = count, draw = 0; left > 1; --left, ++draw) {
    if (draw % 2 == 0) words = words_at(options, Purpose::shuffle, epoch, draw / 2);
    const std::uint32_t* pair = words.word + 2 * (draw % 2);
    std::swap(order[left - 1], order[scaled(std::uint64_t{pair[0]} << 32 | pair[1], left)]);
  }
  return order;
}

void mirror(std::span<std::uint8_t> pixels, int width, int channels) {
  const std::size_t row = static_cast<std::size_t>(width) * channels;
  for (std::size_t start = 0; start < pixels.size(); start += row)
    for (int left = 0, right = width - 1; left < right; ++left, --right)
      for (int c = 0; c < channels; ++c)
        std::swap(pixels[start + left * channels + c], pixels[start + right * channels + c]);
}

/// The Philox words of an image's elements 4 block .. 4 block + 3.
using WordsOfBlock = std::function<PhiloxWords(std::uint32_t block)>;

/// Pixels in data space, dequantised where `words` is given.
void to_data_space(std::span<const std::uint8_t> pixels, const WordsOfBlock& words_of, bool centered,
                   float* out) {
  PhiloxWords words{};
  for (std::size_t e = 0; e < pixels.size(); ++e) {
    float x = static_cast<float>(pixels[e]) / 255.0f;
    if (words_of) {
      if (e % 4 == 0) words = words_of(static_cast<std::uint32_t>(e / 4));
      // u is a multiple of 2^-16: byte + u then fits a float's 24 bits exactly, and x stays below 1.
      const float u = static_cast<float>(words.word[e % 4] >> 16) * 0x1p-16f;
      x = (static_cast<float>(pixels[e]) + u) * 0x1p-8f;
    }
    out[e] = centered ? 2.0f * x - 1.0f : x;
  }
}

/// Few bytes in memory are copied faster than threads start.
int reading_threads(const Dataset& dataset, std::int64_t count) {
  const bool is_small = dataset.is_in_memory() && count * dataset.image_bytes() < kWorthThreads;
  return is_small ? 1 : decoding_threads();
}

/// The image moved by (dx, dy) pixels, zeros where there was nothing.
std::vector<std::uint8_t> shifted(const std::vector<std::uint8_t>& pixels, const Dataset& set, int dx,
                                  int dy) {
  std::vector<std::uint8_t> moved(pixels.size());
  const int height = set.height(), width = set.width(), channels = set.channels();
  for (int y = std::max(0, dy); y < std::min(height, height + dy); ++y)
    for (int x = std::max(0, dx); x < std::min(width, width + dx); ++x)
      for (int c = 0; c < channels; ++c)
        moved[(y * width + x) * channels + c] = pixels[((y - dy) * width + x - dx) * channels + c];
  return moved;
}

}  // namespace

Loader::Loader(const Dataset& dataset, const LoaderOptions& options) : dataset_(dataset), options_(options) {
  check(options.batch_size >= 1, "loader: batch size must be at least 1, got ", options.batch_size);
  check(dataset.size() >= 1 && dataset.size() <= std::numeric_limits<std::uint32_t>::max(),
        "loader: a set of ", dataset.size(), " images cannot be shuffled; it must have 1 to 2^32 - 1");
}

Loader::Permutation Loader::permutation(std::int64_t epoch) const {
  const std::lock_guard lock(mutex_);
  if (const auto found = permutations_.find(epoch); found != permutations_.end()) return found->second;
  // A batch and its successor rarely touch more than two epochs.
  if (permutations_.size() >= 2) permutations_.erase(permutations_.begin());
  const std::uint32_t count = static_cast<std::uint32_t>(dataset_.size());
  return permutations_[epoch] =
             std::make_shared<const std::vector<std::uint32_t>>(shuffled(count, options_, epoch));
}

void Loader::fill(std::int64_t position, std::int64_t image, float* out) const {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(dataset_.image_bytes()));
  dataset_.read(image, pixels);
  if (options_.random_flip && words_at(options_, Purpose::flip, position, 0).word[0] >> 31)
    mirror(pixels, dataset_.width(), dataset_.channels());
  if (const int reach = options_.crop_padding; reach > 0) {
    const PhiloxWords drawn = words_at(options_, Purpose::augment, position, 0);
    const auto shift = [&](int axis) {
      const std::uint64_t bits = std::uint64_t{drawn.word[2 * axis]} << 32 | drawn.word[2 * axis + 1];
      return static_cast<int>(scaled(bits, 2u * static_cast<unsigned>(reach) + 1u)) - reach;
    };
    pixels = shifted(pixels, dataset_, shift(0), shift(1));
  }

  WordsOfBlock words;
  if (options_.uniform_dequantization)
    words = [&](std::uint32_t block) { return words_at(options_, Purpose::dequantise, position, block); };
  to_data_space(pixels, words, options_.centered, out);
}

Batch Loader::at(std::int64_t k) const {
  const std::int64_t count = options_.batch_size, images = dataset_.size(),
                     per_image = dataset_.image_bytes();
  check(k >= 0 && k < std::numeric_limits<std::int64_t>::max() / count, "loader: batch ", k,
        " is out of range");
  Batch batch;
  batch.first = k * count;
  batch.shape = {count, dataset_.height(), dataset_.width(), dataset_.channels()};
  batch.images.resize(static_cast<std::size_t>(count * per_image));

  std::vector<std::int64_t> chosen(static_cast<std::size_t>(count));
  Permutation order;
  for (std::int64_t j = 0, epoch = -1; j < count; ++j) {
    const std::int64_t position = batch.first + j, place = position % images;
    if (options_.shuffle && position / images != epoch) order = permutation(epoch = position / images);
    chosen[j] = options_.shuffle ? static_cast<std::int64_t>((*order)[place]) : place;
    batch.labels.push_back(dataset_.label(chosen[j]));
  }
  parallel_for(count, reading_threads(dataset_, count), [&](std::int64_t j) {
    fill(batch.first + j, chosen[j], batch.images.data() + j * per_image);
  });
  return batch;
}

Batch Loader::next() {
  const bool is_prepared = prepared_.valid() && prepared_position_ == position_;
  Batch batch = is_prepared ? prepared_.get() : at(position_);
  prepared_position_ = ++position_;
  prepared_ = std::async(std::launch::async, [this, k = position_] { return at(k); });
  return batch;
}

void Loader::set_position(std::int64_t k) {
  check(k >= 0, "loader: position must not be negative, got ", k);
  position_ = k;
}

Tensor read_images(const Dataset& dataset, std::int64_t first, std::int64_t count, bool centered,
                   Context& context, const std::optional<NoiseKey>& dequantise) {
  check(first >= 0 && count >= 0 && first <= dataset.size() - count, "data: images ", first, " to ",
        first + count - 1, " were asked for, but the set has only ", dataset.size());
  const std::int64_t per_image = dataset.image_bytes();
  std::vector<float> values(static_cast<std::size_t>(count * per_image));
  parallel_for(count, reading_threads(dataset, count), [&](std::int64_t i) {
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(per_image));
    dataset.read(first + i, pixels);
    WordsOfBlock words;
    if (dequantise)
      words = [&](std::uint32_t block) { return philox(*dequantise, static_cast<std::uint32_t>(i), block); };
    to_data_space(pixels, words, centered, values.data() + i * per_image);
  });
  return Tensor::from_host(context, std::span<const float>(values),
                           {count, dataset.height(), dataset.width(), dataset.channels()});
}

}  // namespace sgm
