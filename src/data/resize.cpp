#include <algorithm>
#include <cmath>

#include "sgm/core/error.h"
#include "sgm/data/image.h"

namespace sgm {
namespace {

/// One axis of the resize: output i is the sum over k of weights[i * taps + k] * input[first[i] + k].
struct AxisFilter {
  int taps = 0;
  std::vector<int> first;
  std::vector<float> weights;
};

/// Outputs [begin, begin + count) of a resize from `in` to `out` pixels.
AxisFilter triangle_filter(int in, int out, int begin, int count) {
  const double scale = static_cast<double>(in) / out, radius = std::max(scale, 1.0);
  AxisFilter axis;
  axis.taps = std::min(in, static_cast<int>(std::ceil(radius)) * 2 + 1);
  axis.first.resize(static_cast<std::size_t>(count));
  axis.weights.resize(static_cast<std::size_t>(count) * static_cast<std::size_t>(axis.taps));
  for (int i = 0; i < count; ++i) {
    const double centre = (begin + i + 0.5) * scale;
    const int first = std::clamp(static_cast<int>(std::floor(centre - radius)), 0, in - axis.taps);
    float* weights = axis.weights.data() + static_cast<std::ptrdiff_t>(i) * axis.taps;
    double sum = 0;
    for (int k = 0; k < axis.taps; ++k)
      sum += std::max(0.0, 1.0 - std::abs(first + k + 0.5 - centre) / radius);
    for (int k = 0; k < axis.taps; ++k)
      weights[k] = static_cast<float>(std::max(0.0, 1.0 - std::abs(first + k + 0.5 - centre) / radius) / sum);
    axis.first[static_cast<std::size_t>(i)] = first;
  }
  return axis;
}

}  // namespace

Image resize_and_crop(const Image& image, int size) {
  check(size >= 1 && size <= kMaxImageSide, "resize: the side must be 1 to ", kMaxImageSide, ", got ", size);
  check(image.height >= 1 && image.width >= 1, "resize: the image is empty");
  if (image.height == size && image.width == size) return image;
  const int short_side = std::min(image.height, image.width);
  const auto scaled = [&](int side) {
    const std::int64_t product = std::int64_t{2} * side * size + short_side;
    return static_cast<int>(product / (2 * short_side));
  };
  const int full_height = scaled(image.height), full_width = scaled(image.width);
  const AxisFilter across = triangle_filter(image.width, full_width, (full_width - size) / 2, size);
  const AxisFilter down = triangle_filter(image.height, full_height, (full_height - size) / 2, size);

  // Rows first, over those input rows that the crop needs.
  const int channels = image.channels, row = size * channels;
  const int top = down.first.front(), bottom = down.first.back() + down.taps;
  std::vector<float> rows(static_cast<std::size_t>(bottom - top) * static_cast<std::size_t>(row));
  for (int y = top; y < bottom; ++y) {
    const std::uint8_t* in = image.pixels.data() + static_cast<std::ptrdiff_t>(y) * image.width * channels;
    float* out = rows.data() + static_cast<std::ptrdiff_t>(y - top) * row;
    for (int x = 0; x < size; ++x)
      for (int k = 0; k < across.taps; ++k) {
        const float weight = across.weights[static_cast<std::size_t>(x) * across.taps + k];
        const std::uint8_t* pixel = in + static_cast<std::ptrdiff_t>(across.first[x] + k) * channels;
        for (int c = 0; c < channels; ++c) out[x * channels + c] += weight * pixel[c];
      }
  }

  Image result{size, size, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(size) * row)};
  std::vector<float> sums(static_cast<std::size_t>(row));
  for (int y = 0; y < size; ++y) {
    std::ranges::fill(sums, 0.0f);
    for (int k = 0; k < down.taps; ++k) {
      const float weight = down.weights[static_cast<std::size_t>(y) * down.taps + k];
      const float* in = rows.data() + static_cast<std::ptrdiff_t>(down.first[y] + k - top) * row;
      for (int i = 0; i < row; ++i) sums[i] += weight * in[i];
    }
    for (int i = 0; i < row; ++i)
      result.pixels[static_cast<std::size_t>(y) * row + i] =
          static_cast<std::uint8_t>(std::clamp(sums[i] + 0.5f, 0.0f, 255.0f));
  }
  return result;
}

}  // namespace sgm
