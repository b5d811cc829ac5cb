#pragma once
// CUDA's device functions that need no scheduler: atomics, cache hints, fences, arithmetic and bit
// intrinsics. Fibers switch at barriers and warp functions only, so a plain read-modify-write is atomic. The
// fast approximations err about as much as the hardware's, so that tolerances chosen here hold there.

#include <math.h>  // the C++ overloads of fma and the like outside std, as in CUDA

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace sgm::emulator {

template <class T>
concept Arithmetic = std::is_arithmetic_v<T>;
template <class T>
concept AtomicInteger =
    std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;
template <class T>
concept AtomicAddable = AtomicInteger<T> || std::same_as<T, float> || std::same_as<T, double>;
template <class T>
concept AtomicComparable = AtomicInteger<T> || std::same_as<T, long long>;

template <class T, class Update>
T update(T* address, Update&& compute) {
  const T old = *address;
  *address = compute(old);
  return old;
}

/// Nearest multiple of 2^-20.7: with float's own rounding an absolute error of up to 2^-21.4.
inline float coarse(float value) {
  constexpr float kSteps = 1703409.0f;
  return std::nearbyint(value * kSteps) / kSteps;
}
inline float fast_exp2(float x) { return std::exp2(x); }
inline float fast_exp(float x) { return std::exp2(x * 1.4426950408889634f); }
inline float fast_exp10(float x) { return std::exp2(x * 3.3219280948873623f); }
inline float fast_log2(float x) { return x >= 0.5f && x <= 2.0f ? coarse(std::log2(x)) : std::log2(x); }
inline float fast_log(float x) {
  return x >= 0.5f && x <= 2.0f ? coarse(std::log(x)) : std::log2(x) * 0.6931471805599453f;
}
inline float fast_log10(float x) {
  return x >= 0.5f && x <= 2.0f ? coarse(std::log10(x)) : std::log2(x) * 0.3010299956639812f;
}
inline float fast_sin(float x) { return coarse(std::sin(x)); }
inline float fast_cos(float x) { return coarse(std::cos(x)); }
inline float fast_pow(float x, float y) { return std::exp2(y * fast_log2(x)); }

/// value as an integer of type To as CUDA converts: out-of-range values saturate, NaN is 0.
template <class To, class From>
To saturating(From value) {
  const From end = std::ldexp(From{1}, std::numeric_limits<To>::digits);
  if (std::isnan(value)) return 0;
  if (value >= end) return std::numeric_limits<To>::max();
  if (value < (std::is_signed_v<To> ? -end : From{0})) return std::numeric_limits<To>::min();
  return static_cast<To>(value);
}

// Out of line, so that the compiler does not fuse them with their neighbours.
float product(float a, float b);
float sum(float a, float b);
double product(double a, double b);
double sum(double a, double b);

}  // namespace sgm::emulator

// Atomics: the old value is returned.
template <sgm::emulator::AtomicAddable T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T old) { return static_cast<T>(old + value); });
}
template <class T>
requires std::same_as<T, int> || std::same_as<T, unsigned> T atomicSub(T* address,
                                                                       std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T old) { return static_cast<T>(old - value); });
}
template <sgm::emulator::AtomicComparable T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T old) { return std::min(old, value); });
}
template <sgm::emulator::AtomicComparable T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T old) { return std::max(old, value); });
}
template <sgm::emulator::AtomicInteger T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T old) { return old & value; });
}
template <sgm::emulator::AtomicInteger T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T old) { return old | value; });
}
template <sgm::emulator::AtomicInteger T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T old) { return old ^ value; });
}
template <class T>
requires sgm::emulator::AtomicInteger<T> || std::same_as<T, float> T
atomicExch(T* address, std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T) { return value; });
}
template <class T>
requires sgm::emulator::AtomicInteger<T> || std::same_as<T, unsigned short> T
atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return sgm::emulator::update(address, [&](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned last) {
  return sgm::emulator::update(address, [&](unsigned old) { return old >= last ? 0u : old + 1u; });
}
inline unsigned atomicDec(unsigned* address, unsigned last) {
  return sgm::emulator::update(address,
                               [&](unsigned old) { return old == 0 || old > last ? last : old - 1u; });
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// Cache hints.
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldca(const T* p) {
  return *p;
}
template <class T>
T __ldlu(const T* p) {
  return *p;
}
template <class T>
T __ldcv(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, std::type_identity_t<T> value) {
  *p = value;
}
template <class T>
void __stcg(T* p, std::type_identity_t<T> value) {
  *p = value;
}
template <class T>
void __stwb(T* p, std::type_identity_t<T> value) {
  *p = value;
}
template <class T>
void __stwt(T* p, std::type_identity_t<T> value) {
  *p = value;
}

// CUDA's min and max take mixed types; of a number and NaN they give the number.
template <sgm::emulator::Arithmetic A, sgm::emulator::Arithmetic B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>)
    return std::fmin(static_cast<T>(a), static_cast<T>(b));
  else
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b);
}
template <sgm::emulator::Arithmetic A, sgm::emulator::Arithmetic B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>)
    return std::fmax(static_cast<T>(a), static_cast<T>(b));
  else
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}

