#pragma once
// Element types and shapes. No dependency beyond the standard library: legal inside .cu files.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>
#include <string_view>

#ifdef __CUDACC__
#define SGM_HD __host__ __device__
#else
#define SGM_HD
#endif

namespace sgm {

/// Element types. Tensors hold f32, bf16 and f64; files may hold the others too.
enum class DType : std::uint8_t { f32, bf16, f64, f16, i64, i32, u8 };

/// Bytes per element.
constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) {
  constexpr std::string_view kNames[] = {"f32", "bf16", "f64", "f16", "i64", "i32", "u8"};
  return kNames[static_cast<std::size_t>(dtype)];
}

inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name_of(dtype); }

/// bfloat16 storage: the upper half of a float, rounded to nearest even. Arithmetic happens in float.
struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  SGM_HD explicit bfloat16(float value) {
    // Both results, then a choice: only so do CPU compilers vectorise loops over it.
    const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, quiet = (u >> 16) | 0x40u;
    bits = static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
  SGM_HD operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};
static_assert(sizeof(bfloat16) == 2);

/// The DType of a C++ element type.
template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<bfloat16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
  return DType::i64;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
  return DType::u8;
}

/// The type in which sums and products of T are formed: double for double, float for float and bfloat16.
template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

/// Sizes of a dense array in memory order (the last runs fastest); rank 0 to 4.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<std::int64_t> sizes)
      : Shape(std::span<const std::int64_t>(sizes.begin(), sizes.size())) {}
  constexpr explicit Shape(std::span<const std::int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
    for (int i = 0; i < rank_ && i < kMaxRank; ++i)
      sizes_[static_cast<std::size_t>(i)] = sizes[static_cast<std::size_t>(i)];
  }

  constexpr int rank() const { return rank_; }
  /// Negative indices count from the end: shape[-1] is the channel count of an image batch.
  constexpr std::int64_t operator[](int i) const {
    return sizes_[static_cast<std::size_t>(i < 0 ? rank_ + i : i)];
  }
  constexpr std::int64_t numel() const {
    std::int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= sizes_[static_cast<std::size_t>(i)];
    return product;
  }
  constexpr const std::int64_t* begin() const { return sizes_.data(); }
  constexpr const std::int64_t* end() const { return sizes_.data() + rank_; }
  constexpr bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if ((*this)[i] != other[i]) return false;
    return true;
  }

 private:
  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (int i = 0; i < shape.rank(); ++i) out << (i ? ", " : "") << shape[i];
  return out << ']';
}

}  // namespace sgm
