#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/parallel.h"
#include "backend/scratch.h"

namespace sgm {
namespace {

constexpr std::int64_t kBlocks = 64;            // Philox blocks drawn at once
constexpr std::int64_t kChunk = 4 * kBlocks;    // elements worked on at once: they stay in the L1 cache
constexpr std::int64_t kSegment = 64 * kChunk;  // elements of one partial sum

/// z[e] = element (begin + e) of the image's noise, e < size; begin is a multiple of 4. Loops run over blocks
/// of one word each, so that they vectorise.
void draw_normals(const NoiseKey& key, std::int64_t image, std::int64_t begin, std::int64_t size,
                  float (&z)[kChunk]) {
  std::uint32_t word[4][kBlocks];
  const std::uint32_t first = static_cast<std::uint32_t>(begin / 4);
  const std::uint32_t blocks = static_cast<std::uint32_t>((size + 3) / 4);
  for (std::uint32_t j = 0; j < blocks; ++j) {
    const PhiloxWords words = philox(key, static_cast<std::uint32_t>(image), first + j);
    for (int i = 0; i < 4; ++i) word[i][j] = words.word[i];
  }
  float normal[4][kBlocks];
  for (int half = 0; half < 4; half += 2) {
#pragma omp simd
    for (std::uint32_t j = 0; j < blocks; ++j) {
      const NormalPair pair = normals_from(word[half][j], word[half + 1][j]);
      normal[half][j] = pair.first, normal[half + 1][j] = pair.second;
    }
  }
  for (std::uint32_t j = 0; j < blocks; ++j)
    for (int i = 0; i < 4; ++i) z[4 * j + i] = normal[i][j];
}

/// Calls body(image, begin, size) for chunks that together cover every image.
template <class Body>
void for_each_chunk(std::int64_t n, std::int64_t per_image, const Body& body) {
  const std::int64_t chunks = (per_image + kChunk - 1) / kChunk;
#pragma omp parallel for if (n * per_image >= kParallelFrom)
  for (std::int64_t index = 0; index < n * chunks; ++index) {
    const std::int64_t begin = index % chunks * kChunk;
    body(index / chunks, begin, std::min(kChunk, per_image - begin));
  }
}

/// Sum of the squares of value(e), e < size, in an order fixed by size. A vectorised reduction would choose
/// one by the address of the values, and images would depend on their place in the batch.
template <class Value>
double sum_of_squares(std::int64_t size, const Value& value) {
  constexpr std::int64_t kLanes = 8;
  double lanes[kLanes] = {};
  std::int64_t e = 0;
  const auto add = [&](std::int64_t lane) {
    const double v = value(e + lane);
    lanes[lane] = std::fma(v, v, lanes[lane]);
  };
  for (; e + kLanes <= size; e += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) add(lane);
  for (std::int64_t lane = 0; lane < size - e; ++lane) add(lane);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/// sums[i] = sum of body(i, begin, size) over the chunks of image i, added in an order fixed by per_image.
template <class Body>
void sum_per_image(Context& context, std::int64_t n, std::int64_t per_image, double* sums, const Body& body) {
  const std::int64_t segments = (per_image + kSegment - 1) / kSegment;
  const Scratch scratch(context, static_cast<std::size_t>(n * segments) * sizeof(double));
  double* partial = scratch.as<double>();
#pragma omp parallel for if (n * per_image >= kParallelFrom)
  for (std::int64_t index = 0; index < n * segments; ++index) {
    const std::int64_t end = std::min(per_image, (index % segments + 1) * kSegment);
    double sum = 0.0;
    for (std::int64_t begin = index % segments * kSegment; begin < end; begin += kChunk)
      sum += body(index / segments, begin, std::min(kChunk, end - begin));
    partial[index] = sum;
  }
  for (std::int64_t image = 0; image < n; ++image) {
    sums[image] = 0.0;
    for (std::int64_t s = 0; s < segments; ++s) sums[image] += partial[image * segments + s];
  }
}

template <class T, class S>
void affine_step(const AffineStep& op) {
  using A = Accumulator<T>;
  for_each_chunk(op.n, op.per_image, [&op](std::int64_t image, std::int64_t begin, std::int64_t size) {
    const std::int64_t offset = image * op.per_image + begin;
    const A a = static_cast<A>(op.a.at(image)), c = static_cast<A>(op.c.at(image));
    const T* x = op.x.as<T>() + offset;
    A mean[kChunk];
    if (op.score) {
      const A b = static_cast<A>(op.b.at(image));
      const S* score = op.score.as<S>() + offset;
      for (std::int64_t e = 0; e < size; ++e)
        mean[e] =
            std::fma(a, static_cast<A>(x[e]), b * static_cast<A>(static_cast<Accumulator<S>>(score[e])));
    } else {
      for (std::int64_t e = 0; e < size; ++e) mean[e] = a * static_cast<A>(x[e]);
    }
    if (op.y_mean)
      std::transform(mean, mean + size, op.y_mean.as<T>() + offset, [](A v) { return static_cast<T>(v); });
    if (op.has_noise && op.noise.given) {
      const T* z = op.noise.given.as<T>() + offset;
      for (std::int64_t e = 0; e < size; ++e) mean[e] = std::fma(c, static_cast<A>(z[e]), mean[e]);
    } else if (op.has_noise) {
      float z[kChunk];
      draw_normals(op.noise.key, image, begin, size, z);
      for (std::int64_t e = 0; e < size; ++e) mean[e] = std::fma(c, static_cast<A>(z[e]), mean[e]);
    }
    std::transform(mean, mean + size, op.y.as<T>() + offset, [](A v) { return static_cast<T>(v); });
  });
}

/// sum[e] = sum_j coefficient_j term_j[offset + e].
void add_terms(const TermList& terms, std::int64_t offset, std::int64_t size, double (&sum)[kChunk]) {
  std::fill_n(sum, size, 0.0);
  for (int j = 0; j < terms.count; ++j) {
    const double coefficient = terms.coefficient[j];
    const double* term = terms.term[j] + offset;
    for (std::int64_t e = 0; e < size; ++e) sum[e] = std::fma(coefficient, term[e], sum[e]);
  }
}

}  // namespace

void Normal::cpu(Context&) const {
  dispatch_float(y.dtype, "normal", [this]<class T>(T) {
    for_each_chunk(n, per_image, [this](std::int64_t image, std::int64_t begin, std::int64_t size) {
      using A = Accumulator<T>;
      float z[kChunk];
      draw_normals(key, image, begin, size, z);
      T* out = y.as<T>() + image * per_image + begin;
      for (std::int64_t e = 0; e < size; ++e)
        out[e] = static_cast<T>(static_cast<A>(std) * static_cast<A>(z[e]));
    });
  });
}

void AffineStep::cpu(Context&) const {
  dispatch_float(x.dtype, "affine_step", [this]<class T>(T) {
    dispatch_float(score ? score.dtype : x.dtype, "affine_step",
                   [this]<class S>(S) { affine_step<T, S>(*this); });
  });
}

void SquaredNorms::cpu(Context& context) const {
  if (!x.given) {
    sum_per_image(context, n, per_image, norms.as<double>(),
                  [this](std::int64_t image, std::int64_t begin, std::int64_t size) {
                    float z[kChunk];
                    draw_normals(x.key, image, begin, size, z);
                    return sum_of_squares(size, [&](std::int64_t e) { return static_cast<double>(z[e]); });
                  });
    return;
  }
  dispatch_float(x.given.dtype, "squared_norms", [&]<class T>(T) {
    sum_per_image(context, n, per_image, norms.as<double>(),
                  [this](std::int64_t image, std::int64_t begin, std::int64_t size) {
                    const T* values = x.given.as<T>() + image * per_image + begin;
                    return sum_of_squares(size, [&](std::int64_t e) {
                      return static_cast<double>(static_cast<Accumulator<T>>(values[e]));
                    });
                  });
  });
}

void LangevinStepSize::cpu(Context&) const {
  double mean_score = 0.0, mean_noise = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    mean_score += std::sqrt(score_norms[i]) / static_cast<double>(n);
    mean_noise += std::sqrt(noise_norms[i]) / static_cast<double>(n);
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const double score = batch_mean ? mean_score : std::sqrt(score_norms[i]);
    const double noise = batch_mean ? mean_noise : std::sqrt(noise_norms[i]);
    const double ratio = snr * noise / score;
    b[i] = score == 0.0 ? 0.0 : 2.0 * alpha.at(i) * ratio * ratio;
    c[i] = std::sqrt(2.0 * b[i]);
  }
}

void ToBytes::cpu(Context&) const {
  const float* in = x.as<float>();
#pragma omp parallel for if (n > kParallelFrom)
  for (std::int64_t i = 0; i < n; ++i) y[i] = of(in[i]);
}

void LinearCombination::cpu(Context&) const {
  for_each_chunk(n, per_image, [this](std::int64_t image, std::int64_t begin, std::int64_t size) {
    const std::int64_t offset = image * per_image + begin;
    double sum[kChunk];
    add_terms(terms, offset, size, sum);
    for (std::int64_t e = 0; e < size; ++e) y[offset + e] = std::fma(h[image], sum[e], base[offset + e]);
  });
}

void ScaledSquaredNorms::cpu(Context& context) const {
  sum_per_image(context, n, per_image, norms,
                [this](std::int64_t image, std::int64_t begin, std::int64_t size) {
                  const std::int64_t offset = image * per_image + begin;
                  double sum[kChunk];
                  add_terms(terms, offset, size, sum);
                  return sum_of_squares(size, [&](std::int64_t e) {
                    const double u = std::abs(y[offset + e]), v = std::abs(y_other[offset + e]);
                    return sum[e] / std::fma(rtol, u > v ? u : v, atol);
                  });
                });
}

void GatherImages::cpu(Context&) const {
#pragma omp parallel for if (n * per_image >= kParallelFrom)
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t row = static_cast<std::int64_t>(rows[i]);
    const double* source = row < n_first ? first + row * per_image : second + (row - n_first) * per_image;
    std::memcpy(y + i * per_image, source, static_cast<std::size_t>(per_image) * sizeof(double));
  }
}

}  // namespace sgm