// Fast approximations. Macros, because glibc declares functions of these names.
#define __expf(x) ::sgm::emulator::fast_exp(x)
#define __exp10f(x) ::sgm::emulator::fast_exp10(x)
#define __logf(x) ::sgm::emulator::fast_log(x)
#define __log2f(x) ::sgm::emulator::fast_log2(x)
#define __log10f(x) ::sgm::emulator::fast_log10(x)
#define __sinf(x) ::sgm::emulator::fast_sin(x)
#define __cosf(x) ::sgm::emulator::fast_cos(x)
#define __tanf(x) (::sgm::emulator::fast_sin(x) / ::sgm::emulator::fast_cos(x))
#define __powf(x, y) ::sgm::emulator::fast_pow(x, y)
inline float __fdividef(float x, float y) {
  const float size = std::fabs(y);
  return size > 0x1p126f && size <= std::numeric_limits<float>::max() ? x * 0.0f : x / y;
}
inline void __sincosf(float x, float* sine, float* cosine) {
  *sine = sgm::emulator::fast_sin(x);
  *cosine = sgm::emulator::fast_cos(x);
}
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// Arithmetic with its rounding in the name.
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return sgm::emulator::sum(x, y); }
inline float __fsub_rn(float x, float y) { return sgm::emulator::sum(x, -y); }
inline float __fmul_rn(float x, float y) { return sgm::emulator::product(x, y); }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return sgm::emulator::sum(x, y); }
inline double __dsub_rn(double x, double y) { return sgm::emulator::sum(x, -y); }
inline double __dmul_rn(double x, double y) { return sgm::emulator::product(x, y); }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __drcp_rn(double x) { return 1.0 / x; }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }

// Conversions.
inline int __float2int_rn(float x) { return sgm::emulator::saturating<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return sgm::emulator::saturating<int>(std::trunc(x)); }
inline int __float2int_rd(float x) { return sgm::emulator::saturating<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return sgm::emulator::saturating<int>(std::ceil(x)); }
inline unsigned __float2uint_rn(float x) { return sgm::emulator::saturating<unsigned>(std::nearbyint(x)); }
inline unsigned __float2uint_rz(float x) { return sgm::emulator::saturating<unsigned>(std::trunc(x)); }
inline long long __float2ll_rn(float x) { return sgm::emulator::saturating<long long>(std::nearbyint(x)); }
inline int __double2int_rn(double x) { return sgm::emulator::saturating<int>(std::nearbyint(x)); }
inline long long __double2ll_rn(double x) { return sgm::emulator::saturating<long long>(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ll2float_rn(long long x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline double __int2double_rn(int x) { return static_cast<double>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }

// Integers.
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>((static_cast<Wide>(a) * b) >> 64);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= ((x >> bit) & 1u) << (31 - bit);
  return reversed;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>(((std::uint64_t{high} << 32 | low) << (shift & 31u)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((std::uint64_t{high} << 32 | low) >> (shift & 31u));
}
