#pragma once
// Arrays as files hold them: element type, shape and raw little-endian bytes.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "sgm/core/error.h"
#include "sgm/core/types.h"

namespace sgm {

/// A dense row-major array in memory, native byte order. bytes.size() == shape.numel() * size_of(dtype).
struct Array {
  DType dtype = DType::f32;
  Shape shape;
  std::vector<std::byte> bytes;

  /// The elements as T; throws Error when T is not the array's element type.
  template <class T>
  std::span<const T> values() const {
    check(dtype_of<T>() == dtype, "array: elements are ", dtype, ", not ", dtype_of<T>());
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

/// Copies values into an Array; throws Error when their number is not shape.numel().
template <class T>
Array make_array(Shape shape, std::span<const T> values) {
  check(shape.numel() == static_cast<std::int64_t>(values.size()), "array: shape ", shape, " needs ",
        shape.numel(), " values, got ", values.size());
  Array array{dtype_of<T>(), shape, std::vector<std::byte>(values.size_bytes())};
  if (!values.empty()) std::memcpy(array.bytes.data(), values.data(), values.size_bytes());
  return array;
}

/// Bytes of a dense array with these sizes, for sizes that come from a file: throws Error, opening with
/// `what`, when the rank is above Shape::kMaxRank, a size is negative or the product does not fit. Call it
/// before building a Shape or allocating.
inline std::size_t checked_bytes(std::string_view what, DType dtype, std::span<const std::int64_t> sizes) {
  check(sizes.size() <= static_cast<std::size_t>(Shape::kMaxRank), what, ": arrays have at most ",
        Shape::kMaxRank, " dimensions, got ", sizes.size());
  // Counted without the zeros first, so that [0, huge, huge] is refused like [1, huge, huge].
  std::size_t bytes = size_of(dtype);
  bool is_empty = false;
  for (const std::int64_t size : sizes) {
    check(size >= 0, what, ": sizes must not be negative, got ", size);
    is_empty = is_empty || size == 0;
    const bool overflow = size > 0 && __builtin_mul_overflow(bytes, static_cast<std::size_t>(size), &bytes);
    check(!overflow && bytes <= static_cast<std::size_t>(PTRDIFF_MAX), what,
          ": the shape in the header is larger than any memory; the file is damaged");
  }
  return is_empty ? 0 : bytes;
}

}  // namespace sgm
