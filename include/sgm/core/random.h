#pragma once
// Counter-based random numbers: every draw is a pure function of (seed, purpose, step, sample, element), so a
// seed gives the same picture at any batch size and on any device, and nothing has to be saved to resume.
//
// The words are those of Philox4x32-10 (Salmon et al. 2011) exactly as cuRAND produces them for
// key = seed and counter = (element / 4, sample, step, purpose).

#include <cmath>
#include <cstdint>

#include "sgm/core/types.h"

namespace sgm {

/// What a draw is for. Draws of different purposes never share a counter.
enum class Purpose : std::uint32_t {
  shuffle = 1,
  flip = 2,
  time = 3,
  noise = 4,
  dequantise = 5,
  initialise = 6,
  prior = 7,
  predictor = 8,
  corrector = 9,
  probe = 10,
  constraint = 11,  // noise of what is known, in conditional sampling
  direction = 12,   // of sliced score matching
  density = 13,     // draws from a known density
  path = 14,        // sample paths of the forward SDE
  augment = 15,
  dropout = 64,  // dropout + layer index
};

/// Names a family of draws; element e of sample s is drawn at counter (e / 4, s, step, purpose).
struct NoiseKey {
  std::uint64_t seed = 0;
  Purpose purpose = Purpose::noise;
  std::uint32_t step = 0;
  std::uint32_t first_sample = 0;  // sample index of the batch's first entry
  /// A number on the device that is added to step; null: none. So work that is replayed draws anew.
  const std::uint32_t* step_from = nullptr;
};

struct PhiloxWords {
  std::uint32_t word[4];
};

/// Ten rounds of Philox4x32.
SGM_HD inline PhiloxWords philox(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3,
                                 std::uint64_t seed) {
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

SGM_HD inline PhiloxWords philox(const NoiseKey& key, std::uint32_t sample, std::uint32_t block) {
  const std::uint32_t step = key.step + (key.step_from ? *key.step_from : 0u);
  return philox(block, key.first_sample + sample, step, static_cast<std::uint32_t>(key.purpose), key.seed);
}

/// Uniform on (0, 1], cuRAND's mapping.
SGM_HD inline float uniform_from(std::uint32_t word) {
  return fmaf(static_cast<float>(word), 2.3283064365386963e-10f, 1.1641532182693481e-10f);
}

/// -2 ln(u) for u in (0, 1] from integer operations and fused multiply-adds only, so that every compiler and
/// device returns the same bits.
SGM_HD inline float minus_two_log(float u) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(u);
  // u = 2^e m with m in [sqrt(1/2), sqrt(2)).
  const std::int32_t shifted = static_cast<std::int32_t>(bits - 0x3f3504f3u);
  const float e = static_cast<float>(shifted >> 23);
  const float m = std::bit_cast<float>((static_cast<std::uint32_t>(shifted) & 0x007fffffu) + 0x3f3504f3u);
  const float f = m - 1.0f;
  // ln(1 + f) = f - f^2 / 2 + f^3 P(f), P the classical degree-8 minimax polynomial for single precision.
  float p = 7.0376836292e-2f;
  p = fmaf(p, f, -1.1514610310e-1f);
  p = fmaf(p, f, 1.1676998740e-1f);
  p = fmaf(p, f, -1.2420140846e-1f);
  p = fmaf(p, f, 1.4249322787e-1f);
  p = fmaf(p, f, -1.6668057665e-1f);
  p = fmaf(p, f, 2.0000714765e-1f);
  p = fmaf(p, f, -2.4999993993e-1f);
  p = fmaf(p, f, 3.3333331174e-1f);
  const float f2 = f * f;
  float log = fmaf(f2 * f, p, e * -2.12194440e-4f);
  log = fmaf(-0.5f, f2, log);
  log = fmaf(e, 0.693359375f, log + f);
  return -2.0f * log;
}

struct NormalPair {
  float first, second;
};

/// Box-Muller on two words, in cuRAND's order: (sin, cos). Only integer operations, fused multiply-adds and a
/// square root: bit-identical on every CPU and GPU.
SGM_HD inline NormalPair normals_from(std::uint32_t word_radius, std::uint32_t word_angle) {
  // A comparison, not fmaxf: only so do CPU compilers vectorise loops over blocks.
  const float squared_radius = minus_two_log(uniform_from(word_radius));
  const float radius = sqrtf(squared_radius > 0.0f ? squared_radius : 0.0f);
  // angle = 2 pi (word + 1/2) / 2^32: nearest quadrant from the top bits, remainder in [-pi/4, pi/4].
  const std::uint32_t turned = word_angle + 0x20000000u;
  const std::uint32_t quadrant = turned >> 30;
  const std::int32_t remainder = static_cast<std::int32_t>(turned & 0x3fffffffu) - 0x20000000;
  const float a = fmaf(static_cast<float>(remainder), 1.4629180792671596e-9f, 7.314590396335798e-10f);
  const float a2 = a * a;
  float s = 2.7183114939898219e-6f;
  s = fmaf(s, a2, -1.9839334836096632e-4f);
  s = fmaf(s, a2, 8.3333293858894632e-3f);
  s = fmaf(s, a2, -1.6666666641626524e-1f);
  s = fmaf(s * a2, a, a);
  float c = 2.443315711809948e-5f;
  c = fmaf(c, a2, -1.388731625493765e-3f);
  c = fmaf(c, a2, 4.166664568298827e-2f);
  c = fmaf(c, a2, -0.5f);
  c = fmaf(c, a2, 1.0f);
  const float sine = (quadrant & 1u) ? c : s, cosine = (quadrant & 1u) ? s : c;
  const float sign_s = (quadrant & 2u) ? -radius : radius;
  const float sign_c = (quadrant == 1u || quadrant == 2u) ? -radius : radius;
  return {sine * sign_s, cosine * sign_c};
}

/// Four normals of one Philox block.
SGM_HD inline void normals_of(const PhiloxWords& words, float out[4]) {
  const NormalPair a = normals_from(words.word[0], words.word[1]);
  const NormalPair b = normals_from(words.word[2], words.word[3]);
  out[0] = a.first;
  out[1] = a.second;
  out[2] = b.first;
  out[3] = b.second;
}

/// One uniform on (0, 1] for host-side choices (times, flips, shuffling).
inline float uniform_at(const NoiseKey& key, std::uint32_t sample, std::uint32_t element = 0) {
  return uniform_from(philox(key, sample, element / 4).word[element % 4]);
}

}  // namespace sgm
