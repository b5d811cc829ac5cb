#pragma once
// Philox for many consecutive blocks of a sample at once.

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <bit>
#include <cstdint>
#include <cstring>

#include "sgm/core/random.h"

namespace sgm {

/// The words of blocks of one sample, in order; the step of the key is looked up once.
class PhiloxBlocks {
 public:
  static constexpr int kAtOnce = 8, kWords = 4 * kAtOnce;

  PhiloxBlocks(const NoiseKey& key, std::uint32_t sample) : key_(key), sample_(sample) {
    if (key.step_from) key_.step += *key.step_from;
    key_.step_from = nullptr;
  }

  /// Those of blocks first .. first + 7.
  void eight(std::uint32_t first, std::uint32_t* words) const {
#ifdef __AVX512F__
    // A word in every 64 bits, whose upper half is whatever products leave there. The order of blocks is the
    // one from which words of a block come to lie side by side.
    const std::uint64_t b = first;
    Words c0 = {b, b + 4, b + 1, b + 5, b + 2, b + 6, b + 3, b + 7};
    Words c1 = Words{} + (key_.first_sample + sample_), c2 = Words{} + key_.step,
          c3 = Words{} + static_cast<std::uint32_t>(key_.purpose);
    auto k0 = static_cast<std::uint32_t>(key_.seed), k1 = static_cast<std::uint32_t>(key_.seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      const Words p0 = times(c0, 0xD2511F53u), p1 = times(c2, 0xCD9E8D57u);
      c0 = (p1 >> 32) ^ c1 ^ k0;
      c2 = (p0 >> 32) ^ c3 ^ k1;
      c1 = p1, c3 = p0;
    }
    constexpr std::uint64_t kLow = 0xffffffffu;
    const Words w01 = (c0 & kLow) | c1 << 32, w23 = (c2 & kLow) | c3 << 32;
    const Words rows[2] = {__builtin_shufflevector(w01, w23, 0, 8, 2, 10, 4, 12, 6, 14),
                           __builtin_shufflevector(w01, w23, 1, 9, 3, 11, 5, 13, 7, 15)};
    std::memcpy(words, rows, sizeof(rows));
#else
#pragma omp simd
    for (std::uint32_t block = 0; block < std::uint32_t{kAtOnce}; ++block) {
      const PhiloxWords four = philox(key_, sample_, first + block);
      for (std::uint32_t j = 0; j < 4; ++j) words[4 * block + j] = four.word[j];
    }
#endif
  }

 private:
#ifdef __AVX512F__
  using Words = std::uint64_t __attribute__((vector_size(64)));

  /// Products of the lower halves. Not by the unmasked intrinsic, of which GCC 12 warns (PR 105593).
  static Words times(const Words& a, std::uint64_t b) {
    return std::bit_cast<Words>(
        _mm512_maskz_mul_epu32(0xff, std::bit_cast<__m512i>(a), std::bit_cast<__m512i>(Words{} + b)));
  }
#endif

  NoiseKey key_;
  std::uint32_t sample_;
};

}  // namespace sgm
