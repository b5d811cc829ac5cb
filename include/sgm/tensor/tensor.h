#pragma once
// Tensor: a dense array on a device.

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "sgm/core/buffer.h"
#include "sgm/core/context.h"
#include "sgm/core/error.h"
#include "sgm/core/types.h"

namespace sgm {

/// Dense, contiguous, row-major array; images are [N, H, W, C]. A cheap handle: copies share storage, clone()
/// copies data. Knows nothing of gradients. A default-constructed tensor is "absent".
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialised.
  static Tensor empty(Context& context, Shape shape, DType dtype = DType::f32);
  static Tensor zeros(Context& context, Shape shape, DType dtype = DType::f32);
  static Tensor full(Context& context, Shape shape, double value, DType dtype = DType::f32);
  /// Copies values (float or double) into a tensor of `dtype`. Throws Error when the count is not
  /// shape.numel().
  static Tensor from_host(Context& context, std::span<const float> values, Shape shape,
                          DType dtype = DType::f32);
  static Tensor from_host(Context& context, std::span<const double> values, Shape shape,
                          DType dtype = DType::f64);
  /// A table that kernels read: the bytes of `rows`, in a tensor of f64 of the same size or a little more.
  template <class Row>
  static Tensor table(Context& context, std::span<const Row> rows) {
    static_assert(std::is_trivially_copyable_v<Row>);
    return from_bytes(context, std::as_bytes(rows));
  }

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  /// Where the tensor lives; ops run where their operands live.
  Context& context() const;

  /// Shares storage; numel must match.
  Tensor reshape(Shape shape) const;
  Tensor clone() const;
  /// The same values in another element type; shares storage when it already has it.
  Tensor to(DType dtype) const;
  /// Overwrites the values with those of `source` (same shape; converts the element type).
  void copy_from(const Tensor& source);
  /// Overwrites the values of an f32 or f64 tensor; throws Error when the count differs.
  void upload(std::span<const float> values);
  void upload(std::span<const double> values);
  void fill(double value);
  /// Adds a tensor of the same shape and type, in place.
  void add(const Tensor& other);

  /// Waits for the device and copies out.
  std::vector<float> to_host() const;
  std::vector<double> to_host_f64() const;
  /// The only element of a one-element tensor.
  double item() const;

  Buffer buffer();
  ConstBuffer buffer() const;
  ConstBuffer const_buffer() const { return buffer(); }
  /// Throws Error when T is not the element type.
  template <class T>
  T* data() {
    check(dtype_of<T>() == dtype_, "tensor: asked for ", dtype_of<T>(), " elements of a ", dtype_, " tensor");
    return static_cast<T*>(raw());
  }
  template <class T>
  const T* data() const {
    return const_cast<Tensor*>(this)->data<T>();
  }

  /// True when no other handle shares the storage, so that it may be overwritten.
  bool is_unique() const { return storage_.use_count() == 1; }
  /// Names the values: no other tensor of the context has it, not even one that lives at this address later,
  /// and mark_modified() changes it. Backends key derived copies (packed weights) on it. 0 when absent.
  std::uint64_t version() const;
  /// Call after writing to a tensor that backends may hold derived copies of. `low_too`: the copy of low()
  /// was written as well.
  void mark_modified(bool low_too = false);

  /// A bf16 copy of these f32 values times factor, made at the first call and after every change of the
  /// values, and kept beside them.
  Tensor low(double factor = 1.0) const;
  /// The memory and the factor of low(), for an update that writes both; absent where there never was a copy.
  Buffer low_buffer();
  double low_factor() const;

 private:
  struct Storage;
  static Tensor from_bytes(Context& context, std::span<const std::byte> bytes);
  void* raw() const;

  std::shared_ptr<Storage> storage_;
  Shape shape_;
  DType dtype_ = DType::f32;
};

}  // namespace sgm
