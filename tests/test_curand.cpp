// Our random numbers are cuRAND's: its host generator needs no GPU.

#include <curand.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "sgm/core/random.h"

namespace sgm {
namespace {

constexpr std::uint64_t kSequences = 65536;  // that cuRAND's host generator runs side by side

/// cuRAND's Philox on the host.
class HostGenerator {
 public:
  HostGenerator(std::uint64_t seed, std::uint64_t offset) {
    EXPECT_EQ(curandCreateGeneratorHost(&generator_, CURAND_RNG_PSEUDO_PHILOX4_32_10), CURAND_STATUS_SUCCESS);
    EXPECT_EQ(curandSetPseudoRandomGeneratorSeed(generator_, seed), CURAND_STATUS_SUCCESS);
    EXPECT_EQ(curandSetGeneratorOffset(generator_, offset), CURAND_STATUS_SUCCESS);
  }
  ~HostGenerator() { curandDestroyGenerator(generator_); }
  HostGenerator(const HostGenerator&) = delete;
  HostGenerator& operator=(const HostGenerator&) = delete;

  std::vector<std::uint32_t> words(std::size_t n) {
    std::vector<std::uint32_t> words(n);
    EXPECT_EQ(curandGenerate(generator_, words.data(), n), CURAND_STATUS_SUCCESS);
    return words;
  }
  std::vector<float> uniforms(std::size_t n) {
    std::vector<float> values(n);
    EXPECT_EQ(curandGenerateUniform(generator_, values.data(), n), CURAND_STATUS_SUCCESS);
    return values;
  }
  std::vector<float> normals(std::size_t n) {
    std::vector<float> values(n);
    EXPECT_EQ(curandGenerateNormal(generator_, values.data(), n, 0.0f, 1.0f), CURAND_STATUS_SUCCESS);
    return values;
  }

 private:
  curandGenerator_t generator_ = nullptr;
};

/// Block b of the host generator: its sequences take turns, and each counts its own blocks.
PhiloxWords block_of(std::uint64_t seed, std::uint64_t b) {
  const std::uint64_t turn = b / kSequences;
  return philox(static_cast<std::uint32_t>(turn), static_cast<std::uint32_t>(turn >> 32),
                static_cast<std::uint32_t>(b % kSequences), 0, seed);
}

constexpr std::uint64_t kSeeds[] = {0, 1, 42, 0x123456789abcdefull, ~std::uint64_t{0}};

TEST(Curand, WordsAreItsWords) {
  for (const std::uint64_t seed : kSeeds)
    for (const std::uint64_t offset : {std::uint64_t{0}, 4 * (3 * kSequences - 5)}) {
      const std::size_t n = 4 * kSequences + 1024;  // from one counter of a sequence to the next
      const std::vector<std::uint32_t> words = HostGenerator(seed, offset).words(n);
      for (std::size_t i = 0; i < n; ++i)
        ASSERT_EQ(words[i], block_of(seed, (offset + i) / 4).word[i % 4])
            << "word " << i << ", seed " << seed << ", offset " << offset;
    }
}

TEST(Curand, CountersOfEverySizeAreItsCounters) {
  // Large counters, and those whose lower word has run over.
  for (const std::uint64_t offset :
       {std::uint64_t{1} << 33, (std::uint64_t{1} << 49) - 8, (std::uint64_t{5} << 51) + 4}) {
    const std::vector<std::uint32_t> words = HostGenerator(7, offset).words(8);
    for (std::size_t i = 0; i < words.size(); ++i)
      EXPECT_EQ(words[i], block_of(7, (offset + i) / 4).word[i % 4]) << "word " << i << ", offset " << offset;
  }
}

TEST(Curand, UniformsAreItsUniforms) {
  const std::size_t n = 1 << 18;
  const std::vector<float> uniforms = HostGenerator(42, 0).uniforms(n);
  for (std::size_t i = 0; i < n; ++i)
    ASSERT_EQ(uniforms[i], uniform_from(block_of(42, i / 4).word[i % 4])) << "number " << i;
}

TEST(Curand, NormalsAreItsNormalsUpToRounding) {
  const std::size_t n = 1 << 20;
  for (const std::uint64_t seed : kSeeds) {
    const std::vector<float> normals = HostGenerator(seed, 0).normals(n);
    for (std::size_t i = 0; i < n; i += 4) {
      float ours[4];
      normals_of(block_of(seed, i / 4), ours);
      for (std::size_t k = 0; k < 4; ++k)
        ASSERT_TRUE(std::abs(ours[k] - normals[i + k]) <= 1e-5f * std::max(1.0f, std::abs(normals[i + k])))
            << "number " << i + k << ", seed " << seed << ": " << ours[k] << " is not " << normals[i + k];
    }
  }
}

}  // namespace
}  // namespace sgm
